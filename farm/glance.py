"""The farm at a glance, for staff: counted, never estimated; a constant number of queries whatever the farm holds.

One of them counts the terminals that are not destroyed by status, and so grows with them; the others read partial
indexes, or a handful of hosts.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, F, Q, Sum

from farm import clock, placement
from farm.fencing import Condition
from farm.models import Host, Instance
from farm.states import Connection, Status

HOSTS_SHOWN = 12
STARTS_LOOKED_AT = 5000
DAY = timedelta(hours=24)
HOURS = 24


@dataclass(frozen=True)
class Terminals:
    by_status: tuple[tuple[str, int], ...]
    total: int
    failed: int
    """Stand before staff: nothing is tried again by itself."""
    refused: int
    """Run, and their broker refuses the login."""


@dataclass(frozen=True)
class Hosts:
    shown: tuple[Host, ...]
    """The silent ones first, then the fullest."""
    number: int
    silent: int
    taken: int
    slots: int


@dataclass(frozen=True)
class Hour:
    begins: datetime
    started: int
    median_seconds: float | None
    """From asked for to running."""


def terminals() -> Terminals:
    there = Instance.objects.exclude(status=Status.DESTROYED).values("status").order_by()
    rows = there.annotate(
        number=Count("pk"),
        refused=Count("pk", filter=Q(connection=Connection.REFUSED, status=Status.RUNNING)),
        stuck=Count("pk", filter=Q(next_at__isnull=True, status=Status.FAILED)),
    )
    found = {row["status"]: row for row in rows}
    return Terminals(
        by_status=tuple((word.value, found[word]["number"]) for word in Status if word in found),
        total=sum(row["number"] for row in found.values()),
        failed=sum(row["stuck"] for row in found.values()),
        refused=sum(row["refused"] for row in found.values()),
    )


def hosts() -> Hosts:
    known = Host.objects.exclude(state=Host.State.RETIRED)
    sums = known.aggregate(
        number=Count("pk"), silent=Count("pk", filter=~heard()), taken=Sum("taken"), slots=Sum("slots")
    )
    shown = known.annotate(is_silent=~heard()).order_by("-is_silent", F("slots") - F("taken"), "name")
    return Hosts(
        shown=tuple(shown[:HOSTS_SHOWN]),
        number=sums["number"],
        silent=sums["silent"],
        taken=sums["taken"] or 0,
        slots=sums["slots"] or 0,
    )


def heard() -> Q:
    """Heard from lately, whatever their state; never heard from is not."""
    return Q(surveyed_at__isnull=False, surveyed_at__gte=placement.heard_since())


def condition(host: Host) -> Condition:
    """What the host is to us at this moment. A silent one is suspect, whatever it was doing."""
    if host.state == Host.State.RETIRED:
        return Condition.RETIRED
    if host.lost_at is not None:
        return Condition.LOST
    if host.surveyed_at is None or host.surveyed_at < placement.heard_since():
        return Condition.SUSPECT
    return Condition.DRAINING if host.state == Host.State.DRAINING else Condition.ONLINE


def last_day() -> tuple[Hour, ...]:
    """How many first ran in each hour of the last day, and how long that took; the newest 5,000 of them."""
    now = clock.now()
    ran = Instance.objects.filter(first_running_at__gt=now - DAY).order_by("-first_running_at")
    took: dict[int, list[float]] = defaultdict(list)
    for asked_at, ran_at in ran.values_list("created_at", "first_running_at")[:STARTS_LOOKED_AT]:
        if ran_at is not None:
            took[min(HOURS - 1, int((now - ran_at) / timedelta(hours=1)))].append((ran_at - asked_at).total_seconds())
    return tuple(_hour(now, ago, took.get(ago, [])) for ago in reversed(range(HOURS)))


def _hour(now: datetime, ago: int, took: list[float]) -> Hour:
    return Hour(now - timedelta(hours=ago + 1), len(took), statistics.median(took) if took else None)
