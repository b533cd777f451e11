"""What a host does with a message: nothing before its signature, nothing for an old one, the same for the same one.

:func:`obey` answers with a report, except for a start: the terminal is only on its way then, and :func:`conclude`
answers when the watch has seen what became of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farm.agent import errors, keeping, processes, protocol, verbs
from farm.agent.context import Context
from farm.agent.errors import AgentError
from farm.agent.fence import Ending
from farm.agent.locks import LOCK_SECONDS
from farm.agent.protocol import Connection, Observation, Order, Outcome, Process, Reason, Report, Verb
from farm.agent.state import Goal, State
from farm.agent.watch import Look

log = logging.getLogger(__name__)

ALIVE_SECONDS = 3.0
"""A terminal without account that lived so long counts as started, heartbeat or not."""
TRADING_SECONDS = 1.0
"""The journal says whether one may trade just after it says synchronized; so long the report waits for it."""
STOP_HUNG_SECONDS = 5.0


def opened(context: Context, envelope: Mapping[str, Any]) -> Order:
    """Return the order in ``envelope``; raise :class:`protocol.ProtocolError` if it is not the portal's, or not for us.

    Another host's order is nothing that the portal would put into our queue: somebody moved it there.
    """
    order = Order.parse(protocol.opened(envelope, context.settings.portal_keys))
    if order.host != context.settings.host:
        raise protocol.Forged("an order for another host")
    return order


def obey(context: Context, envelope: Mapping[str, Any]) -> Report | None:
    """Do what the envelope says, and return what to answer; None when the answer comes later or never.

    Raises :class:`protocol.ProtocolError`, having done nothing, for an envelope that is not to be answered.
    """
    order = opened(context, envelope)
    if abs(context.now() - order.issued_at) > protocol.ORDER_LIFETIME_SECONDS:
        return _report(context, order, Outcome.REFUSED, Reason.EXPIRED, "issued more than 24 h ago, or in the future")
    try:
        if order.verb is Verb.KEEP:
            return _keep(context, order)
        with context.held(order.instance):
            return _obey_held(context, order)
    except AgentError as error:
        return _report(context, order, error.outcome, error.reason, error.detail)


def _keep(context: Context, order: Order) -> Report:
    """Send the instance's keepsake. It changes nothing here, so it has no number of its own and is not remembered.

    The lock is held only while files are read: nobody's stop waits for an upload.
    """
    with context.held(order.instance):
        state = context.load(order.instance)
        # After the portal's database was restored its orders have a new epoch, though nothing else is new.
        if state is None or order.epoch < state.epoch:
            raise errors.Stale
        if (state.generation, state.folder) != (order.generation, order.folder):
            raise errors.Stale
        if not verbs.is_ours(context, state):
            raise errors.CloneMissing(f"{order.folder} does not stand under Users")
        made = keeping.packed(context, state)
    note = keeping.send(order, made)
    return _report(context, order, Outcome.DONE, detail=note, observed=context.watch.observe(state))


def _obey_held(context: Context, order: Order) -> Report | None:
    state = context.load(order.instance) or State(instance=order.instance, folder=order.folder)
    if order.age < state.age or (order.age == state.age and order.verb != state.verb):
        detail = (
            f"{order.verb} {order.epoch}.{order.generation}, but {state.verb} {state.epoch}.{state.generation} is known"
        )
        return _report(context, order, Outcome.REFUSED, Reason.STALE, detail, observed=context.watch.observe(state))
    if order.folder != state.folder:
        detail = f"instance {state.instance} is {state.folder} on this host"
        return _report(context, order, Outcome.REFUSED, Reason.UNEXPECTED, detail)
    state.epoch, state.generation, state.verb, state.answer = order.epoch, order.generation, order.verb.value, ""
    context.save(state)
    report = attempt(context, order, state)
    return None if report is None else _answered(context, state, report)


def attempt(context: Context, order: Order, state: State) -> Report | None:
    """Obey ``order``, whose instance's lock is held, and say how it went; None if a start is on its way."""
    known = {"event": "obey", "verb": order.verb.value, "instance": order.instance, "generation": order.generation}
    try:
        note = verbs.ACTS[order.verb](context, order, state)
    except AgentError as error:
        log.warning("not obeyed", extra={**known, "reason": error.reason.value, "detail": error.detail})
        return failure(context, order, state, error)
    except Exception as error:
        log.exception("a defect while obeying", extra=known)
        return failure(context, order, state, AgentError(type(error).__name__))
    log.info("obeyed", extra=known)
    if order.verb is Verb.START:
        return None
    return _report(context, order, Outcome.DONE, detail=note or "", observed=context.watch.observe(state))


