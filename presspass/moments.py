"""How a moment is said to a person: in their zone, the zone named, and how far away it is. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}\Z")


@dataclass(frozen=True)
class Moment:
    """``text`` is for people, ``iso`` for the machine-readable half of a <time> element."""

    text: str
    iso: str

    def __str__(self) -> str:
        return self.text


def zone(name: str) -> tzinfo:
    """The zone of that name, or UTC if there is none such; a browser may send anything."""
    if not is_zone(name):
        return UTC
    return ZoneInfo(name)


def is_zone(name: str) -> bool:
    if len(name) > 64 or not _ZONE.match(name):
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def at(moment: datetime, *, now: datetime, zone: tzinfo) -> Moment:
    """``today 18:40 CET``."""
    there = moment.astimezone(zone)
    return Moment(f"{_day(there, now.astimezone(zone))} {there:%H:%M} {zone_name(there)}", moment.isoformat())


def at_and_away(moment: datetime, *, now: datetime, zone: tzinfo) -> Moment:
    """``today 18:40 CET, in 3 h``."""
    said = at(moment, now=now, zone=zone)
    return Moment(f"{said.text}, {away(moment, now=now)}", said.iso)


def full(moment: datetime, *, zone: tzinfo) -> Moment:
    """``Sun 22 Nov 2026 18:40 CET``: the same whenever it is read."""
    there = moment.astimezone(zone)
    return Moment(
        f"{there:%a} {there.day} {there:%b} {there.year} {there:%H:%M} {zone_name(there)}", moment.isoformat()
    )


def clock_time(moment: datetime, *, now: datetime, zone: tzinfo) -> Moment:
    """``14:02 CET`` if that is today, else with its day."""
    there = moment.astimezone(zone)
    day = _day(there, now.astimezone(zone))
    return Moment(f"{'' if day == 'today' else day + ' '}{there:%H:%M} {zone_name(there)}", moment.isoformat())


def seconds_time(moment: datetime, *, now: datetime, zone: tzinfo) -> Moment:
    """``18:40:07``, with its day if that is not today: for steps that follow each other quickly."""
    there = moment.astimezone(zone)
    day = _day(there, now.astimezone(zone))
    return Moment(f"{'' if day == 'today' else day + ' '}{there:%H:%M:%S}", moment.isoformat())


def ago(moment: datetime, *, now: datetime) -> Moment:
    return Moment(away(moment, now=now), moment.isoformat())


def away(moment: datetime, *, now: datetime) -> str:
    """``in 3 h``, ``12 s ago``."""
    seconds = round((moment - now).total_seconds())
    if seconds == 0:
        return "now"
    return f"in {length(seconds)}" if seconds > 0 else f"{length(-seconds)} ago"


def length(seconds: float) -> str:
    """The two figures that matter: ``23 ms``, ``0.4 s``, ``12 s``, ``3 min``, ``5 h``, ``6 days``."""
    if seconds < 0.0995:
        return f"{max(seconds * 1000, 1):.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds != int(seconds) else f"{int(seconds)} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 47.5 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def zone_name(there: datetime) -> str:
    """``CET``; where a zone has no letters, ``UTC+4``."""
    name = there.tzname() or "UTC"
    if name[0] not in "+-":
        return name
    offset = there.utcoffset() or timedelta()
    hours, minutes = divmod(abs(int(offset.total_seconds())) // 60, 60)
    return f"UTC{'-' if offset < timedelta() else '+'}{hours}" + (f":{minutes:02}" if minutes else "")


def _day(there: datetime, today: datetime) -> str:
    days = (there.date() - today.date()).days
    if days in _DAYS:
        return _DAYS[days]
    return f"{there:%a} {there.day} {there:%b}" + (f" {there.year}" if there.year != today.year else "")


_DAYS = {-1: "yesterday", 0: "today", 1: "tomorrow"}
