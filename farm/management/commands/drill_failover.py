"""Rehearse the loss of a host, on canaries."""

from __future__ import annotations

import json
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from farm import errors, lifecycle
from farm.models import Drill


class Command(BaseCommand):
    help = (
        "Rehearses the loss of a host that is well: makes canaries on it (live-like, without an account), acts as if "
        "its last survey and its present lease were the last ones, and fails the canaries over as in earnest. Waited "
        "out, not measured: detect (until it counts as silent) and fence (until that lease is surely over). Measured: "
        "restore (until the last canary runs elsewhere). The host itself, its watchdog and all else on it are left "
        "alone, so a drill does not show that the watchdog stops anything. Takes as long as a lease lasts; needs the "
        "worker, beat and the hosts running. Prints one JSON line; each drill stands in the admin."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("host", help="the host's name")
        parser.add_argument("--rehearse", action="store_true", help="required: nothing else is done by this command")
        parser.add_argument("--instances", type=int, default=2, metavar="N", help="so many canaries (standard: 2)")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["rehearse"]:
            raise CommandError("Say --rehearse: a host that is really off is given up in the admin.")
        try:
            drill = lifecycle.rehearse(options["host"], instances=options["instances"], pause=time.sleep)
        except errors.Refused as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(as_json(drill)))
        if drill.trouble:
            raise CommandError(drill.trouble)


def as_json(drill: Drill) -> dict[str, Any]:
    figures = {name: getattr(drill, f"{name}_seconds") for name in ("detect", "fence", "restore")}
    return {
        "drill": drill.pk,
        "host": drill.host.name,
        "instances": drill.instances,
        "waited_out": {name: _rounded(figures[name]) for name in ("detect", "fence")},
        "measured": {"restore": _rounded(figures["restore"])},
        "trouble": drill.trouble,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
