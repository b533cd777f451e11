"""A machine that we do not hear from, one that was lost, and a terminal that comes up on another. Pure.

Nobody is told that a terminal runs when nobody can know it; and what is promised is what farm.fencing allows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from farm.models import Instance
from farm.states import Connection, Goal, Kind, Status
from presspass import moments
from presspass.telling import living
from presspass.telling import saying as of_any
from presspass.telling.saying import OUR_SIDE
from presspass.telling.situation import Came, Mark, Saying, Situation

S = Status

TOLD_AFTERWARDS = timedelta(hours=24)
"""So long the page says that a terminal came from another machine."""
WITHOUT_KEEPSAKE = "without its keepsake"
"""What a host's word on a clone holds when it could not bring over what the customer made."""
NOT_HEARD_OF = "Not heard from · your terminal"

_WAY_UP = frozenset({S.WAITING, S.REQUESTED, S.CLONING, S.INJECTING, S.STARTING})
_NEEDS_ITS_MACHINE = frozenset({S.REQUESTED, S.CLONING, S.INJECTING, S.STARTING, S.RUNNING, S.STOPPING})
_LAST_KNOWN = "What stands below is what was last known. There is nothing for you to do."


def saying(row: Instance, its: Situation) -> Saying | None:
    """None where what is said of a terminal on a machine that speaks is right."""
    if row.status == S.LOST:
        return _lost(row, its)
    if is_silent(row, its):
        return _silent(row, its)
    if its.came is None or row.status not in _WAY_UP or _has_run(its):
        return None
    if row.goal == Goal.STOPPED and row.status == S.WAITING:
        return _parked(its.came)
    return _coming(row, its, its.came) if row.goal == Goal.RUNNING else None


def is_silent(row: Instance, its: Situation) -> bool:
    """Whether what the row says hangs on a machine that has not reported lately, or never did."""
    if row.host is None or row.status not in _NEEDS_ITS_MACHINE:
        return False
    heard = row.host.surveyed_at
    return heard is None or its.now - heard > its.survey_fresh


def _has_run(its: Situation) -> bool:
    return any(line.became == S.RUNNING for line in its.journal)


# --- silent -----------------------------------------------------------------------------------------------------------


def _silent(row: Instance, its: Situation) -> Saying:
    return Saying(_silent_headline(row, its), Mark.DOUBT, _silent_below(row, its), title=NOT_HEARD_OF)


def _silent_headline(row: Instance, its: Situation) -> str:
    heard = row.host.surveyed_at if row.host else None
    if heard is None:
        return "Your terminal was started; its machine has not reported since."
    since = _clock(heard, its)
    if row.status == S.RUNNING:
        return f"Your terminal was running when its machine last reported, at {since}."
    doing = "was being stopped" if row.status == S.STOPPING else "was being set up"
    return f"Your terminal {doing} when its machine last reported, at {since}."


def _silent_below(row: Instance, its: Situation) -> tuple[str, ...]:
    if row.host is None or row.host.surveyed_at is None:
        return (OUR_SIDE, _LAST_KNOWN)
    nothing = f"Since then we hear nothing from the machine, and don't know whether your terminal runs. {OUR_SIDE}"
    return (nothing, _what_comes(row, its), _LAST_KNOWN)


def _what_comes(row: Instance, its: Situation) -> str:
    once = "One account never runs twice. " if row.kind == Kind.LIVE else ""
    stays = "If the machine stays silent,"
    if its.held_back:
        return (
            f"{once}Nothing is moved to other machines at the moment: more than this one may be silent, or the fault "
            "may be ours. A person looks at it first."
        )
    if its.elsewhere_at is None:
        return f"{once}{stays} a person makes sure that it is off before your terminal comes up on another one."
    if its.elsewhere_at <= its.now:
        return f"{stays} your terminal comes up on another one now."
    at = moments.at_and_away(its.elsewhere_at, now=its.now, zone=its.zone)
    if row.kind == Kind.LIVE:
        return (
            f"{once}{stays} yours comes up on another one when the old copy is surely stopped: {at}, if it has not "
            "reported by then."
        )
    return f"{stays} your terminal comes up on another one: {at}."


# --- lost -------------------------------------------------------------------------------------------------------------


