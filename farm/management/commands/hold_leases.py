"""Let live terminals run on while the portal stands still for a planned while."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from farm import clock, errors, leases
from farm.management.operator import operator
from farm.models import Host


def span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hm])", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError("give hours or minutes, as in 2h or 90m")
    return timedelta(**{{"h": "hours", "m": "minutes"}[found[2]]: float(found[1])})


class Command(BaseCommand):
    help = (
        "Grants long leases before a maintenance of the portal, its database or its broker, so that live terminals run "
        f"on meanwhile: at most {settings.HOLD_LEASES_MOST_HOURS:g} hours (HOLD_LEASES_MOST_HOURS). A host that dies "
        "meanwhile cannot be failed over before its long lease is over. Without --for and --end: says how things stand."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--for", dest="span", type=span, metavar="SPAN", help="so long, as in 2h or 90m")
        what.add_argument("--end", action="store_true", help="usual leases again; those granted stay what they are")
        parser.add_argument("--host", help="only this one (standard: all)")
        parser.add_argument("--who", default=operator(), help="who stands in the journal (standard: your login)")

    def handle(self, *args: Any, **options: Any) -> None:
        hosts = self._hosts(options["host"])
        try:
            if options["span"]:
                getting = [host for host in hosts if host.policy == Host.Policy.FENCED]
                leases.hold(getting, span=options["span"], who=f"staff:{options['who']}")
            elif options["end"]:
                leases.end_hold([host for host in hosts if host.leases_held_until], who=f"staff:{options['who']}")
        except errors.Refused as error:
            raise CommandError(str(error)) from error
        for host in self._hosts(options["host"]):
            self._say(host)
        self._warn_of_the_keeper()

    def _hosts(self, name: str | None) -> Sequence[Host]:
        hosts = Host.objects.exclude(state=Host.State.RETIRED).order_by("name")
        found = list(hosts.filter(name=name) if name else hosts)
        if name and not found:
            raise CommandError(f"There is no host {name} in use.")
        return found

    def _say(self, host: Host) -> None:
        held = host.leases_held_until if _is_held(host) else None
        why = leases.why_no_lease(host)
        if why:
            nothing = "it gets no long lease" if held else "it gets no lease"
            self.stdout.write(self.style.WARNING(f"{host}: {nothing} now: {why}."))
        elif held:
            has = host.fenced_until is not None and host.fenced_until >= held
            state = "it has one" if has else "it gets one within seconds: look again"
            self.stdout.write(f"{host}: leases held until {_time(held)}; {state}.")
        else:
            self.stdout.write(f"{host}: usual leases of {settings.LEASE_SECONDS:g} s.")
        from_then = leases.given_up_from(host)
        if from_then is not None:
            self.stdout.write(f"    Should it die now, it can be failed over from {_time(from_then)}.")

    def _warn_of_the_keeper(self) -> None:
        seen = leases.keeper_seen_at()
        if seen is None or clock.now() - seen > timedelta(seconds=settings.LEASE_SECONDS / 3):
            when = f"since {_time(seen)}" if seen else "at all"
            self.stdout.write(self.style.WARNING(f"No keep_leases was seen {when}: nobody grants leases."))


def _is_held(host: Host) -> bool:
    return host.leases_held_until is not None and host.leases_held_until > clock.now()


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "never"
