"""The sentence at the top of the page: what is, whose side it is on, and what happens next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType

from farm.models import Instance, Transition
from farm.states import Connection, Goal, Reason, Refusal, Status
from presspass import moments
from presspass.telling.situation import Mark, Saying, Situation

OUR_SIDE = "It is on our side."

REASONS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.NONE: "something went wrong that we don't know yet",
        Reason.MASTER_MISSING: "the template that terminals are copied from is missing on its machine",
        Reason.MASTER_UNFIT: "the template that terminals are copied from is not in order on its machine",
        Reason.CLONE_MISSING: "its folder is gone from its machine",
        Reason.DISK_FULL: "the disk of its machine is full",
        Reason.READ_ONLY: "the disk of its machine takes no writing",
        Reason.FILES_IN_USE: "its files are still held by another program",
        Reason.TOO_SLOW: "its machine took too long",
        Reason.TERMINAL_COMMAND: "its machine does not know how to start a terminal",
        Reason.TERMINAL_DIED: "the terminal stopped as soon as it was started",
        Reason.CRASH_LOOP: "the terminal crashed again and again",
        Reason.WILL_NOT_STOP: "the terminal does not stop when told to",
        Reason.PORT_TAKEN: "another program on its machine has its port",
        Reason.NOT_INJECTED: "the account could not be handed to the terminal",
        Reason.UNSEALABLE: "its machine could not read what we sent it",
        Reason.KEEPSAKE: "what you made in your terminal could not be brought over",
        Reason.STALE: "its machine knew of a newer order",
        Reason.TOMBSTONE: "its machine has ended this terminal before",
        Reason.EXPIRED: "what we sent its machine arrived too late",
        Reason.NO_LEASE: "its machine may run no live terminal until it hears from us again",
        Reason.FORGOTTEN: "its machine does not know any more what became of it",
        Reason.UNEXPECTED: "something went wrong on its machine that we did not foresee",
    }
)
"""Why we could not do it, after a colon."""


def saying(row: Instance, its: Situation) -> Saying:
    """For every status but lost, on a machine that speaks: see presspass.telling.elsewhere for what is said else."""
    return _BY_STATUS[Status(row.status)](row, its)


def _waiting(row: Instance, its: Situation) -> Saying:
    if its.held_until is not None:
        until = moments.at_and_away(its.held_until, now=its.now, zone=its.zone)
        below = ("Start your terminal before, and it is yours. Else the slot goes to the next in line.",)
        return Saying(f"A slot is held for you until {until}.", Mark.WAITING, below)
    place = (
        "You are in line for a slot." if its.position is None else f"You are number {its.position} in line for a slot."
    )
    return Saying(
        place,
        Mark.WAITING,
        (
            "All our slots are taken. When one is free while this page is open, your terminal starts by itself. "
            "Else the slot is held for you for a while, and we mail you.",
            _expected(its),
        ),
    )


def _expected(its: Situation) -> str:
    if its.expected is None:
        return "How long that takes we don't know: nobody has left in the last 24 h."
    return f"At the pace of the last 24 h it takes about {moments.length(max(its.expected.total_seconds(), 60))}."


def _copying(row: Instance, its: Situation) -> Saying:
    return Saying("Copying your terminal.", Mark.MOVING, ("Usually under a second.", *_usual(its)))


def _starting(row: Instance, its: Situation) -> Saying:
    if row.account is None:
        return Saying("Starting your terminal.", Mark.MOVING, _usual(its))
    headline = f"Logging in to {row.account.server} as {row.account.login}."
    return Saying(headline, Mark.MOVING, ("The broker usually answers within 10 s.", *_usual(its)))


def _usual(its: Situation) -> tuple[str, ...]:
    if its.usual_seconds is None:
        return ()
    return (f"The last ones were running {moments.length(its.usual_seconds)} after they were asked for.",)


def _running(row: Instance, its: Situation) -> Saying:
    return _BY_CONNECTION[Connection(row.connection)](row, its)


def _up(row: Instance, its: Situation, *more: str) -> Saying:
    since = moments.at(row.status_since, now=its.now, zone=its.zone)
    return Saying("Your terminal is running.", Mark.RUNNING, (f"Since {since}.", *more))


def _no_account(row: Instance, its: Situation) -> Saying:
    return _up(row, its, "No broker account is in it yet.")


def _unknown(row: Instance, its: Situation) -> Saying:
    return _up(row, its, "Whether it is connected to the broker we don't know yet.")


def _connecting(row: Instance, its: Situation) -> Saying:
    return _up(row, its, f"It is logging in to {_server(row)}. The broker usually answers within 10 s.")


def _connected(row: Instance, its: Situation) -> Saying:
    if row.connection_since is None:
        return _up(row, its, f"Connected to {_server(row)}.")
    since = moments.at(row.connection_since, now=its.now, zone=its.zone)
    return _up(row, its, f"Connected to {_server(row)} since {since}.")


def _lost_connection(row: Instance, its: Situation) -> Saying:
    if row.connection_since is None:
        headline = "Your terminal runs, the broker's connection is down."
    else:
        since = moments.clock_time(row.connection_since, now=its.now, zone=its.zone)
        headline = f"Your terminal runs, the broker's connection is down since {since}."
    return Saying(headline, Mark.DOUBT, ("It reconnects by itself; there is nothing for you to do.",))


def _refused(row: Instance, its: Situation) -> Saying:
    headline = REFUSALS[Refusal(row.refusal)].format(server=_server(row))
    words = (f"The broker's words: {row.refusal_text}",) if row.refusal_text else ()
    return Saying(headline, Mark.BROKEN, (_whose_side(row), *words))


def _whose_side(row: Instance) -> str:
    if row.refusal == Refusal.SEAT_TAKEN:
        return "One account runs in one terminal only: the other one must end first."
    if row.account is None or row.account.owner_id is None:
        return "The demo account is ours, so it is on our side."
    return "Your terminal itself runs. The answer came from the broker."


REFUSALS: Mapping[Refusal, str] = MappingProxyType(
    {
        Refusal.NONE: "{server} refused the login.",
        Refusal.CREDENTIALS: "{server} refused the login: wrong login or password.",
        Refusal.INVESTOR: "{server} let it in with the investor password: it can watch, not trade.",
        Refusal.TRADING_DISABLED: "{server} let it in, but trading is switched off for this account.",
        Refusal.SERVER_UNKNOWN: "Your terminal does not know the server {server}.",
        Refusal.SERVER_UNREACHABLE: "{server} can't be reached from our machine.",
        Refusal.NO_ANSWER: "{server} does not answer the login.",
        Refusal.SEAT_TAKEN: "This account at {server} runs in another terminal already.",
        Refusal.OTHER: "{server} refused the login.",
    }
)


def _server(row: Instance) -> str:
    return row.account.server if row.account else "the broker"


def _stopping(row: Instance, its: Situation) -> Saying:
    if row.goal == Goal.RUNNING:
        return Saying("Restarting your terminal.", Mark.MOVING, ("It is stopped first, then started again.",))
    return Saying("Stopping your terminal.", Mark.MOVING)


def _stopped(row: Instance, its: Situation) -> Saying:
    why = row.reason_detail or _why_stopped(its)
    headline = f"Your terminal is stopped: {why}." if why else "Your terminal is stopped."
    return Saying(headline, Mark.STOPPED, ("Its folder and settings are kept.",))


def gone(row: Instance, its: Situation) -> Saying:
    """What is left on a machine that was lost is none of the customer's business."""
    done = row.status != Status.DESTROYING
    last = next((line for line in its.journal if line.became in {Status.DESTROYING, Status.DESTROYED}), None)
    return Saying(_end_said(row, last, its, done=done), Mark.ENDED if done else Mark.MOVING, _way_back(row, its))


