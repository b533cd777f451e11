"""Going live: a slot is held, the seat is taken, the broker's yes is proven, and only then does the old clone go.

hold       before the payment: host, slot and port are kept for the customer
go_on      paid for already: hold and activate in one, or stand first in line
activate   after it: the account's seat is taken and the clone is made. If the old instance runs the same account,
           that one is stopped first, and the seat moves when its host says that it is gone
judge      journal and heartbeat prove it, or refuse it. Proven: the old one is destroyed. Refused: the new one is,
           and an old one that was stopped for it gets its seat back and is started again
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction

from farm import clock, errors, placement, ports, states, vault
from farm.agent.protocol import Observation
from farm.lifecycle import keeping, moving
from farm.lifecycle.asking import new_instance
from farm.lifecycle.settling import settle
from farm.models import BrokerAccount, Host, Instance
from farm.states import Connection, Goal, Kind, Refusal, Status, Verdict

BEAT_FRESH = timedelta(seconds=30)
REMEMBERED = frozenset({Refusal.CREDENTIALS, Refusal.INVESTOR, Refusal.TRADING_DISABLED})
"""Refusals that are about the three values themselves; the others may pass by themselves."""
WHY_MAKES_WAY = "makes way for its successor"
RUNS_NO_MORE = frozenset({Status.DESTROYED, Status.STOPPED, Status.LOST})
"""Its host said so; or, of a lost one, it never ran, or its host was given up, and that only after the fence."""


@transaction.atomic
def hold(
    *, customer_id: int, account: BrokerAccount, replaces: Instance | None, until: datetime | None, who: str
) -> Instance:
    """Keep a slot for a live terminal until ``until``; None means it is paid for already.

    Raise :class:`errors.NoFreePort` if there is none: say so instead of taking money. A customer has one hold at a
    time (``IntegrityError``).
    """
    old = moving.locked(replaces.pk) if replaces is not None else None
    row = new_instance(customer_id, Kind.LIVE, who=who, account=account, replaces=old, held_until=until)
    if not _settle(row):
        raise errors.NoFreePort("No slot is free at the moment.")
    return row


def _settle(row: Instance) -> bool:
    return settle(row, partial(_put_on, row))


def _put_on(row: Instance, host: Host) -> None:
    Instance.objects.filter(pk=row.pk).update(host=host)
    row.host = host


@transaction.atomic
def release_hold(instance_id: int, *, why: str, who: str) -> bool:
    """Give back a hold that was not paid for, and forget its credentials; False if it is no hold any more."""
    row = moving.locked(instance_id)
    if row.kind != Kind.LIVE or row.status != Status.WAITING or row.held_until is None:
        return False
    _leave(row, why=why, who=who)
    return True


def hold_longer(instance_id: int, *, until: datetime) -> bool:
    """Keep the slot until then; False if it is no hold any more."""
    held = Instance.objects.filter(pk=instance_id, status=Status.WAITING, held_until__isnull=False)
    return held.update(held_until=until) == 1


@transaction.atomic
def activate(instance_id: int, *, who: str) -> Instance:
    """The hold is paid for: go on with it. Paid twice is activated once; a hold that is gone raises ``Refused``."""
    row = moving.locked(instance_id)
    if row.status == Status.DESTROYED and row.generation == 0 and not row.refusal:
        raise errors.Refused("The slot was given back before the payment came.")
    if row.status != Status.WAITING:
        return row
    if row.held_until is not None:
        Instance.objects.filter(pk=row.pk).update(held_until=None)
        row.held_until = None
    if row.host is None or not placement.is_fresh(row.host):
        settle_elsewhere(row)
    _begin(row, who=who)
    return row


@transaction.atomic
def go_on(
    *, customer_id: int, account: BrokerAccount, replaces: Instance | None, who: str, why: str = WHY_MAKES_WAY
) -> Instance:
    """Make a live terminal that is paid for already; where no slot is free, it stands first in line.

    ``why`` the one is stopped that it replaces, if that runs the same account.
    """
    old = moving.locked(replaces.pk) if replaces is not None else None
    row = new_instance(customer_id, Kind.LIVE, who=who, account=account, replaces=old)
    take_slot(row, who=who, why=why)
    return row


def take_slot(row: Instance, *, who: str, why: str = WHY_MAKES_WAY) -> None:
    """Give a paid row that has none a slot and go on with it, or the first place in line."""
    settle_elsewhere(row)
    _begin(row, who=who, why=why)


def _begin(row: Instance, *, who: str, why: str = WHY_MAKES_WAY) -> None:
    """Go on with a paid row that has a slot. One in line waits, and so what it replaces runs on."""
    if row.host is None:
        return
    old = row.replaces
    if old is None or not is_same_account(old, row) or old.status in RUNS_NO_MORE:
        proceed(row, who=who)
    elif old.status == Status.WAITING:
        _end(old, why=why, who=who)
    elif old.goal == Goal.RUNNING:
        _stop(old, why=why, who=who)


def settle_elsewhere(row: Instance) -> None:
    """Its host has gone quiet, or it has none: another one, if there is room; else it stands first in line."""
    held = row.host
    if held is not None:
        ports.release(row)
    if not _settle(row):
        Instance.objects.filter(pk=row.pk).update(host=None, first_in_line=True)
        row.host, row.first_in_line = None, True


def is_same_account(old: Instance, new: Instance) -> bool:
    if old.account is None or new.account is None or old.kind != Kind.LIVE:
        return False
    return (vault.server_key(old.account.server), old.account.login) == (
        vault.server_key(new.account.server),
        new.account.login,
    )


def proceed(row: Instance, *, who: str) -> None:
    """Take the seat for a paid row that waits for nothing else, and let its clone be made. ``row`` is locked."""
    if row.host is None or row.account is None or row.status != Status.WAITING:
        return
    old = row.replaces
    if old is not None and old.status == Status.STOPPED and is_same_account(old, row):
        vault.move_seat(old, row)
    if _seat_comes_free(row):
        return
    if vault.take_seat(row.account, row):
        moving.move(row, Status.REQUESTED, why=f"paid; a slot on {row.host.name} was held", who=who)
        keeping.ask_first(row)
        return
    refused = {"refusal": Refusal.SEAT_TAKEN, "connection": Connection.REFUSED}
    _leave(row, why="another terminal runs this account", who=who, **refused)


def give_slot(row: Instance, *, who: str) -> bool:
    """Serve a paid row in line, which is locked; False if the farm has no slot."""
    if not _settle(row):
        return False
    _begin(row, who=who)
    return True


def _seat_comes_free(row: Instance) -> bool:
    """Whether its seat is still with another one of the same customer that is on its way out: it waits for that."""
    if row.account is None:
        return False
    seat = vault.seat_of(row.account)
    holder = seat.instance if seat is not None else None
    if holder is None or holder.pk == row.pk:
        return False
    return holder.customer_id == row.customer_id and holder.goal == Goal.DESTROYED


def successors_go_on(old: Instance, *, who: str) -> None:
    """``old``'s host reported its process gone: who of the same customer waits for its seat goes on."""
    waiting = Instance.objects.filter(
        customer=old.customer_id,
        kind=Kind.LIVE,
        status=Status.WAITING,
        goal=Goal.RUNNING,
        held_until__isnull=True,
        host__isnull=False,
    )
    for pk in waiting.order_by("pk").values_list("pk", flat=True):
        _begin(moving.locked(pk), who=who)


