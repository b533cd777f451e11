"""A failover is rehearsed on canaries: instances of nobody's, without an account, on a host that is well.

detect      waited out: from the host's last survey until it would count as silent, if that had been the last
fence       waited out: from then until the lease that it holds at that moment would surely be over
restore     measured: from then until the last canary runs elsewhere, through the same fail_over as in earnest

What is waited out is asked of the same farm.fencing as in earnest, each look as far apart as the watch's. It shows what
the settings and the lease in force come to, not that a watchdog stops anything: the canaries on the host run on until
they are destroyed like any that was lost (tests and `make chaos` show the watchdog). Nothing else there is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction

from farm import clock, errors, fencing, leases, placement, ports
from farm.lifecycle import living, moving
from farm.lifecycle.asking import new_instance
from farm.lifecycle.failing_over import fail_over
from farm.models import Drill, Host, Instance, Watch
from farm.states import Connection, Goal, Kind, Status

WHO = "drill"
WHY = "a drill: its machine is taken for lost"
CANARY_EMAIL = "canary@bitten.invalid"
"""Whose the canaries are. No mail ever goes there: `.invalid` is nobody's (RFC 6761), and presspass writes none."""
MOST = 5
UP_SECONDS = 180.0
"""So long canaries may take to run, before and after."""
POLL_SECONDS = 0.5
UNSEEN = timedelta(seconds=60)
"""With no look at the hosts for so long, nothing would be failed over in earnest."""
UNDER_WAY = "under way"

Pause = Callable[[float], None]

log = logging.getLogger(__name__)


def rehearse(name: str, *, instances: int, pause: Pause) -> Drill:
    """Rehearse the loss of the host ``name`` and clean up; what went wrong midway stands in the drill's ``trouble``.

    Takes minutes: as long as the host's lease lasts. ``pause`` waits for so many seconds. Must not be called within a
    transaction. Raise :class:`errors.Refused` where it would show nothing, or disturb.
    """
    host = _fit(name, instances)
    end_canaries()  # of a drill that was killed
    drill = Drill.objects.create(host=host, instances=instances, trouble=UNDER_WAY)
    try:
        canaries = [_canary(host) for _ in range(instances)]
        _wait_until_up(canaries, pause)
        _measure(drill, canaries, pause)
        drill.trouble = ""
    except errors.FarmError as error:
        drill.trouble = str(error)[:200]
    finally:
        if drill.trouble == UNDER_WAY:
            drill.trouble = "broken off"
        drill.save()
        end_canaries()
    log.info("drill", extra={"host": name, "trouble": drill.trouble})
    return drill


# --- whether it would show anything -----------------------------------------------------------------------------------


def _fit(name: str, instances: int) -> Host:
    host = Host.objects.filter(name=name).first()
    if host is None:
        raise errors.Refused(f"There is no host {name}.")
    if not 1 <= instances <= MOST:
        raise errors.Refused(f"A drill has 1 to {MOST} canaries.")
    why = _unfit(host) or _unfit_farm(host, instances)
    if why:
        raise errors.Refused(why)
    return host


def _unfit(host: Host) -> str:
    if host.lost_at is not None:
        return f"{host.name} is lost: that is no drill."
    if host.state != Host.State.ONLINE:
        return f"{host.name} is {host.state}."
    if not placement.is_fresh(host):
        return f"{host.name} is silent, or its master is not fit."
    if not leases.facts(host).fenced:
        return f"{host.name} is not fenced: without a lease there is nothing to wait for, and no failover by itself."
    if host.fenced_until is None or host.fenced_until <= clock.now():
        return f"{host.name} holds no lease: see whether its watchdog ticks and keep_leases runs."
    return ""


def _unfit_farm(host: Host, instances: int) -> str:
    watch = Watch.objects.filter(pk=1).first()
    if watch is None or watch.looked_at is None or clock.now() - watch.looked_at > UNSEEN:
        return "Nobody looks after the hosts: see that beat and the portal's worker run."
    if watch.brake_why:
        return f"The brake is on: {watch.brake_why}."
    if host.slots - host.taken < instances:
        return f"{host.name} has no {instances} free slots for canaries."
    if sum(one.slots - one.taken for one in placement.candidates(avoid=host.pk)) < instances:
        return f"No other hosts have {instances} free slots to come up on."
    longest = timedelta(seconds=2 * (settings.LEASE_SECONDS + UP_SECONDS) + 600)
    under_way = Drill.objects.filter(trouble=UNDER_WAY, began_at__gt=clock.now() - longest)
    return "Another drill is under way." if under_way.exists() else ""


