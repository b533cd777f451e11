"""Open accounts at the paper broker.

    python broker.py ACCOUNTS_FILE --demo 500 [--server MetaQuotes-Demo] [--first 5000001] [--csv OUT]

Makes the file that PAPER_ACCOUNTS names, or adds to it: so many new demo accounts with random passwords, from the first
free login on. The file holds hashes only; the passwords are told once, as CSV (server, login, password, expires_at) on
the screen or added to OUT, which only its owner can read, for the portal's vault.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import secrets
import string
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Accounts = dict[str, dict[str, dict[str, Any]]]

SYMBOLS = "#@!%&*+-=_?"  # one of each of four kinds, 8 to 16 long: what a MetaTrader server asks for
KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, SYMBOLS)
COLUMNS = ("server", "login", "password", "expires_at")
LIVE_SERVER = "PaperBroker-Live"
SERVERS = ("MetaQuotes-Demo", "PaperBroker-Demo", LIVE_SERVER)
LIVE = {
    "7000001": ("Paper#7000001", {"mode": "full", "balance": 2500.0}, "may trade"),
    "7000002": ("Paper#7000002", {"mode": "investor", "balance": 2500.0}, "investor password: may only look"),
    "7000003": ("Paper#7000003", {"mode": "disabled", "balance": 2500.0}, "trading is disabled by the server"),
    "7000004": ("Paper#7000004", {"balance": 2500.0, "quirks": ["slow"]}, "the broker takes five seconds to answer"),
    "7000005": ("Paper#7000005", {"balance": 2500.0, "quirks": ["noanswer"]}, "the broker never answers"),
    "7000006": ("Paper#7000006", {"balance": 2500.0, "quirks": ["update"]}, "MetaTrader updates itself after login"),
}


def hashed(password: str) -> str:
    """What the accounts file keeps of a password."""
    return hashlib.sha256(password.encode()).hexdigest()


def new_password() -> str:
    """Random, 8 to 16 characters, every kind at least once, in no order."""
    letters = [secrets.choice(kind) for kind in KINDS]
    letters += [secrets.choice("".join(KINDS)) for _ in range(4 + secrets.randbelow(9))]
    secrets.SystemRandom().shuffle(letters)
    return "".join(letters)


def read_accounts(path: Path) -> Accounts:
    """The accounts that there are; none if there is no file. ValueError when it holds something else."""
    if not path.exists():
        return {}
    accounts = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(accounts, dict) or not all(isinstance(logins, dict) for logins in accounts.values()):
        raise ValueError("not an accounts file")
    return accounts


def replace(path: Path, text: str, *, mode: int) -> None:
    """Write beside and rename; from its first byte on, only those whom `mode` allows can read it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    beside.replace(path)


def open_demos(accounts: Accounts, server: str, *, count: int, first: int) -> dict[str, str]:
    """Add that many accounts under the first free logins; answers login -> password."""
    taken = accounts.setdefault(server, {})
    opened: dict[str, str] = {}
    login = first
    while len(opened) < count:
        if str(login) not in taken:
            opened[str(login)] = new_password()
            taken[str(login)] = {"sha256": hashed(opened[str(login)]), "mode": "full", "balance": 10000.0}
        login += 1
    return opened


def open_live(accounts: Accounts) -> None:
    """The fixed accounts; one that is there already stays as somebody may have changed it."""
    for server in SERVERS:
        accounts.setdefault(server, {})
    for login, (password, facts, _) in LIVE.items():
        accounts[LIVE_SERVER].setdefault(login, {"sha256": hashed(password), **facts})


def as_csv(server: str, opened: dict[str, str], *, expires_at: datetime, heading: bool) -> str:
    """The rows for the portal's vault."""
    text = io.StringIO()
    writer = csv.writer(text)
    if heading:
        writer.writerow(COLUMNS)
    writer.writerows((server, login, password, expires_at.isoformat()) for login, password in opened.items())
    return text.getvalue()


def open_accounts(options: argparse.Namespace) -> None:
    """Do what was asked. The passwords are written first: an account whose password nobody knows is of no use."""
    accounts = read_accounts(options.accounts)
    opened = open_demos(accounts, options.server, count=options.demo, first=options.first)
    open_live(accounts)
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=options.days)
    before = options.csv.read_text(encoding="utf-8") if options.csv and options.csv.exists() else ""
    rows = as_csv(options.server, opened, expires_at=expires_at, heading=not before)
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        replace(options.csv, before + rows, mode=0o600)
    else:
        sys.stdout.write(rows)
    options.accounts.parent.mkdir(parents=True, exist_ok=True)
    replace(options.accounts, json.dumps(accounts, indent=1) + "\n", mode=0o644)


def parser() -> argparse.ArgumentParser:
    lines = [f"    {login}  {password}  {what}" for login, (password, _, what) in LIVE.items()]
    epilog = f"Always there, at {LIVE_SERVER}, for trying things out (login, password):\n\n" + "\n".join(lines)
    made = argparse.ArgumentParser(
        description=__doc__, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("accounts", type=Path, metavar="ACCOUNTS_FILE")
    made.add_argument("--demo", type=int, default=0, metavar="N", help="how many demo accounts to open")
    made.add_argument("--server", default="MetaQuotes-Demo", help="at which server (default %(default)s)")
    made.add_argument("--first", type=int, default=5_000_001, help="the lowest login (default %(default)s)")
    made.add_argument("--days", type=int, default=365, help="for how long they are good (default %(default)s)")
    made.add_argument("--csv", type=Path, metavar="OUT", help="add the new accounts to this file, not to the screen")
    return made


def main(arguments: list[str] | None = None) -> int:
    wanted = parser()
    options = wanted.parse_args(arguments)
    if options.demo < 0 or options.first < 1:
        wanted.error("--demo and --first can't be negative")
    try:
        open_accounts(options)
    except (OSError, ValueError) as error:
        print(f"can't open the accounts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
