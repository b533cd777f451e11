"""The journal in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from farm.models import Transition
from farm.states import Status
from presspass import moments
from presspass.telling.situation import Line, Situation

S = Status

_WORDS: Mapping[Status, str] = MappingProxyType(
    {
        S.WAITING: "In line for a slot",
        S.REQUESTED: "Slot reserved",
        S.CLONING: "Copying began",
        S.INJECTING: "Handing over the account began",
        S.STARTING: "Starting began",
        S.RUNNING: "Running",
        S.STOPPING: "Stopping began",
        S.STOPPED: "Stopped",
        S.DESTROYING: "Clearing away began",
        S.DESTROYED: "Cleared away",
        S.FAILED: "A step failed",
        S.LOST: "Its machine was lost",
    }
)
_SAYS_WHY = frozenset({S.FAILED, S.LOST, S.STOPPING, S.STOPPED, S.DESTROYING})


def history(its: Situation) -> tuple[Line, ...]:
    """Newest first."""
    return tuple(
        Line(moments.seconds_time(line.at, now=its.now, zone=its.zone), _text(line, its))
        for line in reversed(its.journal)
    )


def _text(line: Transition, its: Situation) -> str:
    became = Status(line.became)
    words = _begun(its) if not line.was else _WORDS[became]
    if line.was == became == S.WAITING:
        words = "A slot is held for you"
    why = f": {line.why}" if became in _SAYS_WHY and line.why and line.why.lower() != words.lower() else ""
    return f"{words}{why}{_by(line.who)}."


def _begun(its: Situation) -> str:
    if its.came is None:
        return "Asked for"
    return "Begun anew: the machine before was lost" if its.came.lost else "Begun anew, to move from another machine"


def _by(who: str) -> str:
    """Only people are named; what the machines do by themselves needs no author."""
    if who.startswith("customer:"):
        return ", by you"
    return ", by our staff" if who.startswith("staff:") else ""