# --- the way out ------------------------------------------------------------------------------------------------------


@transaction.atomic
def end(instance_id: int, *, why: str, who: str) -> None:
    """Destroy the instance, whatever it is doing. Already on its way out is success."""
    _end(moving.locked(instance_id), why=why, who=who)


def _end(row: Instance, *, why: str, who: str) -> None:
    if row.goal == Goal.DESTROYED:
        return
    if row.status == Status.WAITING:
        _leave(row, why=why, who=who)
    else:
        # Counted anew: what failed before was on the way to another goal.
        moving.move(row, Status.DESTROYING, why=why, who=who, goal=Goal.DESTROYED, attempts=0)


def _leave(row: Instance, *, why: str, who: str, **changes: Any) -> None:
    """A waiting row goes at once: no host holds anything of it but the slot that was kept for it."""
    made_way = row.host_id is not None and row.held_until is None
    moving.move(row, Status.DESTROYED, why=why, who=who, goal=Goal.DESTROYED, held_until=None, **changes)
    gone(row, who=who, made_way=made_way)


def gone(row: Instance, *, who: str, made_way: bool = True) -> None:
    """Nothing of ``row`` is left on a host: what was kept for it is given back, and whoever waits for that goes on.

    ``made_way``: what it replaces was, perhaps, stopped for it.
    """
    ports.release(row)
    vault.leave(row)
    successors_go_on(row, who=who)
    if made_way and not moving.was_lost(row):
        restart_old(row, who=who)
    vault.forget(row)


# --- the proof ------------------------------------------------------------------------------------------------------


def awaits_proof(row: Instance) -> bool:
    return (
        row.kind == Kind.LIVE and row.account_id is not None and row.proven_at is None and row.status == Status.STARTING
    )


