"""What an instance can be, which moves are allowed, and what comes next. Pure: no Django, no clock, no I/O.

a  waiting -> requested -> cloning -> injecting -> starting -> running   up; injecting only with an account
b  running -> starting                     its process is gone; the host starts it again
c  requested … running -> stopping -> stopped | starting   a stop; a restart while the goal is still running
d  any but destroyed -> destroying -> destroyed            out; one in line goes straight to destroyed
e  in motion, running -> failed -> requested | stopping | destroying     a failure, its retry towards the goal
f  any that a host holds -> lost -> destroying | destroyed               its host is gone
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from farm.agent.protocol import Connection, Observation, Process, Reason, Refusal, Verb

__all__ = ["Connection", "Goal", "Kind", "Process", "Reason", "Refusal", "Status", "Verb"]


class Kind(StrEnum):
    PRESS_PASS = "press pass"
    LIVE = "live"


class Goal(StrEnum):
    """What the instance is meant to become; its status says how far it is."""

    RUNNING = "running"
    STOPPED = "stopped"
    DESTROYED = "destroyed"


class Status(StrEnum):
    WAITING = "waiting"
    REQUESTED = "requested"
    CLONING = "cloning"
    INJECTING = "injecting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    FAILED = "failed"
    LOST = "lost"


S = Status

MOVES: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        S.WAITING: frozenset({S.REQUESTED, S.DESTROYED}),
        S.REQUESTED: frozenset({S.CLONING, S.STOPPING, S.FAILED, S.DESTROYING, S.LOST}),
        S.CLONING: frozenset({S.INJECTING, S.STARTING, S.STOPPING, S.FAILED, S.DESTROYING, S.LOST}),
        S.INJECTING: frozenset({S.STARTING, S.STOPPING, S.FAILED, S.DESTROYING, S.LOST}),
        S.STARTING: frozenset({S.RUNNING, S.STOPPING, S.FAILED, S.DESTROYING, S.LOST}),
        S.RUNNING: frozenset({S.STARTING, S.STOPPING, S.FAILED, S.DESTROYING, S.LOST}),
        S.STOPPING: frozenset({S.STOPPED, S.STARTING, S.FAILED, S.DESTROYING, S.LOST}),
        S.STOPPED: frozenset({S.STARTING, S.INJECTING, S.DESTROYING, S.LOST}),
        S.FAILED: frozenset({S.REQUESTED, S.STOPPING, S.DESTROYING, S.LOST}),
        S.LOST: frozenset({S.DESTROYING, S.DESTROYED}),
        S.DESTROYING: frozenset({S.DESTROYED, S.FAILED, S.LOST}),
        S.DESTROYED: frozenset(),
    }
)

VERBS: Mapping[Status, Verb] = MappingProxyType(
    {
        S.CLONING: Verb.CLONE,
        S.INJECTING: Verb.INJECT,
        S.STARTING: Verb.START,
        S.STOPPING: Verb.STOP,
        S.DESTROYING: Verb.DESTROY,
    }
)
"""What the host is told while the instance has this status."""

IN_MOTION = frozenset({S.REQUESTED, *VERBS})
"""A step is due: the host is to be told something."""

HOLDS_SLOT = frozenset(S) - {S.WAITING, S.DESTROYED}

RETRIED_UNTIL_MENDED = frozenset(
    {Reason.MASTER_MISSING, Reason.MASTER_UNFIT, Reason.DISK_FULL, Reason.READ_ONLY, Reason.NO_LEASE}
)
"""The host's own trouble: it passes when somebody mends the host, or it has a lease, however long that takes."""

NOT_RETRIED = frozenset({Reason.STALE, Reason.TOMBSTONE, Reason.CRASH_LOOP, Reason.FORGOTTEN})
"""Trying again cannot help, or would hide what staff must look at."""


def after(verb: Verb, *, has_account: bool, goal: Goal) -> Status:
    """The status that follows when the host has done ``verb``."""
    if verb is Verb.DESTROY:
        return S.DESTROYED
    if verb is Verb.STOP:
        return {Goal.RUNNING: S.STARTING, Goal.STOPPED: S.STOPPED, Goal.DESTROYED: S.DESTROYING}[goal]
    if verb is Verb.CLONE:
        return S.INJECTING if has_account else S.STARTING
    return S.STARTING if verb is Verb.INJECT else S.RUNNING


def retried_as(goal: Goal) -> Status:
    """Where a failed instance goes on. Every verb may be repeated, so the way up simply begins again."""
    return {Goal.RUNNING: S.REQUESTED, Goal.STOPPED: S.STOPPING, Goal.DESTROYED: S.DESTROYING}[goal]


def retry_delay(attempts: int, *, first: float, most: float) -> timedelta:
    """The wait after the ``attempts``-th failure in a row (from 1): ``first`` seconds, doubling up to ``most``."""
    return timedelta(seconds=min(most, first * 2 ** min(attempts - 1, 30)))


def is_retried(reason: Reason, attempts: int, *, limit: int) -> bool:
    if reason in NOT_RETRIED:
        return False
    return reason in RETRIED_UNTIL_MENDED or attempts < limit


@dataclass(frozen=True)
class Seen:
    """What a survey tells about an instance that no order is out for: the status it has now, and why it changed."""

    status: Status
    why: str = ""
    reason: Reason = Reason.NONE


def seen(status: Status, observed: Observation) -> Seen:
    """Read one line of a survey. Doubt changes nothing; only what the host saw with its own eyes does."""
    if status is S.STARTING and observed.process is Process.RUNNING and is_decided(observed):
        return Seen(S.RUNNING, "the terminal is up")
    if status is S.RUNNING and observed.process is Process.STOPPED:
        if not observed.present:
            return Seen(S.FAILED, "its folder is gone from the host", Reason.CLONE_MISSING)
        if observed.reason is Reason.CRASH_LOOP:
            return Seen(S.FAILED, "the terminal crashed again and again", Reason.CRASH_LOOP)
        return Seen(S.STARTING, "the terminal stopped; its host starts it again")
    return Seen(status)


class Verdict(StrEnum):
    """Whether a live terminal has proven that its broker lets it trade."""

    PROVEN = "proven"
    REFUSED = "refused"
    UNDECIDED = "undecided"


def verdict(observed: Observation, *, server: str, login: int, beat_after: float | None) -> Verdict:
    """Read the proof of a live terminal: journal and heartbeat must both say so, for this very account.

    ``beat_after`` is the Unix time that the heartbeat must be younger than; None waives the heartbeat.
    """
    if observed.connection is Connection.REFUSED or observed.refusal is not Refusal.NONE:
        return Verdict.REFUSED
    if observed.process is not Process.RUNNING or observed.connection is not Connection.CONNECTED:
        return Verdict.UNDECIDED
    if not observed.synchronized or observed.trading is not True:
        return Verdict.UNDECIDED
    if beat_after is None:
        return Verdict.PROVEN
    beat = observed.heartbeat or {}
    fresh = beat.get("at", 0.0) >= beat_after
    ours = (beat.get("login"), beat.get("server")) == (login, server)
    return Verdict.PROVEN if fresh and ours and beat.get("trade_allowed") is True else Verdict.UNDECIDED


def is_decided(observed: Observation) -> bool:
    """Whether a started terminal has shown what it is: let in, refused, or up without an account."""
    if observed.connection is Connection.NO_ACCOUNT:
        return True
    return observed.connection in {Connection.CONNECTED, Connection.REFUSED, Connection.LOST}
