"""The watch over the hosts: who fell silent, whether we may have been blind ourselves, and what follows from it.

One look every few seconds, by one at a time: whoever holds the one row of ``Watch``. With all hosts well it costs a few
statements, always as many, and reads no instance. What follows from what was seen is farm.fencing's; here it is read,
noted and acted upon. Deciding is one short transaction; acting comes after it, and only while the brake is off.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet

from farm import clock, doorbell, errors, fencing, leases
from farm.lifecycle import failing_over
from farm.models import Host, HostEvent, Orphan, Seat, Watch

WHO = "watch"
LATE_SECONDS = 5.0
"""On top of three looks that did not come: so long may a busy machine keep us waiting."""
WHY_FENCED_OFF = "silent, and its fence has passed"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    now: datetime
    """By the earlier of our clock and the database's."""
    silent: Sequence[Host]
    """Those that are not given up."""
    braked: bool


def watch_hosts() -> None:
    """Look at all hosts once, and fail over what may be. At most one at a time does, the others leave it to that."""
    answers = doorbell.answers()
    Watch.objects.get_or_create(pk=1)
    look = _look(broker_answers=answers)
    if look is None:
        return
    if not look.braked:
        for host in look.silent:
            _act(host, look.now)
        for host in Host.objects.filter(lost_at__isnull=False).exclude(state=Host.State.RETIRED).order_by("pk"):
            failing_over.rescue(host, who=WHO)
    failing_over.take_back()


def _act(host: Host, now: datetime) -> None:
    """One host that cannot be dealt with keeps no other waiting."""
    try:
        if not fencing.is_lost(leases.facts(host), now, leases.rules()):
            failing_over.move_off(host, now=now, who=WHO)
        elif failing_over.give_up(host, why=WHY_FENCED_OFF, who=WHO):
            failing_over.rescue(host, who=WHO)
    except Exception:
        log.exception("a silent host could not be dealt with", extra={"host": host.name})


# --- one look ---------------------------------------------------------------------------------------------------------


@transaction.atomic
def _look(*, broker_answers: bool) -> Look | None:
    """What is seen now, with the brake as it is after that; None if somebody else looks, or just did."""
    watch = _locked().first()
    ours, database = leases.clocks()
    if watch is None or _is_early(watch, ours):
        return None
    rules, now = leases.rules(), min(ours, database)
    _mind_a_set_clock(watch, ours)
    hosts = list(_counting())
    trouble = _trouble(watch, ours, database, broker_answers=broker_answers)
    was = brake_of(watch)
    brake = fencing.braked(was, _outlook(hosts, now, trouble), rules)
    _store(brake, looked_at=ours, looked_boot=clock.boot(), looked_since_boot=clock.since_boot())
    _note_brake(was, brake, who=WHO)
    silent = [host for host in hosts if fencing.dark_since(leases.facts(host), now, rules) is not None]
    _note_silent(silent, now)
    return Look(now, silent, brake.is_on)


def _locked() -> QuerySet[Watch]:
    return Watch.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=1)


def _is_early(watch: Watch, now: datetime) -> bool:
    """Looks that piled up in a queue are one."""
    since = _since(watch, now)
    return since is not None and 0 <= since < settings.WATCH_SECONDS / 2


def _since(watch: Watch, now: datetime) -> float | None:
    return None if watch.looked_at is None else (now - watch.looked_at).total_seconds()


def _counting() -> QuerySet[Host]:
    return Host.objects.filter(lost_at__isnull=True).exclude(state=Host.State.RETIRED).order_by("pk")


def _outlook(hosts: Sequence[Host], now: datetime, trouble: str) -> fencing.Outlook:
    return fencing.Outlook(now=now, hosts=[leases.facts(host) for host in hosts], trouble=trouble)


def _trouble(watch: Watch, ours: datetime, database: datetime, *, broker_answers: bool) -> str:
    """Why the silence that is seen may be our own; "" if nothing speaks for that."""
    since, apart = _since(watch, ours), (ours - database).total_seconds()
    if since is None:
        return "the portal has just begun to watch"
    step = _step(watch, ours)
    if step or since < 0:
        return f"the portal's clock was set by {step or since:+.0f} s"
    if since > 3 * settings.WATCH_SECONDS + LATE_SECONDS:
        return f"the portal was not watching for {since:.0f} s"
    if abs(apart) > fencing.CLOCK_STEP:
        return f"the portal's clock and the database's are {abs(apart):.0f} s apart"
    return "" if broker_answers else "the message broker does not answer"


def _step(watch: Watch, ours: datetime) -> float:
    """By how much our clock was set since the last look; 0.0 where another boot, or another machine, took that."""
    since = _since(watch, ours)
    if since is None or watch.looked_boot != clock.boot():
        return 0.0
    return fencing.clock_step(wall=since, since_boot=clock.since_boot() - watch.looked_since_boot)