@transaction.atomic
def judge(row: Instance, observed: Observation, changes: dict[str, Any], *, who: str) -> bool:
    """Decide a live terminal that is starting by what its host saw; False while that proves nothing yet.

    ``row`` and what it replaces are locked, so that both moves are made or none.
    """
    account = row.account
    if account is None:
        raise errors.IllegalMove(f"Live instance {row.pk} has no account.")
    beat_after = (clock.now() - BEAT_FRESH).timestamp() if settings.PROOF_NEEDS_HEARTBEAT else None
    verdict = states.verdict(observed, server=account.server, login=account.login, beat_after=beat_after)
    if verdict is Verdict.REFUSED:
        refuse(row, observed.refusal or Refusal.OTHER, observed.refusal_text, who=who)
    elif verdict is Verdict.PROVEN:
        now = clock.now()
        first = {} if row.first_running_at else {"first_running_at": now}
        moving.move(row, Status.RUNNING, why="the broker lets it trade", who=who, **changes, **first, proven_at=now)
        if row.replaces is not None:
            _end(row.replaces, why="replaced by its successor", who=who)
    return verdict is not Verdict.UNDECIDED


def refuse(row: Instance, refusal: Refusal, text: str, *, who: str) -> None:
    """The broker did not let a new live terminal in: it goes, and what it was to replace stays."""
    if row.account is not None and refusal in REMEMBERED:
        vault.remember_refusal(row.account, refusal)
    moving.move(
        row,
        Status.DESTROYING,
        why=f"not let in: {refusal.value}",
        who=who,
        goal=Goal.DESTROYED,
        attempts=0,
        refusal=refusal,
        refusal_text=text[:200],
        connection=Connection.REFUSED,
        connection_since=clock.now(),
    )


def heir_of(old: Instance) -> Instance | None:
    """The instance on its way that is to run the same account in place of ``old``; a hold that is not paid is none."""
    coming = old.replaced_by.filter(kind=Kind.LIVE, goal=Goal.RUNNING, proven_at__isnull=True, held_until__isnull=True)
    return next((row for row in coming.select_related("account").order_by("pk") if is_same_account(old, row)), None)


def restart_old(row: Instance, *, who: str) -> None:
    """``row`` is gone without having been proven: an old instance that was stopped for it runs again."""
    old = row.replaces
    if old is None or row.proven_at is not None or old.goal != Goal.STOPPED or heir_of(old) is not None:
        return
    if old.status != Status.STOPPED:
        Instance.objects.filter(pk=old.pk).update(goal=Goal.RUNNING)  # it still stops, and then starts again
    elif old.account is not None and vault.take_seat(old.account, old):
        moving.move(old, Status.STARTING, why="its successor was not let in", who=who, goal=Goal.RUNNING)


# --- stop and go on ---------------------------------------------------------------------------------------------------


@transaction.atomic
def stop(instance_id: int, *, why: str, who: str) -> None:
    """Stop a terminal and leave it stopped, its clone and seat kept. Stopped already is success."""
    _stop(moving.locked(instance_id), why=why, who=who)


def _stop(row: Instance, *, why: str, who: str) -> None:
    if row.goal == Goal.STOPPED:
        return
    if row.status == Status.WAITING and row.proven_at is not None:
        _park(row)
        return
    if row.status == Status.STOPPING:
        Instance.objects.filter(pk=row.pk).update(goal=Goal.STOPPED)
        return
    moving.move(row, Status.STOPPING, why=why, who=who, goal=Goal.STOPPED, attempts=0)


def _park(row: Instance) -> None:
    """One in line, or with a slot and waiting for another to stop, leaves that until it is resumed."""
    ports.release(row)
    Instance.objects.filter(pk=row.pk).update(host=None, first_in_line=False, goal=Goal.STOPPED)


@transaction.atomic
def resume(instance_id: int, *, why: str, who: str) -> None:
    """Start a terminal that was stopped. Running already is success."""
    row = moving.locked(instance_id)
    if row.goal == Goal.RUNNING:
        return
    if row.status == Status.WAITING and row.goal == Goal.STOPPED:
        # It was stopped when its machine was lost, or in line: nothing of it stands on any host.
        Instance.objects.filter(pk=row.pk).update(goal=Goal.RUNNING)
        row.goal = Goal.RUNNING
        take_slot(row, who=who)
        return
    if row.status != Status.STOPPED:
        raise errors.IllegalMove("Only a stopped terminal can be started again.")
    if row.account is not None and not vault.take_seat(row.account, row):
        raise errors.Refused("Another terminal runs this account.")
    moving.move(row, Status.STARTING, why=why, who=who, goal=Goal.RUNNING)


def expired_holds(limit: int) -> list[int]:
    """Holds whose time is over. Before one is released, ask the payment provider what became of it."""
    due = Instance.objects.filter(status=Status.WAITING, kind=Kind.LIVE, held_until__lte=clock.now())
    return list(due.order_by("held_until").values_list("pk", flat=True)[:limit])