def _lost(row: Instance, its: Situation) -> Saying:
    """Nothing takes the place of this one: it was on its way out when its machine went."""
    if any(line.became in {S.DESTROYING, S.DESTROYED} for line in its.journal):
        return living.gone(row, its) if row.kind == Kind.LIVE else of_any.gone(row, its)
    below = (f"{OUR_SIDE} It is seen to; there is nothing for you to do.", "Nothing was charged.")
    return Saying("The machine your terminal ran on is down.", Mark.BROKEN, below)


def _parked(came: Came) -> Saying:
    """Stopped for a payment when its machine was lost: nothing of it stands anywhere until it is started again."""
    why = living.words_for(came.stopped_for)
    below = (
        "The machine that it was kept on is down since. When it is started again, it comes up on another one.",
        "Open positions stay open at your broker.",
    )
    headline = f"Your live terminal is stopped: {why}." if why else "Your live terminal is stopped."
    return Saying(headline, Mark.STOPPED, below, title="Stopped · your terminal")


# --- on its way -------------------------------------------------------------------------------------------------------


def _coming(row: Instance, its: Situation, came: Came) -> Saying:
    in_line = row.status == S.WAITING and row.host_id is None
    why = _why(its, came, said=in_line)
    below = (why, *_way(row, its, came), *kept(its, came), *_account(row, came))
    if in_line:
        headline = "The machine your terminal ran on is down." if came.lost else "Your terminal moves to another one."
        return Saying(headline, Mark.WAITING, below, title="Moving · your terminal")
    verb = "comes up on" if came.lost else "moves to"
    return Saying(f"Your terminal {verb} another machine.", Mark.MOVING, below, title="Moving · your terminal")


def _why(its: Situation, came: Came, *, said: bool) -> str:
    """``said``: the headline says already that the machine is down."""
    nothing = "There is nothing for you to do."
    if not came.lost:
        return f"The machine it ran on is being emptied, for its upkeep. {nothing}"
    heard = f"It last reported at {_clock(came.heard_at, its)}. " if came.heard_at else ""
    down = "" if said else "The machine it ran on is down. "
    return f"{down}{heard}{OUR_SIDE} {nothing}"


def _way(row: Instance, its: Situation, came: Came) -> tuple[str, ...]:
    """What it does at this moment."""
    if row.status == S.WAITING and row.host_id is None:
        place = "" if its.position is None else f" You are number {its.position} in line."
        return (f"All other slots are taken. It starts by itself in the next that is free.{place}",)
    once: tuple[str, ...] = ()
    if row.kind == Kind.LIVE:
        stopped = "its old copy is surely stopped" if came.lost else "the old copy is stopped first"
        once = (f"One account never runs twice: {stopped}. Open positions stay open at your broker.",)
    if row.status == S.STARTING and row.account is not None:
        if row.connection == Connection.CONNECTED:
            return (f"{row.account.server} let it in.", *once)
        return (f"It is logging in to {row.account.server} as {row.account.login}.", *once)
    return once


def kept(its: Situation, came: Came) -> tuple[str, ...]:
    """What of the customer's own comes along, and how old that is."""
    cloned = next((line for line in its.journal if line.was == S.CLONING and line.became != S.FAILED), None)
    if cloned is not None and WITHOUT_KEEPSAKE in cloned.why:
        return (f"Your profiles and settings could not be brought over: it starts as new. Write to {its.support}.",)
    if not came.kept_known:
        return ()
    if came.kept_at is None:
        return ("What you had made in it is not kept anywhere else: it starts as new.",)
    verb = "are" if cloned is not None else "come along"
    return (f"Your profiles and settings {verb} as of {_clock(came.kept_at, its)}.",)


def _account(row: Instance, came: Came) -> tuple[str, ...]:
    if row.kind != Kind.PRESS_PASS or came.same_account:
        return ()
    has = "It has another demo account now: what" if row.account is not None else "What"
    return (f"{has} was open on the one before does not come along.",)


def came_here(row: Instance, its: Situation) -> tuple[str, ...]:
    """For a day, below the state of a terminal that runs: where it was before, and what came along."""
    came = its.came
    if came is None or its.now - came.at > TOLD_AFTERWARDS:
        return ()
    up = next((line.at for line in its.journal if line.became == S.RUNNING), None)
    at = f" at {_clock(up, its)}" if up is not None else ""
    was = "the one before went down" if came.lost else "the one before was emptied for its upkeep"
    return (f"It came up on this machine{at}: {was}.", *kept(its, came), *_account(row, came))


def _clock(moment: datetime, its: Situation) -> str:
    return moments.clock_time(moment, now=its.now, zone=its.zone).text
