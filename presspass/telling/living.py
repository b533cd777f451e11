"""A live terminal, where it differs from a Press Pass: held, paid, proven, refused, stopped for a payment."""

from __future__ import annotations

from farm.models import Instance
from farm.states import Connection, Goal, Kind, Reason, Refusal, Status
from presspass import moments
from presspass.telling.refusals import said_of, to_do
from presspass.telling.saying import REASONS
from presspass.telling.situation import Action, Mark, Saying, Situation

_STOPPED = {
    "not paid": "a payment failed and was not made up for",
    "cancelled": "its plan was cancelled and its time is over",
    "refunded": "its payment was given back",
    "disputed": "your bank took its payment back",
}


def is_refused(row: Instance) -> bool:
    """Its broker said no before it was ever proven: it goes, and what it was to replace stays."""
    return row.kind == Kind.LIVE and row.proven_at is None and bool(row.refusal) and row.goal == Goal.DESTROYED


def saying(row: Instance, its: Situation) -> Saying | None:
    """None where what is said of every terminal is right for this one too."""
    if row.kind != Kind.LIVE:
        return None
    if is_refused(row):
        return _refused(row, its)
    status = Status(row.status)
    if status is Status.WAITING:
        return _waiting(row, its)
    if status is Status.STARTING and row.proven_at is None and row.connection == Connection.CONNECTED:
        below = ("Your terminal's own word is still to come: that it is in, and that it may trade.",)
        return Saying(f"{server(row, its)} let it in.", Mark.MOVING, below)
    if status is Status.STOPPED and its.journal:
        return _stopped(row, its)
    if status in {Status.DESTROYING, Status.DESTROYED}:
        return gone(row, its)
    return _failed(row, its) if status is Status.FAILED and row.goal != Goal.DESTROYED else None


def server(row: Instance, its: Situation) -> str:
    if row.account is not None:
        return row.account.server
    return its.server or "The broker"


def _waiting(row: Instance, its: Situation) -> Saying:
    if row.held_until is not None:
        until = moments.at_and_away(row.held_until, now=its.now, zone=its.zone)
        free = "It starts when the payment is in, usually within seconds. Nothing is charged if you leave it."
        return Saying(f"A slot is held for your live terminal until {until}.", Mark.WAITING, (free,))
    if row.host_id is not None:
        once = "One account never runs twice: the one that runs is stopped first, then the new one starts."
        return Saying("Making way for your new login.", Mark.MOVING, (once,))
    place = "in line" if its.position is None else f"number {its.position} in line"
    below = (
        "You have paid, and the next slot that is free is yours. It then starts by itself.",
        "You need not wait: have the money back if you prefer.",
    )
    return Saying(f"Your live terminal is {place} for a slot.", Mark.WAITING, below)


def _refused(row: Instance, its: Situation) -> Saying:
    refusal = Refusal(row.refusal)
    words = (f"The broker's words: {row.refusal_text}",) if row.refusal_text else ()
    below = (to_do(refusal, support=its.support), *words, "Trying again costs nothing more.")
    return Saying(f"{said_of(refusal, server=server(row, its))}.", Mark.BROKEN, below)


def _stopped(row: Instance, its: Situation) -> Saying:
    why = stopped_for(its)
    if not why:
        below = ("It makes way for the new one: one account never runs twice.",)
        return Saying("Your terminal is stopped for a moment.", Mark.STOPPED, below)
    below = ("Its folder and settings are kept for now. Open positions stay open at your broker.",)
    return Saying(f"Your live terminal is stopped: {why}.", Mark.STOPPED, below)


def stopped_for(its: Situation) -> str:
    """What it was stopped for, in words; "" if that was not a payment."""
    last = its.journal[-1].why if its.journal else ""
    return words_for(next((line.why for line in reversed(its.journal) if line.became == Status.STOPPING), last))


def words_for(why: str) -> str:
    return _STOPPED.get(why, "")


def gone(row: Instance, its: Situation) -> Saying:
    done = row.status != Status.DESTROYING
    line = next((line for line in its.journal if line.became in {Status.DESTROYING, Status.DESTROYED}), None)
    why = f": {_STOPPED.get(line.why, line.why)}" if line and line.why else ""
    return Saying(
        f"Your live terminal {'was' if done else 'is being'} ended{why}.", Mark.ENDED if done else Mark.MOVING
    )


def _failed(row: Instance, its: Situation) -> Saying:
    tried = "keep your live terminal running" if row.first_running_at else "start your live terminal"
    if row.next_at is None:
        then = "A person looks at it first: it stands on our staff's list, and your payment is safe."
    else:
        then = f"We try again at {moments.clock_time(row.next_at, now=its.now, zone=its.zone)}, by ourselves."
    why = REASONS[Reason(row.reason)]
    return Saying(f"We could not {tried}: {why}. It is on our side.", Mark.BROKEN, (then,))


def actions(row: Instance, its: Situation) -> list[Action]:
    if row.status == Status.WAITING and row.held_until is not None:
        return [Action.PAY]
    if row.goal == Goal.DESTROYED:
        return [Action.CORRECT_LOGIN] if is_refused(row) and its.subscribed else [Action.GO_LIVE] if its.sold else []
    if row.status == Status.RUNNING and row.proven_at is not None:
        return [Action.CHANGE_LOGIN, Action.RESTART]
    return []
