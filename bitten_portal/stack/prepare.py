"""Brings a stack's database up to date: tables, demo accounts, the hosts, the staff login. Safe to repeat.

    python -m bitten_portal.stack.prepare --host NAME PORTS VERIFY SEAL … --slots N --accounts CSV --staff EMAIL

STAFF_PASSWORD in the environment is the login's password if it has to be made. Prints what it made as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import django
from django.contrib.auth import get_user_model
from django.core.management import call_command


def main() -> None:
    options = _options()
    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    with Path(os.devnull).open("w") as silence:
        if options.accounts.exists():
            call_command("import_accounts", str(options.accounts), stdout=silence)
            options.accounts.unlink()  # the passwords stand encrypted in the vault now
        for name, ports, verify, seal in options.host:
            what = ["--slots", str(options.slots), "--ports", ports, "--verify", verify, "--seal", seal]
            call_command("add_host", name, *what, stdout=silence)
    print(json.dumps({"staff": _staff(options.staff)}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bitten_portal.stack.prepare")
    parser.add_argument("--host", nargs=4, action="append", required=True, metavar=("NAME", "PORTS", "VERIFY", "SEAL"))
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--accounts", type=Path, required=True)
    parser.add_argument("--staff", required=True)
    return parser.parse_args()


def _staff(email: str) -> bool:
    """Whether the login had to be made."""
    people = get_user_model()._default_manager
    if people.filter(email=email).exists():
        return False
    people.create_superuser(email=email, password=os.environ["STAFF_PASSWORD"])
    return True


if __name__ == "__main__":
    main()