def _mind_a_set_clock(watch: Watch, ours: datetime) -> None:
    """A clock set forward would make leases look over that still run: their fences are moved along with it."""
    step = _step(watch, ours)
    if step <= 0:
        return
    log.error("the portal's clock was set forward", extra={"seconds": round(step)})
    for host in _counting().filter(fenced_until__isnull=False):
        if host.fenced_until is None:
            continue
        until = fencing.fence_after_step(host.fenced_until, now=ours, step=step, longest_lease=leases.longest_lease())
        Host.objects.filter(pk=host.pk, fenced_until=host.fenced_until).update(fenced_until=until)


def _note_silent(silent: Sequence[Host], now: datetime) -> None:
    """One line in a host's journal for each silence. That it speaks again is noted where its survey is taken in."""
    if not silent:
        return
    this_one = HostEvent.objects.filter(host__in=[host.pk for host in silent], what="silent")
    known = set(this_one.filter(at__gte=F("host__surveyed_at")).values_list("host_id", flat=True))
    new = [host for host in silent if host.pk not in known]
    events = [HostEvent(host=host, at=now, what="silent", why=_heard(host), who=WHO) for host in new]
    HostEvent.objects.bulk_create(events)
    for host in new:
        log.warning("host silent", extra={"host": host.name})


def _heard(host: Host) -> str:
    return f"last heard at {host.surveyed_at:%Y-%m-%d %H:%M:%S} UTC"


def note_back(host: Host) -> None:
    """It speaks again: noted if its silence was."""
    events = HostEvent.objects.filter(host=host, what__in=["silent", "back"]).order_by("-at", "-pk")
    if events.values_list("what", flat=True).first() == "silent":
        HostEvent.objects.create(host=host, what="back", why="it speaks again", who=f"host:{host.name}")


# --- the brake --------------------------------------------------------------------------------------------------------


def brake_of(watch: Watch) -> fencing.Brake:
    return fencing.Brake(
        why=watch.brake_why,
        since=watch.brake_since,
        hosts=frozenset(watch.brake_hosts),
        accepted=frozenset(watch.brake_accepted),
        good_since=watch.brake_good_since,
        by_hand=watch.brake_by_hand,
    )


def _store(brake: fencing.Brake, **looked: object) -> None:
    Watch.objects.filter(pk=1).update(
        brake_why=brake.why[:200],
        brake_since=brake.since,
        brake_hosts=sorted(brake.hosts),
        brake_accepted=sorted(brake.accepted),
        brake_good_since=brake.good_since,
        brake_by_hand=brake.by_hand,
        **looked,
    )


def _note_brake(was: fencing.Brake, brake: fencing.Brake, *, who: str) -> None:
    """Its reason may become another while it is on; what is noted is that it was pulled, and that it was let go."""
    if was.is_on == brake.is_on:
        return
    what, why = ("brake on", brake.why) if brake.is_on else ("brake off", was.why)
    HostEvent.objects.create(host=None, what=what, why=why[:200], who=who)
    log.error(what, extra={"why": why, "who": who})


@transaction.atomic
def pull_brake(why: str, *, who: str) -> None:
    """Nothing is failed over until a person lets go."""
    watch = _own()
    was = brake_of(watch)
    brake = fencing.pulled(was, why or "pulled by hand", now=clock.now())
    _store(brake)
    _note_brake(was, brake, who=who)


@transaction.atomic
def release_brake(*, who: str) -> None:
    """Let go; hosts that are silent now are taken for what they are. Raise :class:`errors.Refused` if it is not on.

    After a restore this is also the word that what runs on the hosts was looked at: refused while something that no
    row accounts for may run an account of a row's, which would start with its host's next lease.
    """
    watch = _own()
    was = brake_of(watch)
    if not was.is_on:
        raise errors.Refused("The brake is not on.")
    if watch.restored_at is not None and (doubled := _doubled()):
        raise errors.Refused(f"Orphans may run accounts of ours: {', '.join(map(str, doubled))}. Destroy them first.")
    now = leases.earlier_now()
    _store(fencing.released(_outlook(list(_counting()), now, ""), leases.rules()), restored_at=None)
    _note_brake(was, fencing.Brake(), who=who)


def _doubled() -> list[Orphan]:
    """The orphans that may run an account which an instance of ours has as well."""
    orphans = Orphan.objects.filter(gone_at__isnull=True, login__isnull=False).select_related("host").order_by("pk")
    seats = Seat.objects.filter(instance__isnull=False, login__in=orphans.values("login"))
    taken = set(seats.values_list("server_key", "login"))
    return [one for one in orphans if (one.server_key, one.login) in taken and not one.is_fenced_off]


def _own() -> Watch:
    Watch.objects.get_or_create(pk=1)
    return Watch.objects.select_for_update(no_key=True).get(pk=1)
