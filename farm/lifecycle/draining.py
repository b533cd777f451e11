"""A host is emptied: a few at a time come up elsewhere, demos first, live ones only while nothing is open.

Nothing is remembered but the host's state. Each step looks anew at what is still there, what is on its way and what
keeps the rest, and moves on as many as may be on their way at once; so it goes on after any crash, and undoing it is
setting the state back. A Press Pass is asked for its keepsake first, and ends in the transaction in which the new one
is made. A live one is stopped only when a slot elsewhere is held for the one that replaces it; if that is not let in,
the old one starts again where it was, and is left there for a while.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from farm import clock, doorbell, errors, keepsakes, placement, vault
from farm.lifecycle import living, moving
from farm.lifecycle.asking import new_instance, place
from farm.lifecycle.ending import days_left
from farm.models import Host, HostEvent, Instance, Watch
from farm.states import Goal, Kind, Status

WHO = "drain"
WHY = "moved to another machine"
WHY_SUCCESSOR = "takes the place of one that is moved"
FACTS_FRESH = timedelta(seconds=60)
"""So young a heartbeat tells what is open now: it is written at a resolution, and surveys come every few seconds."""
LEFT_ALONE = timedelta(hours=1)
"""One whose successor was not let in is not stopped again before that."""
UP = frozenset({Status.REQUESTED, Status.CLONING, Status.INJECTING, Status.STARTING})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Left:
    """What is still on a draining host, and what keeps it there; "" if it is moved when its turn comes."""

    row: Instance
    why: str


# --- begun, undone ----------------------------------------------------------------------------------------------------


@transaction.atomic
def drain(host_id: int, *, forced: bool, who: str) -> None:
    """Give the host no new work and move on what it has. Twice is once; ``forced`` may be changed meanwhile.

    ``forced``: also live terminals with open positions, or of which that is not known. Raise :class:`errors.Refused`
    for a host that is lost or retired.
    """
    host = Host.objects.get(pk=host_id)
    if host.state == Host.State.RETIRED or host.lost_at is not None:
        raise errors.Refused(f"{host.name} is {'lost' if host.lost_at else 'retired'}: there is nothing to move.")
    wanted = Host.objects.filter(pk=host_id, lost_at__isnull=True).exclude(state=Host.State.RETIRED)
    changed = wanted.exclude(state=Host.State.DRAINING, drain_forced=forced)
    if changed.update(state=Host.State.DRAINING, drain_forced=forced):
        why = "also what has positions open" if forced else ""
        HostEvent.objects.create(host=host, what="draining", why=why, who=who)
        doorbell.ring_on_commit(doorbell.SWEEP)


@transaction.atomic
def undo_drain(host_id: int, *, who: str) -> None:
    """Use the host again, with what is left on it. What is on its way elsewhere goes on."""
    draining = Host.objects.filter(pk=host_id, state=Host.State.DRAINING)
    if not draining.update(state=Host.State.ONLINE, drain_forced=False):
        raise errors.Refused("That host is not being drained.")
    HostEvent.objects.create(host_id=host_id, what="in use again", who=who)
    doorbell.ring_on_commit(doorbell.ADMIT)


# --- what keeps it ----------------------------------------------------------------------------------------------------


def blockers(host: Host) -> list[Left]:
    """What would not be moved now if its turn came, each with the reason."""
    none = _why_none(host)
    return [Left(left.row, left.why or none) for left in left_on(host) if left.why or none]


def _why_none(host: Host) -> str:
    """Why nothing at all is moved off the host just now; "" if something is."""
    if host.surveyed_at is None or host.surveyed_at < placement.heard_since():
        return "its machine is silent"
    if _is_braked():
        return "the brake is on"
    return "" if placement.candidates() else "no other host has a slot"


def _is_braked() -> bool:
    return Watch.objects.exclude(brake_why="").exists()


def left_on(host: Host) -> list[Left]:
    """All that is on the host, in the order in which it is moved."""
    rows = list(
        Instance.objects.filter(host=host)
        .exclude(status__in=[Status.DESTROYED, Status.LOST])
        .select_related("account")
        .order_by("pk")
    )
    rows.sort(key=lambda row: (row.kind == Kind.LIVE, row.pk))
    around = _around(rows)
    return [Left(row, _why_not(row, host, around)) for row in rows]


@dataclass(frozen=True)
class Around:
    """What is known beside the rows themselves."""

    coming: set[int]
    """Those that are about to be replaced; by a hold that is not paid for yet, too."""
    refused: set[int]
    """Those that not long ago were not, because the new one was not let in."""
    demos: bool
    """Whether a demo account is free."""


def _around(rows: list[Instance]) -> Around:
    newer = Instance.objects.filter(replaces__in=[row.pk for row in rows])
    coming = newer.filter(goal=Goal.RUNNING)
    since = clock.now() - LEFT_ALONE
    refused = newer.filter(kind=Kind.LIVE, goal=Goal.DESTROYED, proven_at__isnull=True, status_since__gte=since)
    return Around(
        coming=set(coming.values_list("replaces_id", flat=True)),
        refused=set(refused.values_list("replaces_id", flat=True)),
        demos=vault.free_demos().exists(),
    )


def _why_not(row: Instance, host: Host, around: Around) -> str:
    if row.goal == Goal.DESTROYED:
        return "before staff: it could not be destroyed" if _stands_before_staff(row) else "on its way out"
    if row.pk in around.coming:
        return "its successor is on its way"
    if row.status != Status.RUNNING or row.goal != Goal.RUNNING:
        return _why_not_yet(row)
    if row.kind == Kind.PRESS_PASS:
        return "" if around.demos or not _needs_demo(row, host) else "no demo account is free for it"
    if row.account is None:
        return "live without an account: its customer or staff must end it"
    if row.pk in around.refused:
        return f"its successor was not let in; tried again after {LEFT_ALONE.seconds // 60} minutes"
    return "" if host.drain_forced else _open(row)


def _why_not_yet(row: Instance) -> str:
    if row.status == Status.WAITING:
        return f"its slot is held until {row.held_until:%H:%M} UTC" if row.held_until else "waits for another to stop"
    if row.status == Status.FAILED:
        return "before staff: it failed" if _stands_before_staff(row) else "failed, and is tried again"
    if row.status in UP:
        return "just coming up"
    return "stopped, until its customer has paid or its days are over" if row.kind == Kind.LIVE else "just stopped"


def _needs_demo(row: Instance, host: Host) -> bool:
    """Whether it would lose something, or get no slot at all, without a free demo account."""
    return settings.DEMO_ACCOUNTS == "wait" or (row.account_id is not None and not host.drain_forced)


def _stands_before_staff(row: Instance) -> bool:
    return row.status == Status.FAILED and row.next_at is None


def _open(row: Instance) -> str:
    """What of a live one is open; not known counts as open."""
    positions, pending = row.facts.get("positions"), row.facts.get("orders")
    fresh = row.heartbeat_at is not None and clock.now() - row.heartbeat_at <= FACTS_FRESH
    if not fresh or not isinstance(positions, int) or not isinstance(pending, int):
        return "whether it has anything open is not known"
    return f"open: {positions} positions, {pending} orders" if positions or pending else ""


# --- moved ------------------------------------------------------------------------------------------------------------


def drain_on() -> int:
    """Move on what may leave the hosts that are drained; return how many were moved, or asked for their keepsake."""
    draining = Host.objects.filter(
        state=Host.State.DRAINING, lost_at__isnull=True, surveyed_at__gte=placement.heard_since()
    )
    hosts = list(draining.order_by("pk"))
    # While the brake is on nobody can say what runs where, and after a restore no live one is let up.
    if not hosts or _is_braked():
        return 0
    moved = 0
    for host in hosts:
        try:
            moved += _step(host)
        except Exception:
            log.exception("a host could not be drained", extra={"host": host.name})
    return moved


def _step(host: Host) -> int:
    left = left_on(host)
    if not left and not host.taken:
        _note_drained(host)
    free = [one.row for one in left if not one.why]
    if not free or not placement.candidates():
        return 0
    number = max(0, settings.DRAIN_AT_ONCE - _on_their_way(host))
    return sum(_moved(row, host) for row in free[:number])


def _moved(row: Instance, host: Host) -> bool:
    try:
        _move(row, host)
    except (errors.Refused, errors.ClaimLost) as error:
        log.info("not moved", extra={"instance": row.pk, "why": str(error)})
        return False
    return True


def _on_their_way(host: Host) -> int:
    """How many that replace one of this host's are not up yet. By the step that is due: it reads no row at rest."""
    due = Q(next_at__isnull=False) | Q(status=Status.WAITING, held_until__isnull=True, host__isnull=False)
    return Instance.objects.filter(due, replaces__host=host, goal=Goal.RUNNING).exclude(status=Status.RUNNING).count()