def _end_said(row: Instance, line: Transition | None, its: Situation, *, done: bool) -> str:
    who = line.who if line else ""
    if who.startswith("customer:"):
        return "You ended your Press Pass." if done else "Ending your Press Pass."
    if who == "recycle_idle":
        verb = "was" if done else "is being"
        return f"Your terminal {verb} recycled after {line.why if line else ''}."
    if who == "press_pass_end":
        return "Your Press Pass has ended: its days are over." if done else "Your Press Pass ends: its days are over."
    if who == "line":
        return "The slot that was held for you went to the next in line."
    why = f": {line.why}" if line and line.why else ""
    return f"Your terminal {'was' if done else 'is being'} ended{why}."


def _way_back(row: Instance, its: Situation) -> tuple[str, ...]:
    return (*_back(row, its), *_kept(row, its))


def _kept(row: Instance, its: Situation) -> tuple[str, ...]:
    """What became of what was made in it. A terminal that is just going is still being packed up."""
    if row.first_running_at is None or row.status == Status.DESTROYING:
        return ()
    if its.kept_until is not None:
        until = moments.at_and_away(its.kept_until, now=its.now, zone=its.zone)
        return (f"What you made in it is kept until {until}, and deleted then.",)
    if its.now - row.status_since >= timedelta(days=its.keep_days):
        return (f"What you made in it was kept for {its.keep_days:g} days and is deleted.",)
    return ()


