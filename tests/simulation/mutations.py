"""Faults planted one at a time into what keeps an account from running twice: into the real functions where the rule
is theirs, and into the simulation's portal or host where the rule is about what those do around them.

A mutation that no schedule notices would mean that nothing here watches over its rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from unittest.mock import patch

from farm import fencing
from farm.agent import lease
from farm.agent.lease import Lease
from farm.states import Status
from tests.simulation import hosts, plan
from tests.simulation.hosts import Host
from tests.simulation.keepers import Keeper


class Both:
    """Two patches as one."""

    def __init__(self, *patches):
        self.patches = patches

    def __enter__(self):
        for each in self.patches:
            each.__enter__()

    def __exit__(self, *why):
        for each in reversed(self.patches):
            each.__exit__(*why)


Planted = Callable[[], AbstractContextManager]
MUTATIONS: dict[str, Planted] = {}


def planted(name: str) -> Callable[[Callable[[], AbstractContextManager]], Planted]:
    def keep(plant: Planted) -> Planted:
        MUTATIONS[name] = plant
        return plant

    return keep


# --- farm.fencing -----------------------------------------------------------------------------------------------------


@planted("the fence leaves out the stop")
def _no_stop():
    return patch.object(fencing, "fence_ends", lambda until, *, stop_seconds, drift: until + timedelta(seconds=drift))


@planted("the fence leaves out the drift")
def _no_drift():
    return patch.object(
        fencing, "fence_ends", lambda until, *, stop_seconds, drift: until + timedelta(seconds=stop_seconds)
    )


@planted("the fence subtracts the drift")
def _minus_drift():
    return patch.object(
        fencing, "fence_ends", lambda until, *, stop_seconds, drift: until + timedelta(seconds=stop_seconds - drift)
    )


@planted("the fence leaves out the lease")
def _no_lease():
    """What is committed is the moment of granting."""

    def fence(self, host, ends, request, now):
        _fence(self, host, now, request, now)

    _fence = Keeper._fence
    return patch.object(Keeper, "_fence", fence)


@planted("a held lease is fenced as a usual one")
def _held_forgotten():
    def fence(self, host, ends, request, now):
        usual = now + timedelta(seconds=self.portal.plan.rules.lease)
        _fence(self, host, min(ends, usual), request, now)

    _fence = Keeper._fence
    return patch.object(Keeper, "_fence", fence)


@planted("a shorter lease shortens the fence")
def _shortened():
    return patch.object(fencing, "extended", lambda fenced, stop, *, until, stop_seconds: (until, stop_seconds))


@planted("the comparison with the fence is reversed")
def _reversed():
    def is_lost(host, now, rules):
        if host.lost or not host.fenced or host.fenced_until is None or fencing.dark_since(host, now, rules) is None:
            return False
        return now <= fencing.fence_ends(host.fenced_until, stop_seconds=host.stop_seconds, drift=rules.drift)

    return patch.object(fencing, "is_lost", is_lost)


@planted("a static host is given up like a fenced one")
def _static():
    def is_lost(host, now, rules):
        silent = fencing.dark_since(host, now, rules)
        until = host.fenced_until or silent
        if host.lost or silent is None:
            return False
        return now >= fencing.fence_ends(until, stop_seconds=host.stop_seconds, drift=rules.drift)

    return patch.object(fencing, "is_lost", is_lost)


@planted("an instance with a seat may leave before the fence")
def _seat():
    real = fencing.may_move
    return patch.object(fencing, "may_move", lambda status, **facts: real(status, **facts | {"has_seat": False}))


@planted("one that starts counts as one that never ran")
def _starting():
    real = fencing.may_move

    def may_move(status, **facts):
        return real(status, **facts | {"ran": facts["ran"] and status is not Status.STARTING})

    return Both(
        patch.object(fencing, "NEVER_RAN", fencing.NEVER_RAN | {Status.STARTING}),
        patch.object(fencing, "may_move", may_move),
    )


@planted("one that is tried again counts as one that never ran")
def _retried():
    real = fencing.may_move
    return patch.object(fencing, "may_move", lambda status, **facts: real(status, **facts | {"ran": False}))


@planted("clocks are believed to drift half as much")
def _half_rate():
    return patch.object(fencing, "CLOCK_RATE", fencing.CLOCK_RATE / 2)


@planted("only one clock is believed to drift")
def _one_drifts():
    return patch.object(
        fencing, "drift_covers",
        lambda drift, *, longest_lease, longest_stop: drift > fencing.CLOCK_RATE * (longest_lease + longest_stop),
    )  # fmt: skip


@planted("the drift covers a usual lease and not a held one")
def _held_drift():
    real = plan.least_drift
    return patch.object(plan, "least_drift", lambda longest, stop: real(min(longest, 120.0), stop))


@planted("a clock that was set forward leaves the fences where they are")
def _step():
    return patch.object(fencing, "fence_after_step", lambda until, **how: until)


@planted("a clock that was set forward moves only the fences of those that were granted nothing since")
def _granted_since():
    real, extended = fencing.fence_after_step, fencing.extended
    granted = {}

    def remember(fenced_until, stop, *, until, stop_seconds):
        made = extended(fenced_until, stop, until=until, stop_seconds=stop_seconds)
        granted[made[0]] = until
        return made

    def after(fenced_until, *, now, step, longest_lease):
        since = granted.get(fenced_until, fenced_until) > now
        return fenced_until if since else real(fenced_until, now=now, step=step, longest_lease=longest_lease)

    return Both(patch.object(fencing, "extended", remember), patch.object(fencing, "fence_after_step", after))


@planted("a clock that was set is not noticed")
def _unnoticed():
    return patch.object(fencing, "clock_step", lambda **how: 0.0)


# --- farm.agent.lease -------------------------------------------------------------------------------------------------


def _left(age):
    def left(self, now):
        if now.boot_id != self.sent.boot_id:
            return -math.inf
        return self.seconds - age(now.since_boot - self.sent.since_boot, now.wall - self.sent.wall)

    return patch.object(Lease, "left", left)


@planted("the lease is counted by the smaller clock")
def _smaller():
    return _left(min)


@planted("the lease is counted by the wall clock alone")
def _wall():
    return _left(lambda since_boot, wall: wall)


@planted("the lease is counted by the clock since boot alone")
def _since_boot():
    return _left(lambda since_boot, wall: since_boot)


@planted("a reboot does not end the lease")
def _boot():
    def left(self, now):
        return self.seconds - max(now.since_boot - self.sent.since_boot, now.wall - self.sent.wall)

    return patch.object(Lease, "left", left)


@planted("the lease is counted from when the grant came")
def _arrival():
    def lease_of(self, grant):
        known = grant.nonce in self.nonces
        return Lease(nonce=grant.nonce, seconds=grant.seconds, sent=self.moment()) if known else None

    return patch.object(Host, "_lease_of", lease_of)


@planted("a grant counts that another life of the agent asked for")
def _any_nonce():
    def lease_of(self, grant):
        sent = self.nonces.get(grant.nonce) or self.moment()
        return Lease(nonce=grant.nonce, seconds=grant.seconds, sent=sent)

    return patch.object(Host, "_lease_of", lease_of)


@planted("a lease that is over still counts as fresh for a while")
def _lenient():
    return patch.object(Lease, "is_fresh", lambda self, now: self.left(now) > -60)


@planted("the host says that it needs no time to stop")
def _stop_zero():
    return patch.object(hosts, "longest_stop", lambda grace, kill: 0.0)


@planted("the host leaves out the time until a dead watchdog is noticed")
def _unnoticed_death():
    return patch.object(hosts, "longest_stop", lambda g, k: lease.longest_stop(g, k) - lease.SILENT_SECONDS)


@planted("the host leaves out the grace")
def _no_grace():
    return patch.object(hosts, "longest_stop", lambda grace, kill: lease.longest_stop(0, kill))


@planted("the host leaves out the kill")
def _no_kill():
    return patch.object(hosts, "longest_stop", lambda grace, kill: lease.longest_stop(grace, 0))
