"""``make bench-golive``: from the payment to the live terminal, on a stack of its own with the paper Stripe and broker.

Thirty customers with a running demo pay one after another, then thirty at once. Timed is from the payment (the webhook
follows) until the row says that the broker lets the live terminal trade; beside it, in the same run, a plain
``shutil.copytree`` of the same master. The last line is one JSON object. Seconds are reported, not asserted; what is
lost must be 0.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.signup import Board, copytree_ms, percentile
from benchmarks.visitor import Visitor
from bitten_portal.stack import Stack

SERVER = "PaperBroker-Live"
FIRST_LOGIN = 7_100_001
LIVE = (
    "SELECT u.email FROM farm_instance i JOIN presspass_user u ON u.id = i.customer_id "
    "WHERE i.kind = 'live' AND i.status = 'running' AND i.proven_at IS NOT NULL"
)


@dataclass(frozen=True)
class Account:
    login: str
    password: str


def accounts(stack: Stack, count: int, folder: Path) -> list[Account]:
    """Open so many live accounts at the paper broker."""
    written = folder / "live.csv"
    program = ["farm/paper/broker.py", str(stack.places.accounts), "--demo", str(count), "--server", SERVER]
    where = ["--first", str(FIRST_LOGIN), "--csv", str(written)]
    subprocess.run([sys.executable, *program, *where], check=True, capture_output=True)
    with written.open(encoding="utf-8", newline="") as lines:
        return [Account(row["login"], row["password"]) for row in csv.DictReader(lines)]


def confirm_all(stack: Stack) -> None:
    """Confirm every address, as a click on the link in the mail would: that way is not what is timed here."""
    with closing(sqlite3.connect(stack.places.database, timeout=20)) as base, base:
        base.execute("UPDATE presspass_user SET email_verified_at = datetime('now')")


def to_the_till(visitor: Visitor, account: Account) -> str:
    """Hand in plan and login; return the id of the payment page's session."""
    form = {"plan": "nibbler", "server": SERVER, "login": account.login, "password": account.password}
    visitor.page("/go-live/", {"csrfmiddlewaretoken": visitor.token("/go-live/"), **form})
    return visitor.last_url.rsplit("/", 1)[-1].split("?")[0]


def pay(stack: Stack, session: str) -> None:
    url = f"http://127.0.0.1:{stack.environments.stripe_port}/_paper/sessions/{session}/pay"
    asked = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        answer.read()


def go_live(stack: Stack, board: Board, email: str, session: str, *, within: float) -> float | None:
    began = time.perf_counter()
    pay(stack, session)
    at = board.running_at(email, within=within)
    return None if at is None else at - began


def summary(seconds: Sequence[float | None]) -> dict[str, object]:
    live = [value for value in seconds if value is not None]
    shares = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    figures = {name: round(1000 * percentile(live, share), 1) for name, share in shares.items()}
    return {"payments": len(seconds), "live_ms": figures, "lost": len(seconds) - len(live)}


def measure(stack: Stack, wanted: argparse.Namespace, folder: Path) -> dict[str, dict[str, object]]:
    count = wanted.row + wanted.burst
    emails = [f"payer{number}@example.org" for number in range(count)]
    visitors = [Visitor(stack.url, email) for email in emails]
    demos = Board(stack.places.database)
    threading.Thread(target=demos.watch, daemon=True).start()
    with ThreadPoolExecutor(4) as people:
        list(people.map(Visitor.sign_up, visitors))
    if [email for email in emails if demos.running_at(email, within=180) is None]:
        raise SystemExit("Not every demo came up.")
    demos.stop()
    confirm_all(stack)
    given = accounts(stack, count, folder)
    board = Board(stack.places.database, LIVE)
    threading.Thread(target=board.watch, daemon=True).start()
    row = []
    for visitor, account in list(zip(visitors, given, strict=True))[: wanted.row]:
        session = to_the_till(visitor, account)
        row.append(go_live(stack, board, visitor.email, session, within=60))
    tell("one after another", row)
    rest = list(zip(visitors, given, strict=True))[wanted.row :]
    sessions = [(visitor.email, to_the_till(visitor, account)) for visitor, account in rest]
    with ThreadPoolExecutor(max(1, wanted.burst)) as people:
        burst = list(people.map(lambda one: go_live(stack, board, *one, within=180), sessions))
    tell("at once", burst)
    board.stop()
    return {"in_a_row": summary(row), "at_once": summary(burst)}


def tell(name: str, seconds: Sequence[float | None]) -> None:
    found = summary(seconds)
    print(f"{name}: payment to live {found['live_ms']} ms, lost {found['lost']}", flush=True)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.golive", description=__doc__)
    parser.add_argument("--row", type=int, default=30, help="payments one after another (default 30)")
    parser.add_argument("--burst", type=int, default=30, help="payments at once (default 30)")
    parser.add_argument("--rounds", type=int, default=7, help="copytree rounds (default 7)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    wanted = options(argv)
    slots = 2 * (wanted.row + wanted.burst) + 5
    env = {"LIMIT_SIGNUPS": "100000/h", "LIMIT_MAILS": "100000/h", "ACCOUNTS": str(slots)}
    print(f"settings: slots {slots}, {', '.join(f'{name} {value}' for name, value in env.items())}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-golive-") as folder:
        with Stack(data_dir=Path(folder) / "var", slots=slots, env=env) as stack:
            found = measure(stack, wanted, Path(folder))
        yardstick = round(copytree_ms(stack.places.master, Path(folder), wanted.rounds), 1)
    result = {
        **found,
        "aim": {"in_a_row_p95_ms": 2000},
        "copytree_ms": yardstick,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }
    print(json.dumps(result))
    return 1 if found["in_a_row"]["lost"] or found["at_once"]["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