def _move(row: Instance, host: Host) -> None:
    if row.kind == Kind.LIVE:
        _move_live(row, host)
    elif _has_its_keepsake(row):
        _move_pass(row, host)


def _has_its_keepsake(row: Instance) -> bool:
    """Whether the keepsake was brought, or waited for long enough. Asks for it first."""
    if settings.KEEPSAKE_WAIT_SECONDS <= 0:
        return True
    asked_at = keepsakes.asked_at(row.pk)
    if asked_at is None:
        doorbell.ring(doorbell.KEEP, row.pk)
        return False
    waited = clock.now() - asked_at >= timedelta(seconds=settings.KEEPSAKE_WAIT_SECONDS)
    return waited or keepsakes.is_settled(row.pk, since=asked_at)


@transaction.atomic
def _move_pass(old: Instance, host: Host) -> None:
    row = _still_free(old, host)
    living.end(row.pk, why=WHY, who=WHO)
    new = new_instance(row.customer_id, Kind.PRESS_PASS, who=WHO, why=WHY_SUCCESSOR, replaces=row, **days_left(row))
    if not place(new, who=WHO):
        raise errors.NoFreePort("No other host has a slot.")
    if new.account_id is None and _needs_demo(row, host):
        raise errors.NoFreeAccount


@transaction.atomic
def _move_live(old: Instance, host: Host) -> None:
    row = _still_free(old, host)
    if row.account is None:
        raise errors.IllegalMove(f"Live instance {row.pk} has no account.")
    new = living.go_on(customer_id=row.customer_id, account=row.account, replaces=row, who=WHO, why=WHY)
    if new.host_id is None:
        raise errors.NoFreePort("No other host has a slot.")


def _still_free(old: Instance, host: Host) -> Instance:
    """The row, locked, if it still is what it was seen as."""
    row = moving.locked_with_successors(old.pk)
    if _why_not(row, host, _around([row])):
        raise errors.ClaimLost(f"Instance {row.pk} is not to be moved any more.")
    return row


def _note_drained(host: Host) -> None:
    """Once for each time that it is drained."""
    last = HostEvent.objects.filter(host=host, what__in=["draining", "drained"]).order_by("-at", "-pk")
    if last.values_list("what", flat=True).first() != "drained":
        HostEvent.objects.create(host=host, what="drained", who=WHO)
