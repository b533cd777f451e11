"""The one compare-and-set that every change of status goes through, and the journal line that it leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F

from farm import clock, errors, states
from farm.models import Instance, Transition
from farm.states import Goal, Kind, Reason, Status

SPREAD = 97
"""Over so many parts of its time the first keepsakes of those that came up together are spread."""


def locked(instance_id: int) -> Instance:
    """The row as it is now, locked until the transaction ends, and with it the row that it replaces.

    Locks are always taken in the order instances (by id: the one replaced came first), port, host, seat. Who keeps to
    that waits for others and never deadlocks with them. Raise ``Instance.DoesNotExist`` if there is none.
    """
    return _locked(instance_id, [])


def locked_with_successors(instance_id: int) -> Instance:
    """The same, and with it all that are to replace the row."""
    return _locked(instance_id, Instance.objects.filter(replaces=instance_id).values_list("pk", flat=True))


def _locked(instance_id: int, others: Iterable[int]) -> Instance:
    replaced = Instance.objects.filter(pk=instance_id).values_list("replaces_id", flat=True)
    family = Instance.objects.filter(pk__in=[instance_id, *replaced, *others]).order_by("pk")
    list(family.select_for_update(no_key=True).values_list("pk", flat=True))
    return Instance.objects.select_related("account", "host", "replaces__account").get(pk=instance_id)


def was_lost(row: Instance) -> bool:
    """Whether its host was once given up, or fell silent before it ran: another one has taken its place."""
    return row.transitions.filter(became=Status.LOST).exists()


def check(was: Status, to: Status) -> None:
    if to not in states.MOVES[was]:
        raise errors.IllegalMove(f"A terminal that is {was.value} cannot become {to.value}.")


def changes_for(to: Status, *, now: datetime) -> dict[str, Any]:
    """What goes with every move to ``to``: the step it makes due, and a number that makes older answers void."""
    changes: dict[str, Any] = {"status": to, "status_since": now, "claimed_until": None, "next_at": None}
    if to in states.IN_MOTION:
        changes |= {"next_at": now, "generation": F("generation") + 1}
    if to not in {Status.RUNNING, Status.STARTING, Status.STOPPING}:
        changes["keep_due_at"] = None
    if to in {Status.RUNNING, Status.STOPPED, Status.DESTROYED}:
        changes |= {"attempts": 0, "reason": Reason.NONE, "reason_detail": ""}
    return changes


def move(row: Instance, to: Status, *, why: str, who: str, **changes: Any) -> None:
    """Move ``row`` from the status and generation that it was read with, or raise :class:`errors.ClaimLost`.

    ``changes`` are further columns of the same statement and win over the usual ones. ``row`` itself is brought up
    to date. The Transition is in the same transaction, and its signal rings for the next step on commit.
    """
    was = Status(row.status)
    check(was, to)
    now = clock.now()
    columns = changes_for(to, now=now) | _keepsake_due(row, to, now=now) | changes
    with transaction.atomic():
        same = Instance.objects.filter(pk=row.pk, status=was, generation=row.generation)
        if same.update(**columns) != 1:
            raise errors.ClaimLost(f"Instance {row.pk} is no longer {was.value} in generation {row.generation}.")
        Transition.objects.create(instance=row, at=now, was=was, became=to, why=why[:200], who=who)
    row.refresh_from_db()


def _keepsake_due(row: Instance, to: Status, *, now: datetime) -> dict[str, Any]:
    """When the keepsake of a live one that runs now is first fetched: not of all at once that came up together."""
    if to is not Status.RUNNING or row.kind != Kind.LIVE or row.keep_due_at is not None:
        return {}
    if settings.KEEPSAKE_EVERY_HOURS <= 0:
        return {}
    spread = 0.5 + row.pk % SPREAD / SPREAD / 2
    return {"keep_due_at": now + spread * timedelta(hours=settings.KEEPSAKE_EVERY_HOURS)}


def move_many(
    rows: Sequence[Instance], to: Status, *, why: str, who: str, goal: Goal | None = None, **changes: Any
) -> list[int]:
    """Move a batch in a constant number of statements; return the ids that were still as they were read.

    ``changes`` are further columns, and win over the usual ones. Bulk statements send no signal: the caller rings,
    once.
    """
    if not rows:
        return []
    for row in rows:
        check(Status(row.status), to)
    now = clock.now()
    columns = changes_for(to, now=now) | changes
    if goal is not None:
        columns["goal"] = goal
    with transaction.atomic():
        taken = _lock_unchanged(rows)
        Instance.objects.filter(pk__in=[row.pk for row in taken]).update(**columns)
        Transition.objects.bulk_create(
            [Transition(instance=row, at=now, was=row.status, became=to, why=why, who=who) for row in taken]
        )
    return [row.pk for row in taken]


def _lock_unchanged(rows: Sequence[Instance]) -> list[Instance]:
    """The rows that still have the status and generation they were read with, locked; in order, so nobody deadlocks.

    Rows that another transaction is just moving are passed over: they are its own. (On SQLite the transaction is
    the lock.)
    """
    now_there = {
        (row.pk, row.status, row.generation)
        for row in Instance.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(pk__in=[row.pk for row in rows])
        .order_by("pk")
    }
    return [row for row in rows if (row.pk, row.status, row.generation) in now_there]


def fail(row: Instance, reason: Reason, detail: str, *, who: str) -> None:
    """Note that a step failed: tried again later by itself, or standing before staff."""
    attempts = row.attempts + 1
    retried = states.is_retried(reason, attempts, limit=settings.RETRY_ATTEMPTS)
    delay = states.retry_delay(attempts, first=settings.RETRY_FIRST_SECONDS, most=settings.RETRY_MOST_SECONDS)
    move(
        row,
        Status.FAILED,
        why=f"{row.status} failed: {reason.value.replace('_', ' ')}",
        who=who,
        attempts=attempts,
        reason=reason,
        reason_detail=detail[:200],
        next_at=clock.now() + delay if retried else None,
    )


def soon(seconds: float) -> datetime:
    return clock.now() + timedelta(seconds=seconds)
