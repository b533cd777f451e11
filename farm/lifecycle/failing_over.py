"""What a lost host ran comes up on others, and what a silent one never got round to as well.

give_up    the host is lost. That is committed before anything else, and from then on it is granted no lease
rescue     its instances follow, each in a transaction of its own: whoever is killed in between, the next look goes on
move_off   before that, off a silent host: what never ran, and after a while what runs no broker account
fail_over  one instance: the row is lost, and another one takes its place
take_back  the host spoke again and has destroyed what it had: it may be given work
retire     it never will speak again
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from farm import clock, doorbell, errors, fencing, leases, placement, vault
from farm.lifecycle import living, moving
from farm.lifecycle.asking import new_instance, place
from farm.lifecycle.ending import days_left
from farm.models import Host, HostEvent, Instance, Orphan, Seat, Transition
from farm.states import HOLDS_SLOT, Goal, Kind, Status

WHY_LOST = "its machine was lost"
WHY_SILENT = "its machine fell silent before it ran anything that counts"
WHY_SUCCESSOR = "takes the place of one whose machine was lost"

AS_READ = ("surveyed_at", "fenced_until", "stop_seconds", "policy", "said_policy")
"""What the decision to give a host up rests on. If any of it is another by then, nothing is decided."""

log = logging.getLogger(__name__)


# --- the host ---------------------------------------------------------------------------------------------------------


def give_up(host: Host, *, why: str, who: str) -> bool:
    """Note that ``host``, as it was read, is lost; False if it was heard or granted a lease since.

    The caller has made sure that its fence had passed, or has somebody's word that the machine is off.
    """
    same = Host.objects.filter(pk=host.pk, lost_at__isnull=True, **{name: getattr(host, name) for name in AS_READ})
    with transaction.atomic():
        if same.exclude(state=Host.State.RETIRED).update(lost_at=clock.now(), lost_why=why[:200]) != 1:
            return False
        HostEvent.objects.create(host=host, what="lost", why=why[:200], who=who)
    log.error("host lost", extra={"host": host.name, "why": why})
    return True


def give_up_host(host_id: int, *, who: str) -> None:
    """Staff made sure that the machine is off: what it ran comes up elsewhere, brake or not. Twice is once.

    Raise :class:`errors.StillHeard` for one that speaks, and :class:`errors.FenceStands` for a fenced one whose lease
    may still run: there the fence is surer than anybody's word.
    """
    host = Host.objects.get(pk=host_id)
    if host.state == Host.State.RETIRED:
        raise errors.Refused(f"{host.name} is retired.")
    if host.lost_at is None:
        _require_dark(host)
        if not give_up(host, why="our staff made sure that the machine is off", who=who):
            raise errors.StillHeard(f"{host.name} was heard from just now.")
    rescue(host, who=who)


def _require_dark(host: Host) -> None:
    facts, rules, now = leases.facts(host), leases.rules(), leases.earlier_now()
    if host.surveyed_at is not None and fencing.dark_since(facts, now, rules) is None:
        raise errors.StillHeard(f"{host.name} was heard from {(now - host.surveyed_at).total_seconds():.0f} s ago.")
    if facts.fenced and facts.fenced_until is not None:
        ends = fencing.fence_ends(facts.fenced_until, stop_seconds=facts.stop_seconds, drift=rules.drift)
        if now < ends:
            raise errors.FenceStands(f"Live terminals may run on {host.name} until {ends:%Y-%m-%d %H:%M:%S} UTC.")


def rescue(host: Host, *, who: str) -> int:
    """Bring up elsewhere what a host that was given up has not been relieved of; return how many that were."""
    return _each(_left_on(host), partial(fail_over, why=WHY_LOST, who=who, may=_is_given_up))


def _left_on(host: Host) -> list[int]:
    """Live first, those with open positions first of all; unknown is before none."""
    rows = _movable(host).exclude(transitions__became=Status.LOST).only("pk", "kind", "facts")
    return [row.pk for row in sorted(rows, key=_urgency)]


def _movable(host: Host) -> QuerySet[Instance]:
    """All that it holds, but for slots that are held for somebody's yes: accepted or paid, they find another one."""
    held = Q(status=Status.WAITING, held_until__isnull=False)
    return Instance.objects.filter(~held, host=host).exclude(status__in=[Status.LOST, Status.DESTROYED])


def _urgency(row: Instance) -> tuple[bool, int, int]:
    positions = row.facts.get("positions")
    return row.kind != Kind.LIVE, 1 if positions is None else 0 if positions else 2, row.pk


def _is_given_up(row: Instance) -> bool:
    return row.host is not None and row.host.lost_at is not None


