"""Which Press Passes recycle_idle looks at: read in batches, by keyset, through partial indexes alone.

What is at rest costs nothing: no query here reads a row that nothing is due for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet

from farm.models import Instance
from farm.states import Goal, Kind, Status
from presspass import idleness
from presspass.models import Subscription

BATCH = 500


def passes() -> QuerySet[Instance]:
    successors = Instance.objects.filter(replaces=OuterRef("pk"), goal=Goal.RUNNING)
    plans = Subscription.objects.filter(customer=OuterRef("customer"), ended_at__isnull=True)
    rows = Instance.objects.filter(kind=Kind.PRESS_PASS).select_related("host")
    return rows.annotate(is_upgrading=Exists(successors), is_paid_for=Exists(plans))


def known(row: Instance) -> idleness.Known:
    """The facts of a row that was read here."""
    upgrading, paid_for = getattr(row, "is_upgrading", False), getattr(row, "is_paid_for", False)
    return idleness.known(row, upgrading=upgrading, paid_for=paid_for)


def quiet(*, since: datetime, now: datetime) -> QuerySet[Instance]:
    """Running, and without activity since then; without those whose days are over, which go anyhow."""
    rows = passes().filter(status=Status.RUNNING, activity_at__lt=since)
    return rows.filter(Q(ends_at__isnull=True) | Q(ends_at__gt=now))


def going_quiet(*, after: datetime, since: datetime) -> QuerySet[Instance]:
    """Running, without activity since then, and not warned of that; but with some after ``after``."""
    rows = passes().filter(status=Status.RUNNING, goal=Goal.RUNNING, activity_at__gte=after, activity_at__lte=since)
    return rows.filter(Q(warned_idle_of__isnull=True) | ~Q(warned_idle_of=F("activity_at")))


def unknown() -> QuerySet[Instance]:
    return Instance.objects.filter(kind=Kind.PRESS_PASS, status=Status.RUNNING, activity_at__isnull=True)


def over(*, now: datetime) -> QuerySet[Instance]:
    return passes().filter(goal=Goal.RUNNING, ends_at__lte=now)


def to_tell_of_end(*, now: datetime) -> QuerySet[Instance]:
    return passes().filter(goal=Goal.RUNNING, warn_end_at__lte=now)


def batches(rows: QuerySet[Instance], by: str, *, size: int | None = None) -> Iterator[list[Instance]]:
    """Go through ``rows`` in the order of ``by`` and id, whatever happens to those that were handed out before."""
    rest: Any = Q()
    while batch := list(rows.filter(rest).order_by(by, "pk")[: size or BATCH]):
        yield batch
        at, pk = getattr(batch[-1], by), batch[-1].pk
        rest = Q(**{f"{by}__gte": at}) & (Q(**{f"{by}__gt": at}) | Q(pk__gt=pk))
