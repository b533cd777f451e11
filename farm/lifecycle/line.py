"""Who waits for a slot: served in order; who is not there when it comes free has it held for a while.

serve      somebody who is on the page starts at once; for anybody else the slot is held
accept     they take it
withdraw   they did not: the slot goes on to the next in line, and they leave it
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, Sum

from farm import clock, errors, placement, ports, vault
from farm.lifecycle import living, moving
from farm.lifecycle.asking import demo_account, in_line, place
from farm.lifecycle.settling import settle
from farm.models import Host, Instance, Transition
from farm.states import Connection, Goal, Kind, Status

PRESENT = timedelta(seconds=60)
"""Whoever looked at the page so lately is there."""
WATCH_RESOLUTION = timedelta(seconds=20)
DAY = timedelta(hours=24)
LATELY = 200
"""So many departures tell the pace; where there are more in a day, the newest so many do."""
BATCH = 200
WHO = "line"


def watch(instance_id: int) -> None:
    """Note that the customer of an instance in line is looking at its page; written at a resolution."""
    now = clock.now()
    Instance.objects.filter(
        Q(watched_at__lt=now - WATCH_RESOLUTION) | Q(watched_at__isnull=True), pk=instance_id, status=Status.WAITING
    ).update(watched_at=now)


def is_watched(row: Instance) -> bool:
    return row.watched_at is not None and row.watched_at >= clock.now() - PRESENT


def serve(row: Instance, *, who: str) -> bool:
    """Give the next in line, locked, a slot, or hold one for them; False if the farm has none."""
    return way_of(row)(row, who=who)


def way_of(row: Instance) -> Callable[..., bool]:
    """What happens to ``row`` when a slot is there for it."""
    if row.kind == Kind.LIVE and row.account_id:
        return living.give_slot
    # One that is first in line ran on a machine that was lost: nobody asks for it a second time.
    return place if row.kind == Kind.LIVE or row.first_in_line or is_watched(row) else offer


def offer(row: Instance, *, who: str) -> bool:
    """Hold a slot for a Press Pass whose customer is not there; False if the farm has none."""
    return settle(row, partial(_hold, row, who=who))


def _hold(row: Instance, host: Host, *, who: str) -> None:
    now = clock.now()
    until = now + timedelta(minutes=settings.OFFER_MINUTES)
    changes = {"host": host, "account": demo_account(row), "held_until": until}
    if in_line().order_by().filter(pk=row.pk).update(**changes) != 1:
        raise errors.ClaimLost(f"Instance {row.pk} is no longer in line.")
    Transition.objects.create(
        instance=row, at=now, was=Status.WAITING, became=Status.WAITING, why=f"a slot on {host.name} is held", who=who
    )
    row.refresh_from_db()


@transaction.atomic
def accept(instance_id: int, *, who: str) -> Instance:
    """Go on with the slot that is held. Accepted twice is once; :class:`errors.Refused` if it has gone on."""
    row = moving.locked(instance_id)
    if row.goal == Goal.DESTROYED:
        raise errors.Refused("The slot was not accepted in time and has gone to the next in line.")
    if row.status != Status.WAITING:
        return row
    if row.host is None or row.kind != Kind.PRESS_PASS:
        raise errors.Refused("No slot is held for you yet.")
    if placement.is_fresh(row.host):
        connection = Connection.UNKNOWN if row.account else Connection.NO_ACCOUNT
        why = f"accepted the slot on {row.host.name}"
        moving.move(row, Status.REQUESTED, why=why, who=who, held_until=None, connection=connection)
        return row
    # The machine went silent meanwhile. Another one, or its old place in line: numbers there follow who came first.
    ports.release(row)
    Instance.objects.filter(pk=row.pk).update(host=None, held_until=None, watched_at=clock.now())
    row.refresh_from_db()
    place(row, who=who)
    return row


def withdraw_expired(*, limit: int = BATCH) -> list[int]:
    """Let the slots go on that were held long enough; return whose they were."""
    return [pk for pk in expired_offers(limit=limit) if _withdraw(pk)]


def expired_offers(*, limit: int = BATCH) -> list[int]:
    rows = Instance.objects.filter(status=Status.WAITING, kind=Kind.PRESS_PASS, held_until__lte=clock.now())
    return list(rows.order_by("held_until").values_list("pk", flat=True)[:limit])


@transaction.atomic
def _withdraw(instance_id: int) -> bool:
    row = moving.locked(instance_id)
    if row.status != Status.WAITING or row.held_until is None or row.held_until > clock.now():
        return False
    living.end(row.pk, why="the slot was not accepted in time", who=WHO)
    return True


def expected_wait(position: int) -> timedelta | None:
    """How long that place in line takes at the pace of the last 24 hours; None if nobody left in them."""
    now = clock.now()
    gone = Instance.objects.filter(status=Status.DESTROYED, status_since__gt=now - DAY, generation__gt=0)
    times = list(gone.order_by("-status_since").values_list("status_since", flat=True)[:LATELY])
    if not times:
        return None
    span = now - times[-1] if len(times) == LATELY else DAY
    return position * span / len(times)


def foreseen(*, freed: int = 0) -> list[tuple[int, bool]]:
    """Who in line would get a slot now, and whether it would only be held; ``freed`` slots more than are free."""
    free = Host.objects.filter(placement.fresh()).aggregate(free=Sum(F("slots") - F("taken")))["free"] or 0
    accounts = vault.free_demos().count() if settings.DEMO_ACCOUNTS == "wait" else None
    found: list[tuple[int, bool]] = []
    for row in in_line()[:BATCH]:
        if len(found) >= free + freed:
            break
        if row.kind == Kind.PRESS_PASS and row.account_id is None and accounts is not None:
            if accounts <= 0:
                continue
            accounts -= 1
        found.append((row.pk, way_of(row) is offer))
    return found