def _back(row: Instance, its: Situation) -> tuple[str, ...]:
    if row.first_running_at is None and its.journal and its.journal[-1].who == "line":
        return ("One button puts you back in line, at its end.",)
    if its.trial_ends_at is None:
        return ("One button brings you a new one.",)
    until = moments.at_and_away(its.trial_ends_at, now=its.now, zone=its.zone)
    if its.trial_ends_at <= its.now:
        return (f"The {its.trial_days:g} days of your Press Pass were over {until}.",)
    return (f"One button brings you a new one, until {until}.",)


def _failed(row: Instance, its: Situation) -> Saying:
    why = REASONS[Reason(row.reason)]
    if row.goal == Goal.DESTROYED:
        return Saying(
            f"Your Press Pass has ended, but clearing your terminal away failed: {why}.",
            Mark.BROKEN,
            (f"{OUR_SIDE} There is nothing for you to do.", *_way_back(row, its)),
        )
    tried = "keep your terminal running" if row.first_running_at else "start your terminal"
    return Saying(
        f"We could not {tried}: {why}. {OUR_SIDE}", Mark.BROKEN, (_next_try(row, its), "Nothing was charged.")
    )


def _next_try(row: Instance, its: Situation) -> str:
    if row.next_at is None:
        return "We do not try again by ourselves: a person looks at it first. It stands on our staff's list."
    if row.next_at <= its.now:
        return "We try again now, by ourselves."
    when = moments.clock_time(row.next_at, now=its.now, zone=its.zone)
    return f"We try again {moments.away(row.next_at, now=its.now)}, at {when}, by ourselves."


def _why_stopped(its: Situation) -> str:
    """What it was stopped for: that stands where the stop was asked for; its end says only that it was done."""
    asked = [line for line in its.journal if line.became == Status.STOPPING]
    return asked[-1].why if asked else ""


_Sayer = Callable[[Instance, Situation], Saying]

_BY_CONNECTION: Mapping[Connection, _Sayer] = MappingProxyType(
    {
        Connection.NO_ACCOUNT: _no_account,
        Connection.UNKNOWN: _unknown,
        Connection.CONNECTING: _connecting,
        Connection.CONNECTED: _connected,
        Connection.REFUSED: _refused,
        Connection.LOST: _lost_connection,
    }
)

_BY_STATUS: Mapping[Status, _Sayer] = MappingProxyType(
    {
        Status.WAITING: _waiting,
        Status.REQUESTED: _copying,
        Status.CLONING: _copying,
        Status.INJECTING: _starting,
        Status.STARTING: _starting,
        Status.RUNNING: _running,
        Status.STOPPING: _stopping,
        Status.STOPPED: _stopped,
        Status.DESTROYING: gone,
        Status.DESTROYED: gone,
        Status.FAILED: _failed,
    }
)
