"""What customers, staff and clocks may ask of an instance, and the few questions their pages have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from farm import clock, doorbell, errors, states, vault
from farm.lifecycle import moving
from farm.lifecycle.ending import next_warning
from farm.lifecycle.settling import settle
from farm.models import BrokerAccount, Host, Instance, Transition
from farm.states import Connection, Goal, Kind, Status

TOUCH_RESOLUTION = timedelta(minutes=1)
"""Activity is noted at most this often: a page that is read every second costs no write every second."""


@transaction.atomic
def request(
    *, customer_id: int, kind: Kind, who: str, replaces: Instance | None = None, ends_at: datetime | None = None
) -> Instance:
    """Make a new instance for the customer: placed on a host at once, or last in line.

    ``ends_at``: when the days of its Press Pass are over, if that does not hang on its own first start.
    Raise :class:`errors.Refused` if the customer has a Press Pass already (the database has the last word on that:
    of two requests at once, one gets ``IntegrityError``).
    """
    mine = Instance.objects.filter(customer_id=customer_id)
    if kind is Kind.PRESS_PASS and mine.filter(kind=kind).exclude(goal=Goal.DESTROYED).exists():
        raise errors.Refused("You have a Press Pass terminal already.")
    ends: dict[str, Any] = (
        {"ends_at": ends_at, "warn_end_at": next_warning(ends_at, after=clock.now())} if ends_at else {}
    )
    row = new_instance(customer_id, kind, who=who, replaces=replaces, **ends)
    if not in_line().exclude(pk=row.pk).exists():
        place(row, who=who)
    return row


def new_instance(customer_id: int, kind: Kind, *, who: str, why: str = "asked for", **columns: Any) -> Instance:
    """The row of a new instance, waiting, with a folder name that this customer never had, and its first line."""
    earlier = Instance.objects.filter(customer_id=customer_id).count()
    now = clock.now()
    row = Instance.objects.create(
        customer_id=customer_id,
        kind=kind,
        status=Status.WAITING,
        folder=f"user_{customer_id}" + (f"-{earlier + 1}" if earlier else ""),
        created_at=now,
        status_since=now,
        activity_at=now,
        watched_at=now,
        **columns,
    )
    Transition.objects.create(instance=row, at=now, was="", became=Status.WAITING, why=why, who=who)
    return row


def in_line() -> QuerySet[Instance]:
    """Who waits for a slot, in the order in which they get one. (One whose slot is held waits for something else.)"""
    rows = Instance.objects.filter(status=Status.WAITING, host__isnull=True, goal=Goal.RUNNING)
    return rows.order_by("-first_in_line", "pk")


def place(row: Instance, *, who: str, avoid: int | None = None) -> bool:
    """Give a waiting instance a host, a slot and (a Press Pass) a demo account; False if the farm has none left.

    ``avoid``: a host that it is not to be on.
    """
    return settle(row, partial(_begin, row, who=who), avoid=avoid)


def _begin(row: Instance, host: Host, *, who: str) -> None:
    account = demo_account(row) if row.kind == Kind.PRESS_PASS else row.account
    connection = Connection.UNKNOWN if account else Connection.NO_ACCOUNT
    why = f"a slot on {host.name} is free"
    moving.move(row, Status.REQUESTED, why=why, who=who, host=host, account=account, connection=connection)


def demo_account(row: Instance) -> BrokerAccount | None:
    """The demo account that ``row`` has, or a free one; None, or ``NoFreeAccount``, where the vault holds none."""
    if row.account is not None:
        return row.account
    try:
        return vault.take_demo(row, now=clock.now())
    except errors.NoFreeAccount:
        if settings.DEMO_ACCOUNTS == "wait":
            raise
        return None


@transaction.atomic
def restart(instance_id: int, *, who: str) -> None:
    """Stop the terminal and start it again. Raise :class:`errors.Refused` unless it is running."""
    row = moving.locked(instance_id)
    if row.status != Status.RUNNING or row.goal != Goal.RUNNING:
        raise errors.IllegalMove("Only a running terminal can be restarted.")
    moving.move(row, Status.STOPPING, why="restart asked for", who=who)


@transaction.atomic
def retry(instance_id: int, *, who: str) -> None:
    """Try a failed instance again now. Raise :class:`errors.Refused` unless it failed."""
    row = moving.locked(instance_id)
    if row.status != Status.FAILED:
        raise errors.IllegalMove("Only a failed terminal can be tried again.")
    moving.move(row, states.retried_as(Goal(row.goal)), why="retry asked for", who=who, attempts=0)


def recycle(instance_ids: Sequence[int], *, why: str, who: str, idle_before: datetime) -> list[int]:
    """Destroy a batch of running Press Pass instances without activity since ``idle_before``; return those taken.

    Asked again in the transaction that takes them: what became active, moved or went live meanwhile is left alone.
    """
    with transaction.atomic():
        idle = Instance.objects.filter(
            pk__in=instance_ids,
            kind=Kind.PRESS_PASS,
            status=Status.RUNNING,
            goal=Goal.RUNNING,
            activity_at__lt=idle_before,
        )
        mine = list(idle.select_for_update(skip_locked=True, no_key=True).order_by("pk").values_list("pk", flat=True))
        # A second look: what replaces one of them may have been committed while the lock was being taken.
        rows = list(idle.filter(pk__in=mine).exclude(replaced_by__goal=Goal.RUNNING).order_by("pk"))
        taken = moving.move_many(rows, Status.DESTROYING, why=why, who=who, goal=Goal.DESTROYED)
        if taken:
            doorbell.ring_on_commit(doorbell.SWEEP)
    return taken


def touch(customer_id: int) -> None:
    """Note activity of the customer: a signed-in request."""
    now = clock.now()
    Instance.objects.filter(
        Q(activity_at__lt=now - TOUCH_RESOLUTION) | Q(activity_at__isnull=True),
        customer_id=customer_id,
        goal=Goal.RUNNING,
    ).update(activity_at=now)


def current(customer_id: int) -> Instance | None:
    """The instance that the customer's dashboard shows: the newest that no other one is to replace.

    One that came up for a lost demo may be newer than the live one that is on its way to replace either.
    """
    rows = Instance.objects.filter(customer_id=customer_id, replaced_by__isnull=True)
    return rows.select_related("host", "port", "account").order_by("-pk").first()


def waiting_position(row: Instance) -> int | None:
    """1 for the first in line; None if it is not waiting."""
    if row.status != Status.WAITING or row.host_id is not None or row.goal != Goal.RUNNING:
        return None
    ahead = Q(first_in_line=True) & ~Q(first_in_line=row.first_in_line)
    return in_line().filter(ahead | Q(first_in_line=row.first_in_line, pk__lte=row.pk)).count()
