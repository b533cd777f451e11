"""Put demo broker accounts into the vault."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_datetime

from farm import errors, vault

COLUMNS = ("server", "login", "password", "expires_at")


class Command(BaseCommand):
    help = "Put demo accounts from a CSV file (server,login,password,expires_at) into the vault. Needs FIELD_KEYS."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with options["file"].open(newline="", encoding="utf-8") as lines:
                accounts = [_account(number, row) for number, row in enumerate(csv.DictReader(lines), start=2)]
            added = vault.put(accounts)
        except (OSError, errors.KeysMissing) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{added} new demo accounts, {len(accounts) - added} known ones.")


def _account(number: int, row: dict[str, str]) -> tuple[str, int, str, datetime | None]:
    if not set(COLUMNS[:3]) <= row.keys() or not (row["server"] and row["password"] and row["login"].isdigit()):
        raise CommandError(f"Line {number} is not server,login,password[,expires_at].")
    expires = parse_datetime(row.get("expires_at") or "")
    return row["server"], int(row["login"]), row["password"], expires