# --- canaries ---------------------------------------------------------------------------------------------------------


@transaction.atomic
def _canary(host: Host) -> Instance:
    """One on this very host, started as a live one is: under its lease, by its watchdog."""
    users = get_user_model().objects
    owner, _ = users.get_or_create(email=CANARY_EMAIL, defaults={"password": "!", "is_active": False})
    row = new_instance(owner.pk, Kind.LIVE, who=WHO, why="a canary, for a drill")
    ports.reserve(host, row)
    moving.move(row, Status.REQUESTED, why=WHY, who=WHO, host=host, connection=Connection.NO_ACCOUNT)
    return row


def end_canaries() -> None:
    """Have all canaries destroyed, wherever they are; those of a host that counts as lost go when it is swept."""
    mine = Instance.objects.filter(customer__email=CANARY_EMAIL).exclude(goal=Goal.DESTROYED)
    for pk in mine.order_by("pk").values_list("pk", flat=True):
        try:
            living.end(pk, why="the drill is over", who=WHO)
        except errors.FarmError as error:
            log.warning("a canary stays", extra={"instance": pk, "error": str(error)})


def _wait_until_up(canaries: Sequence[Instance], pause: Pause) -> None:
    until = clock.now() + timedelta(seconds=UP_SECONDS)
    ids = [row.pk for row in canaries]
    while Instance.objects.filter(pk__in=ids).exclude(status=Status.RUNNING).exists():
        if clock.now() >= until:
            said = Instance.objects.filter(pk__in=ids).exclude(status=Status.RUNNING).first()
            what = f"{said.status} {said.reason}".strip() if said else "gone"
            raise errors.Refused(f"Not all canaries ran within {UP_SECONDS:g} s: one is {what}.")
        pause(POLL_SECONDS)


# --- the drill --------------------------------------------------------------------------------------------------------


def _measure(drill: Drill, canaries: Sequence[Instance], pause: Pause) -> None:
    """Act as if the survey and the lease that are in the row now were the last ones."""
    last = leases.facts(Host.objects.get(pk=drill.host_id))
    heard = last.surveyed_at or clock.now()
    silent = _once(lambda now: fencing.dark_since(last, now, leases.rules()) is not None, drill, pause)
    drill.detect_seconds = (silent - heard).total_seconds()
    lost = _once(lambda now: fencing.is_lost(last, now, leases.rules()), drill, pause)
    drill.fence_seconds = (lost - silent).total_seconds()
    began = clock.now()
    successors = [_failed_over(row) for row in canaries]
    _wait_until_up(successors, pause)
    drill.restore_seconds = (_last_ran(successors) - began).total_seconds()


def _once(so: Callable[[datetime], bool], drill: Drill, pause: Pause) -> datetime:
    """Wait until ``so``, looking as often as the watch does; the moment of that look."""
    while not so(now := leases.earlier_now()):
        _still_well(drill)
        pause(settings.WATCH_SECONDS)
    return now


def _still_well(drill: Drill) -> None:
    """A drill gives way to what is in earnest."""
    host = Host.objects.get(pk=drill.host_id)
    if host.lost_at is not None or host.state != Host.State.ONLINE:
        raise errors.Refused(f"{host.name} was given up or taken out of use meanwhile.")
    if Watch.objects.filter(pk=1).exclude(brake_why="").exists():
        raise errors.Refused("The brake went on meanwhile.")


def _failed_over(row: Instance) -> Instance:
    """As of a host that is lost. The canary still runs there; it has no account that could run twice."""
    successor = fail_over(row.pk, why=WHY, who=WHO, may=_is_canary)
    if successor is None:
        raise errors.Refused(f"Canary {row.pk} was not failed over.")
    return successor


def _is_canary(row: Instance) -> bool:
    return row.account_id is None and row.kind == Kind.LIVE and row.customer.get_username() == CANARY_EMAIL


def _last_ran(rows: Sequence[Instance]) -> datetime:
    ran = Instance.objects.filter(pk__in=[row.pk for row in rows]).values_list("first_running_at", flat=True)
    return max(at for at in ran if at is not None)
