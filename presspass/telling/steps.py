"""The way up (or round, or out) step by step: what is done, with its time; what is being done; what comes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from farm.models import Instance, Transition
from farm.states import Goal, Kind, Status
from presspass import moments
from presspass.telling.situation import Situation, Step

SHOWN_AFTERWARDS = timedelta(minutes=2)
"""A way that has been gone stays on the page for so long, so that it can be read."""

S = Status

_WORDS: Mapping[Status, tuple[str, str, str]] = MappingProxyType(
    {
        S.WAITING: ("Waited for a slot", "Waiting for a slot", "Wait for a slot"),
        S.REQUESTED: ("Reserved a slot and a port", "Telling the machine", "Reserve a slot and a port"),
        S.CLONING: ("Copied the terminal", "Copying the terminal", "Copy the terminal"),
        S.INJECTING: ("Handed over the account", "Handing over the account", "Hand over the account"),
        S.STARTING: ("Started it", "Starting it", "Start it"),
        S.STOPPING: ("Stopped it", "Stopping it", "Stop it"),
        S.DESTROYING: ("Cleared it away", "Clearing it away", "Clear it away"),
    }
)
"""A step is a status that the instance passes through: left, in it, and to come."""

_RESTS = frozenset({S.RUNNING, S.STOPPED, S.FAILED, S.LOST, S.DESTROYED})


def steps(row: Instance, its: Situation) -> tuple[Step, ...]:
    status = Status(row.status)
    if status in {S.FAILED, S.LOST, S.STOPPED, S.DESTROYED}:
        return ()
    if status is S.RUNNING and its.now - row.status_since > SHOWN_AFTERWARDS:
        return ()
    gone = _way(its.journal)
    done = [
        _done(line, following, its) for line, following in itertools.pairwise(gone) if not _at_once(line, following)
    ]
    if status is S.RUNNING:
        return tuple(done)
    return (*done, _now(row, its), *(Step(_WORDS[next_][2], "to do") for next_ in _ahead(row)))


def _way(journal: Sequence[Transition]) -> list[Transition]:
    """The newest stretch of the journal that leads away from a rest, to where the instance is now."""
    stretch: list[Transition] = []
    for line in reversed(journal):
        if line.became in _RESTS and stretch:
            break
        stretch.append(line)
    return stretch[::-1]


def _done(line: Transition, following: Transition, its: Situation) -> Step:
    words = _WORDS[Status(line.became)]
    took = (following.at - line.at).total_seconds()
    return Step(words[0], "done", moments.seconds_time(following.at, now=its.now, zone=its.zone), moments.length(took))


def _at_once(line: Transition, following: Transition) -> bool:
    """Whoever found a slot free did not wait for one."""
    return line.became == S.WAITING and following.at - line.at < timedelta(seconds=1)


def _now(row: Instance, its: Situation) -> Step:
    """Its time is only said when it is long enough to wonder."""
    took = (its.now - row.status_since).total_seconds()
    label = "Waiting until the old one is stopped" if _makes_way(row) else _WORDS[Status(row.status)][1]
    return Step(label, "now", None, f"for {moments.length(took)}" if took >= 2 else "")


def _makes_way(row: Instance) -> bool:
    """It has its slot, and waits for the one that it replaces."""
    return row.status == S.WAITING and row.kind == Kind.LIVE and row.host_id is not None and row.held_until is None


def _ahead(row: Instance) -> tuple[Status, ...]:
    status = Status(row.status)
    if status is S.STOPPING:
        return (S.STARTING,) if row.goal == Goal.RUNNING else ()
    up = [S.WAITING, S.REQUESTED, S.CLONING, *([S.INJECTING] if row.account else []), S.STARTING]
    coming = tuple(up[up.index(status) + 1 :]) if status in up else ()
    return coming[1:] if _makes_way(row) else coming