def failure(context: Context, order: Order, state: State, error: AgentError) -> Report:
    """Return the report on an order that could not be done. A start that failed leaves nothing meant to run."""
    if order.verb is Verb.START and state.start_order() == order:
        state.goal, state.reason = Goal.STOPPED, error.reason
    seen = context.watch.observe(state)
    return _report(context, order, error.outcome, error.reason, error.detail, observed=seen)


def _answered(context: Context, state: State, report: Report) -> Report:
    state.answer = report.body()
    context.save(state)
    return report


def _report(
    context: Context,
    order: Order,
    outcome: Outcome,
    reason: Reason = Reason.NONE,
    detail: str = "",
    *,
    observed: Observation | None = None,
) -> Report:
    return Report(
        host=context.settings.host,
        instance=order.instance,
        epoch=order.epoch,
        generation=order.generation,
        verb=order.verb,
        outcome=outcome,
        sent_at=context.now(),
        reason=reason,
        detail=detail,
        observed=observed,
    )


# --- how a start went ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """How a start went; ``error`` is None if it went well."""

    error: AgentError | None = None


def judge(context: Context, state: State, look: Look) -> Verdict | None:
    """Return how the start went by what was seen, None while that cannot be told. Looks only at what it is given."""
    seen, launch = look.observation, state.launch
    if launch is None:
        return Verdict(errors.NoLease() if state.reason is Reason.NO_LEASE else errors.TerminalDied())
    waited = launch.waited(context.now())
    late = waited > context.settings.ready_seconds
    if seen.process is Process.STOPPED:
        return None if look.may_come_back else Verdict(_death(look.ending))
    if seen.process is Process.UNKNOWN:
        return Verdict(errors.TooSlow("whether the terminal runs cannot be seen by this user")) if late else None
    if _is_ready(seen, waited):
        return Verdict()
    updating = look.standing is not None and look.standing.updating
    return Verdict(errors.TooSlow("the terminal runs, but its journal says nothing")) if late and not updating else None


def _is_ready(seen: Observation, waited: float) -> bool:
    if seen.connection is Connection.NO_ACCOUNT:
        return seen.heartbeat is not None or waited >= ALIVE_SECONDS
    if seen.connection is Connection.CONNECTED:
        return (seen.synchronized and seen.trading is not None) or waited >= ALIVE_SECONDS + TRADING_SECONDS
    return seen.connection in (Connection.REFUSED, Connection.LOST)


def _death(ending: Ending) -> AgentError:
    if ending.taken_down:
        return errors.NoLease()
    code = ending.code
    return errors.TerminalDied("" if code is None else f"the terminal ended by itself with {code}")


def conclude(context: Context, instance: int, *, seconds: float = LOCK_SECONDS) -> Report | None:
    """Answer the start of ``instance`` if it can be told how it went; None while it cannot, or nobody asked.

    Raises :class:`errors.TooSlow` if its lock is not free within ``seconds``.
    """
    with context.held(instance, seconds=seconds):
        state = context.load(instance)
        order = state.start_order() if state else None
        if state is None or order is None or not state.awaits_start:
            return None
        look = context.watch.look(state)
        verdict = judge(context, state, look)
        if verdict is None:
            return None
        verbs.remove_ini(context.settings.clone(state.folder))
        if verdict.error is None:
            return _answered(context, state, _report(context, order, Outcome.DONE, observed=look.observation))
        return _answered(context, state, _given_up(context, order, state, verdict.error))


def _given_up(context: Context, order: Order, state: State, error: AgentError) -> Report:
    """End what is left of a start that failed: the next one must find nothing that hangs."""
    try:
        processes.stop(context.settings.users, state.folder, grace_seconds=STOP_HUNG_SECONDS)
    except errors.WillNotStop as trouble:
        error = trouble
    report = failure(context, order, state, error)
    state.launch = None
    return report


def give_up(context: Context, order: Order, error: AgentError) -> None:
    """End what is left of an operator's start that failed, whose lock is held."""
    state = context.load(order.instance)
    if state is not None:
        _given_up(context, order, state, error)
        context.save(state)
