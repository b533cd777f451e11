"""Make a database that was put back from a backup safe to work with."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from farm import lifecycle
from farm.management.operator import operator


class Command(BaseCommand):
    help = (
        "To be run once after the database was put back from a backup, before anything else of the portal is started: "
        "raises every host's epoch, begins all fences anew, skips the numbers that may have been given out since, and "
        "pulls the brake. No live account is logged in anywhere before somebody has looked at the hosts and lets go."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--who", default=operator(), help="who stands in the journal (standard: your login)")
        parser.add_argument(
            "--leases-were-held",
            action="store_true",
            help="hold_leases was in force: fences begin as late as the longest of such leases may end",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        who, held = f"staff:{options['who']}", options["leases_were_held"]
        done = lifecycle.after_restore(leases_were_held=held, who=who)
        self.stdout.write(
            f"Hosts with a new epoch: {done.hosts}. Fenced until {done.fenced_until:%H:%M:%S} UTC at least: "
            f"{done.fenced}. The brake is on."
        )
        self.stdout.write(
            "Now start the portal, wait until all hosts are heard, look at their orphans and at what failed in the "
            "admin, and then let go of the brake there."
        )
