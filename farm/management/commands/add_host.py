"""Enrol a machine that terminals run on, or bring a known one up to date."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from farm import hosts
from farm.management.operator import operator
from farm.models import Host


def port_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (dash and first.isdigit() and last.isdigit()):
        raise argparse.ArgumentTypeError("give a range, as in 9000-9999")
    return int(first), int(last)


class Command(BaseCommand):
    help = (
        "Enrol a host: its name, slots, port range and the two keys that `python -m farm.agent keygen` printed on it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--slots", type=int, default=20, help="terminals it may hold at once (default 20)")
        parser.add_argument("--ports", type=port_range, default=(9000, 9999), help="port range (default 9000-9999)")
        parser.add_argument(
            "--policy",
            choices=Host.Policy.values,
            default="",
            help="what live terminals run under (standard: fenced; of a known host: what it was)",
        )
        parser.add_argument("--verify", required=True, help="base64 key that it signs with")
        parser.add_argument("--seal", required=True, help="base64 key that credentials are sealed to")

    def handle(self, *args: Any, **options: Any) -> None:
        first, last = options["ports"]
        try:
            host, new = hosts.enrol(
                hosts.Enrolment(
                    name=options["name"],
                    slots=options["slots"],
                    port_first=first,
                    port_last=last,
                    verify_key=options["verify"],
                    seal_key=options["seal"],
                    policy=options["policy"],
                ),
                who=f"staff:{operator()}",
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        self.stdout.write(f"{host} is {'enrolled' if new else 'up to date'}; its worker reads the queue {host.queue}.")
        self._say_what_is_put_where(host)

    def _say_what_is_put_where(self, host: Host) -> None:
        variables = hosts.environment(host)
        if not variables["FARM_PORTAL_KEYS"]:
            variables["FARM_PORTAL_KEYS"] = "...   # run this again in the portal worker's environment to see it"
        self.stdout.write("\nOn the host, beside what docs/host.md names (the broker as this machine reaches it):\n")
        self.stdout.write("\n".join(f"  {name}={value}" for name, value in variables.items()))
        self.stdout.write(f"\nOn the broker, with a password of its own for {hosts.PASSWORD} (docs/keys.md):\n")
        self.stdout.write(f"  {hosts.acl(host)}")
