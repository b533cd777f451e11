"""What a host does when it is ordered to: as farm/agent/verbs.py, each may be repeated and ends in the same place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from farm.agent.protocol import Outcome, Reason, Verb
from farm.states import Goal
from tests.simulation.messages import Order, Report
from tests.simulation.terminals import Clone

if TYPE_CHECKING:
    from tests.simulation.hosts import Host


class Refused(Exception):
    def __init__(self, reason: Reason, outcome: Outcome = Outcome.FAILED):
        super().__init__(reason)
        self.reason, self.outcome = reason, outcome


def _check(clone: Clone, order: Order) -> None:
    if order.age < clone.age:
        raise Refused(Reason.STALE, Outcome.REFUSED)
    if clone.buried and order.verb is not Verb.DESTROY:
        raise Refused(Reason.TOMBSTONE, Outcome.REFUSED)
    clone.age = order.age


def _done(host: Host, clone: Clone, order: Order) -> None:
    clone.busy = None
    host.answer(Report(order, Outcome.DONE, observed=clone.observed()))


def clone(host: Host, clone: Clone, order: Order) -> None:
    _check(clone, order)
    clone.busy = host.agent.life
    host.agent.later(host.world.chance.uniform(0, 3) if not host.sharp else 0, _cloned, host, clone, order)


def _cloned(host: Host, clone: Clone, order: Order) -> None:
    clone.present = True
    _done(host, clone, order)


def inject(host: Host, clone: Clone, order: Order) -> None:
    _check(clone, order)
    if not clone.present:
        raise Refused(Reason.CLONE_MISSING)
    clone.account = order.account
    _done(host, clone, order)


def start(host: Host, clone: Clone, order: Order) -> None:
    _check(clone, order)
    if not clone.present:
        raise Refused(Reason.CLONE_MISSING)
    if clone.process is None:
        if not host.may_run(clone):
            raise Refused(Reason.NO_LEASE)
        clone.goal = Goal.RUNNING
        host.spawn(clone)
    clone.goal = Goal.RUNNING
    if host.world.chance.random() < host.portal.plan.hangs:
        raise Refused(Reason.TOO_SLOW)  # it runs, and has not shown what it is in time
    clone.busy = host.agent.life
    _when_decided(host, clone, order)


def _when_decided(host: Host, clone: Clone, order: Order) -> None:
    if clone.process is not None and not clone.process.decided:
        host.agent.later(0.5, _when_decided, host, clone, order)
    elif clone.process is None:
        clone.busy = None
        host.answer(Report(order, Outcome.FAILED, Reason.UNEXPECTED, clone.observed()))
    else:
        _done(host, clone, order)


def stop(host: Host, clone: Clone, order: Order) -> None:
    _check(clone, order)
    clone.goal, clone.busy = Goal.STOPPED, host.agent.life
    if clone.process is not None:
        host.stop(clone.process, host.agent)
    _when_gone(host, clone, order)


def _when_gone(host: Host, clone: Clone, order: Order) -> None:
    if clone.process is not None:
        host.agent.later(0.5, _when_gone, host, clone, order)
        return
    if order.verb is Verb.DESTROY:
        clone.present, clone.buried = False, True
    _done(host, clone, order)


VERBS: dict[Verb, Callable[[Host, Clone, Order], None]] = {
    Verb.CLONE: clone,
    Verb.INJECT: inject,
    Verb.START: start,
    Verb.STOP: stop,
    Verb.DESTROY: stop,
}