def _each(ids: Iterable[int], act: Callable[[int], Instance | None]) -> int:
    """Do it for each; one that cannot be done stops no other and is done by the next look."""
    done = 0
    for pk in ids:
        try:
            done += act(pk) is not None
        except errors.ClaimLost:
            continue
        except Exception:
            log.exception("an instance could not be failed over", extra={"instance": pk})
    return done


# --- before the fence -------------------------------------------------------------------------------------------------


def move_off(host: Host, *, now: datetime, who: str) -> int:
    """Bring up elsewhere what may leave a silent host that is not given up; return how many those were."""
    seat = Seat.objects.filter(instance=OuterRef("pk"))
    rows = _movable(host).filter(goal=Goal.RUNNING).annotate(has_seat=Exists(seat), ran=Exists(_runs(OuterRef("pk"))))
    ids = [row.pk for row in rows.order_by("pk") if _may_leave(row, host, row.has_seat, row.ran, now)]
    return _each(ids, partial(fail_over, why=WHY_SILENT, who=who, may=partial(_may_leave_now, now=now)))


def _runs(instance: int | OuterRef) -> QuerySet[Transition]:
    return Transition.objects.filter(instance=instance, became__in=[Status.INJECTING, Status.STARTING])


def _may_leave_now(row: Instance, *, now: datetime) -> bool:
    """The same once more of the locked row."""
    if row.host is None or row.goal != Goal.RUNNING:
        return False
    has_seat = Seat.objects.filter(instance=row).exists()
    return _may_leave(row, row.host, has_seat, _runs(row.pk).exists(), now)


def _may_leave(row: Instance, host: Host, has_seat: bool, ran: bool, now: datetime) -> bool:
    has_account = has_seat or row.account_id is not None
    answer = fencing.may_move(
        Status(row.status), ran=ran, has_seat=has_account, host=leases.facts(host), now=now, rules=leases.rules()
    )
    return answer is not fencing.Move.NOT_YET


# --- one instance -----------------------------------------------------------------------------------------------------


@transaction.atomic
def fail_over(instance_id: int, *, why: str, who: str, may: Callable[[Instance], bool]) -> Instance | None:
    """Make the instance lost; return what takes its place, if anything does.

    ``may`` is asked about the locked row: nothing of it may run an account any more, or ever again. The row keeps its
    slot on the host, and a Press Pass its demo account, until the host has destroyed it.
    """
    row = moving.locked_with_successors(instance_id)
    if row.status in {Status.LOST, Status.DESTROYED} or not may(row):
        return None
    if row.status == Status.WAITING:
        living.take_slot(row, who=who)
        return row
    goal = Goal(row.goal)
    # Due at once: when its host speaks again the sweep has it destroyed.
    moving.move(row, Status.LOST, why=why, who=who, goal=Goal.DESTROYED, attempts=0, next_at=clock.now())
    if row.kind == Kind.LIVE and row.account is not None:
        return _live_goes_on(row, goal, who=who)
    return None if goal is Goal.DESTROYED else _pass_goes_on(row, who=who)


def _live_goes_on(row: Instance, goal: Goal, *, who: str) -> Instance | None:
    heir = living.heir_of(row)
    if heir is not None:
        return _inherits(heir, row, goal, who=who)
    if goal is Goal.DESTROYED:
        vault.leave(row)
        living.successors_go_on(row, who=who)
        living.restart_old(row, who=who)
        return None
    # One that was stopped because its payment lapsed is not brought up, but can be resumed.
    paused = goal is Goal.STOPPED and not _made_way(row)
    new = new_instance(
        row.customer_id,
        Kind.LIVE,
        who=who,
        why=WHY_SUCCESSOR,
        account=row.account,
        # Once let in by its broker, it need not prove that again: a broker that is closed for the weekend must not
        # cost anybody their terminal. What was not yet proven goes on towards its proof in place of the same old one.
        replaces=row if row.proven_at else row.replaces,
        proven_at=row.proven_at,
        goal=Goal.STOPPED if paused else Goal.RUNNING,
    )
    vault.move_seat(row, new)
    _replace_instead(row, new)
    if not paused:
        living.take_slot(new, who=who)
    return new


def _inherits(heir: Instance, row: Instance, goal: Goal, *, who: str) -> Instance:
    """The one that was on its way to replace ``row``, on the same account, is its successor."""
    vault.move_seat(row, heir)
    if goal is not Goal.DESTROYED:
        Instance.objects.filter(pk=heir.pk).update(proven_at=row.proven_at)
    _replace_instead(row, heir)
    heir = moving.locked(heir.pk)
    if heir.host is not None and placement.is_fresh(heir.host):
        living.proceed(heir, who=who)
    elif heir.status == Status.WAITING:
        living.take_slot(heir, who=who)
    return heir


