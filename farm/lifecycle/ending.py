"""Press Passes whose days are over are ended, and those that a link in a mail keeps alive are kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Value

from farm import clock, doorbell
from farm.lifecycle import moving
from farm.models import Instance
from farm.states import Goal, Kind, Status

LEFT_ALONE = (Status.WAITING, Status.DESTROYING, Status.DESTROYED)
TOLD_BEFORE = (timedelta(days=2), timedelta(days=1))
"""How long before its end a customer is told of it; the longest first."""


def next_warning(ends_at: datetime, *, after: datetime) -> datetime | None:
    """The first moment after ``after`` at which the customer is told of the end; None if there is none left."""
    return next((ends_at - before for before in TOLD_BEFORE if ends_at - before > after), None)


def end_over(instance_ids: Sequence[int], *, why: str, who: str) -> list[int]:
    """End a batch of Press Passes whose days are over, whatever they are doing; return those taken.

    Asked again in the transaction that takes them: what was renewed, goes live or moves meanwhile is left alone.
    """
    with transaction.atomic():
        over = Instance.objects.filter(
            pk__in=instance_ids, kind=Kind.PRESS_PASS, goal=Goal.RUNNING, ends_at__lte=clock.now()
        ).exclude(status__in=LEFT_ALONE)
        mine = over.select_for_update(skip_locked=True, no_key=True).order_by("pk").values_list("pk", flat=True)
        # A second look: what replaces one of them may have been committed while the lock was being taken.
        rows = list(over.filter(pk__in=list(mine)).exclude(replaced_by__goal=Goal.RUNNING).order_by("pk"))
        taken = moving.move_many(rows, Status.DESTROYING, why=why, who=who, goal=Goal.DESTROYED, attempts=0)
        if taken:
            doorbell.ring_on_commit(doorbell.SWEEP)
    return taken


@transaction.atomic
def reckon_ends(*, limit: int) -> int:
    """Write down when the days are over of those that first ran since it was last done; return how many."""
    rows = Instance.objects.filter(
        kind=Kind.PRESS_PASS, goal=Goal.RUNNING, ends_at__isnull=True, first_running_at__isnull=False
    )
    free = rows.select_for_update(skip_locked=True, no_key=True)  # what somebody is just moving is done by the next run
    batch = list(free.order_by("pk").values_list("pk", flat=True)[:limit])
    days = timedelta(days=settings.PRESS_PASS_DAYS)
    ends_at = ExpressionWrapper(F("first_running_at") + Value(days), output_field=DateTimeField())
    warn = ExpressionWrapper(F("first_running_at") + Value(days - TOLD_BEFORE[0]), output_field=DateTimeField())
    return Instance.objects.filter(pk__in=batch).update(ends_at=ends_at, warn_end_at=warn) if batch else 0


def days_left(row: Instance) -> dict[str, datetime | None]:
    """The columns that give another instance what is left of the days of a Press Pass, no more and no less."""
    ends_at = row.ends_at
    if ends_at is None and row.first_running_at is not None and row.kind == Kind.PRESS_PASS:
        ends_at = row.first_running_at + timedelta(days=settings.PRESS_PASS_DAYS)
    warn_end_at = row.warn_end_at or (next_warning(ends_at, after=clock.now()) if ends_at is not None else None)
    return {"ends_at": ends_at, "warn_end_at": warn_end_at}


def set_end(customer_id: int, ends_at: datetime) -> None:
    """Another end for the Press Pass that a customer has, if they have one: renewed by staff."""
    rows = Instance.objects.filter(customer_id=customer_id, kind=Kind.PRESS_PASS).exclude(goal=Goal.DESTROYED)
    rows.update(ends_at=ends_at, warn_end_at=next_warning(ends_at, after=clock.now()))


def keep_alive(instance_id: int, *, as_of: datetime) -> bool:
    """Note activity, if ``as_of`` is still the last one; False if there was another, or it is not running."""
    same = Instance.objects.filter(pk=instance_id, kind=Kind.PRESS_PASS, goal=Goal.RUNNING, activity_at=as_of)
    return same.update(activity_at=max(clock.now(), as_of + timedelta(microseconds=1))) == 1
