"""Encrypt every stored broker password anew under the newest field key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from farm import errors, vault


class Command(BaseCommand):
    help = (
        "Encrypts every stored broker password anew under the first of FIELD_KEYS, also those that the web closed to "
        "INTAKE_KEY. Needs the portal worker's environment; may run at any time, also again after it was broken off."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = vault.rotate()
        except errors.KeysMissing as error:
            raise CommandError(f"{error} Nothing is lost: put that key back, and run this again.") from error
        self.stdout.write(f"{done} passwords are under the newest key.")
