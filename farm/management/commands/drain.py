"""Empty a host: what it runs comes up elsewhere, a few at a time."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from farm import errors, lifecycle
from farm.management.operator import operator
from farm.models import Host


class Command(BaseCommand):
    help = (
        "Empties a host: it gets no new work, and what it runs comes up elsewhere, a few at a time (DRAIN_AT_ONCE): "
        "Press Passes first, live terminals only while nothing is open. The portal does it by itself from then on; "
        "--status shows what is left, and what keeps it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("host")
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--force",
            action="store_true",
            help="also live terminals with positions open, or of which that is not known",
        )
        what.add_argument("--undo", action="store_true", help="use it again, with what is left on it")
        what.add_argument("--status", action="store_true", help="change nothing")
        parser.add_argument("--who", default=operator(), help="who stands in the journal (standard: your login)")

    def handle(self, *args: Any, **options: Any) -> None:
        host = Host.objects.filter(name=options["host"]).first()
        if host is None:
            raise CommandError(f"There is no host {options['host']}.")
        who = f"staff:{options['who']}"
        try:
            if options["undo"]:
                lifecycle.undo_drain(host.pk, who=who)
            elif not options["status"]:
                lifecycle.drain(host.pk, forced=options["force"], who=who)
        except errors.Refused as error:
            raise CommandError(str(error)) from error
        host.refresh_from_db()
        self._say(host)

    def _say(self, host: Host) -> None:
        left, kept = lifecycle.left_on(host), lifecycle.blockers(host)
        how = f"{host.state}, also what has something open" if host.drain_forced else host.state
        self.stdout.write(f"{host}: {how}; {len(left)} terminals on it.")
        if host.state == Host.State.DRAINING and not left:
            self.stdout.write("Nothing is left: retire it, or --undo to use it again.")
        if host.state == Host.State.DRAINING:
            for one in kept:
                self.stdout.write(f"    {one.row}: {one.why}")
