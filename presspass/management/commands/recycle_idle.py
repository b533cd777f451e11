"""Recycle Press Pass terminals that nobody uses. presspass.idleness decides, farm.lifecycle acts."""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from presspass import lifecycle
from presspass.lifecycle import Summary

_FATES = {"idle": "recycled", "end": "over"}
_SERVED = {True: "held a slot for", False: "given a slot"}
LONGEST_HOURS = 24 * 366


def hours(text: str) -> timedelta:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value <= LONGEST_HOURS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours above 0 and up to {LONGEST_HOURS}")
    return timedelta(hours=value)


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


class Command(BaseCommand):
    help = (
        "Warns who goes soon, ends Press Passes whose days are over, recycles running ones without activity, lets held "
        "slots go on and serves the waiting list. Spared: live accounts, what is paid for or in motion, open "
        "positions, and all of which it is not known. May run at any time, also twice at once: every few minutes."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        standard = timedelta(hours=settings.IDLE_HOURS)
        parser.add_argument(
            "--older-than",
            metavar="HOURS",
            type=hours,
            default=standard,
            help=f"without activity for so long (standard: {settings.IDLE_HOURS:g})",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would happen, change nothing")
        parser.add_argument("--limit", metavar="N", type=count, help="recycle at most so many")
        parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        summary = lifecycle.recycle_idle(
            older_than=options["older_than"], dry_run=options["dry_run"], limit=options["limit"]
        )
        self.stdout.write(json.dumps(summary.as_json()) if options["json"] else in_words(summary))


def in_words(summary: Summary) -> str:
    done = f"would recycle {len(summary.idle)}" if summary.dry_run else f"recycled {len(summary.recycled)}"
    would = "would be " if summary.dry_run else ""
    lines = [f"{done} of {summary.looked_at} Press Pass terminals without activity for {summary.older_than_hours:g} h"]
    changed = len(summary.idle) - len(summary.recycled)
    if changed and not summary.dry_run:
        lines.append(f"  {changed} changed in the meantime and were left alone")
    lines += [f"  {number} spared: {why}" for why, number in summary.spared.items()]
    ended = summary.over if summary.dry_run else summary.ended
    counted = {
        "warned": len(summary.warned),
        "ended, their days are over": len(ended),
        "held slots let go on": len(summary.withdrawn),
        "in line served": summary.served_count,
    }
    lines += [f"  {number} {would}{what}" for what, number in counted.items() if number]
    lines += [f"  {len(summary.failed)} failed; the log says why"] if summary.failed else []
    if summary.dry_run:
        lines += [
            f"  instance {one['instance']} would be told: {_FATES[one['of']]} at {one['at']}" for one in summary.warned
        ]
        lines += [f"  instance {one['instance']} would be {_SERVED[one['held']]}" for one in summary.served]
        lines += [f"  days over: {', '.join(map(str, ended))}"] if ended else []
    numbers = summary.idle if summary.dry_run else summary.recycled
    lines += [f"  instances: {', '.join(map(str, numbers))}"] if numbers else []
    return "\n".join(lines)