def _made_way(row: Instance) -> bool:
    """Whether it was stopped for one that is itself on its way out: it would have been started again."""
    coming = row.replaced_by.filter(kind=Kind.LIVE, goal=Goal.DESTROYED, proven_at__isnull=True)
    leaving = coming.exclude(status__in=[Status.DESTROYED, Status.LOST]).select_related("account")
    return any(living.is_same_account(row, one) for one in leaving)


def _pass_goes_on(row: Instance, *, who: str) -> Instance:
    """Another one with what is left of its days. Its demo account stays behind: a demo stops for no lease."""
    new = new_instance(
        row.customer_id,
        Kind(row.kind),
        who=who,
        why=WHY_SUCCESSOR,
        replaces=row,
        **days_left(row),
    )
    _replace_instead(row, new)
    if not place(new, who=who, avoid=row.host_id):  # of a drill the host speaks all the while
        Instance.objects.filter(pk=new.pk).update(first_in_line=True)
    return new


def _replace_instead(row: Instance, new: Instance) -> None:
    """Whoever was on the way to replace the lost row, perhaps with another account, replaces the new one now."""
    row.replaced_by.filter(goal=Goal.RUNNING, proven_at__isnull=True).exclude(pk=new.pk).update(replaces=new)


# --- afterwards -------------------------------------------------------------------------------------------------------


def take_back() -> int:
    """Give work again to lost hosts that speak and have nothing left of what they had; return how many there were."""
    lost = _emptied(Host.objects.filter(lost_at__isnull=False, surveyed_at__gte=placement.heard_since()))
    back = [host for host in lost.exclude(state=Host.State.RETIRED) if _take_back(host)]
    return len(back)


@transaction.atomic
def _take_back(host: Host) -> bool:
    if any(orphan.needs_lease for orphan in Orphan.objects.filter(host=host, gone_at__isnull=True)):
        return False  # with a lease it would start that again, on an account that may run elsewhere by now
    if _emptied(Host.objects.filter(pk=host.pk, lost_at=host.lost_at)).update(lost_at=None, lost_why="") != 1:
        return False
    HostEvent.objects.create(host=host, what="back", why="it has destroyed what it had", who="watch")
    doorbell.ring_on_commit(doorbell.ADMIT)
    return True


def _emptied(hosts: QuerySet[Host]) -> QuerySet[Host]:
    return hosts.filter(~Exists(Instance.objects.filter(host=OuterRef("pk"), status__in=HOLDS_SLOT)))


@transaction.atomic
def retire(host_id: int, *, who: str) -> None:
    """Take the host out of the farm for good: one that holds nothing, or a lost one that will not speak again.

    Raise :class:`errors.Refused` for any other. What a lost one held ends here: there is nobody to destroy it.
    """
    host = Host.objects.get(pk=host_id)
    rows = Instance.objects.filter(host=host, status__in=HOLDS_SLOT).order_by("pk")
    mine = list(rows.select_for_update(no_key=True).values_list("pk", flat=True))
    if mine and (host.lost_at is None or (host.surveyed_at or host.lost_at) >= placement.heard_since()):
        raise errors.Refused(f"{host.name} holds {len(mine)} terminals: drain it first, or give it up.")
    if rows.exclude(transitions__became=Status.LOST).exists():
        raise errors.Refused(f"Not everything that {host.name} ran has come up elsewhere yet.")
    orphans = Orphan.objects.filter(host=host, gone_at__isnull=True).select_related("host")
    if any(host.lost_at is None or (orphan.needs_lease and not orphan.is_fenced_off) for orphan in orphans):
        raise errors.Refused(f"On {host.name} something may run that no row accounts for: see to its orphans first.")
    for pk in mine:
        _end_without_its_host(moving.locked(pk), who=who)
    orphans.update(gone_at=clock.now())
    # In one statement with the slots, so that whoever is just given one there has it, or finds the host gone.
    if not Host.objects.filter(pk=host.pk, taken=0).update(state=Host.State.RETIRED):
        raise errors.Refused(f"A slot of {host.name} is held for somebody: wait until it is taken or given back.")
    HostEvent.objects.create(host=host, what="retired", who=who)


def _end_without_its_host(row: Instance, *, who: str) -> None:
    if row.status == Status.FAILED:
        moving.move(row, Status.LOST, why="its machine will not come back", who=who)
    moving.move(row, Status.DESTROYED, why="its machine will not come back", who=who, goal=Goal.DESTROYED)
    living.gone(row, who=who)
