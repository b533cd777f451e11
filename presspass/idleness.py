"""Whether a Press Pass terminal is idle, or its days are over: pure answers from what is known and the clock. Doubt
means no.

A heartbeat is a sign of life, never activity; what counts stands in ``activity_at`` (requests, commands, orders) and in
the number of open positions. Activity is noted at most once a minute, so ``activity_at`` may be that much too early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from farm.models import Instance
from farm.states import Connection, Goal, Kind, Status

FRESH_FACTS = timedelta(minutes=5)
"""Older than this, what the bridge said of positions is not known to hold."""
RESOLUTION = timedelta(minutes=1)
"""How exactly activity is noted."""


class Verdict(StrEnum):
    IDLE = "idle"
    OVER = "days over"
    LIVE = "live account"
    PAID_FOR = "paid for"
    UPGRADING = "going live"
    IN_MOTION = "in motion"
    ACTIVE = "active lately"
    POSITIONS_OPEN = "positions open"
    ACTIVITY_UNKNOWN = "activity unknown"
    HOST_SILENT = "host silent"
    POSITIONS_UNKNOWN = "positions unknown"


@dataclass(frozen=True, kw_only=True)
class Known:
    kind: str
    status: str
    goal: str
    connection: str
    step_due: bool
    has_account: bool
    activity_at: datetime | None
    heartbeat_at: datetime | None
    open_positions: int | None
    """None: the bridge has not said."""
    host_heard_at: datetime | None
    ends_at: datetime | None = None
    """When the days of its Press Pass are over; None: they have not begun."""
    upgrading: bool = False
    """A live terminal is on its way that replaces it."""
    paid_for: bool = False
    """Its customer has a plan: what runs, runs until the live terminal does."""


def known(row: Instance, *, upgrading: bool = False, paid_for: bool = False) -> Known:
    """No query if ``host`` was selected with the row. Raise ``TypeError`` if the row's facts are none."""
    if not isinstance(row.facts, dict):
        raise TypeError(f"the facts of instance {row.pk} are not a mapping")
    positions = row.facts.get("positions")
    return Known(
        kind=row.kind,
        status=row.status,
        goal=row.goal,
        connection=row.connection,
        step_due=row.next_at is not None or row.claimed_until is not None,
        has_account=row.account_id is not None,
        activity_at=row.activity_at,
        heartbeat_at=row.heartbeat_at,
        open_positions=positions if type(positions) is int else None,
        host_heard_at=row.host.surveyed_at if row.host else None,
        ends_at=row.ends_at,
        upgrading=upgrading,
        paid_for=paid_for,
    )


def judged(its: Known, *, now: datetime, idle_after: timedelta, host_fresh: timedelta) -> Verdict:
    """The first thing that speaks against recycling it, or ``IDLE``."""
    if its.kind != Kind.PRESS_PASS:
        return Verdict.LIVE
    if its.paid_for or its.upgrading:
        return Verdict.PAID_FOR if its.paid_for else Verdict.UPGRADING
    if its.status != Status.RUNNING or its.goal != Goal.RUNNING or its.step_due:
        return Verdict.IN_MOTION
    if its.activity_at is None:
        return Verdict.ACTIVITY_UNKNOWN
    if now - its.activity_at < idle_after:
        return Verdict.ACTIVE
    if its.host_heard_at is None or now - its.host_heard_at > host_fresh:
        return Verdict.HOST_SILENT
    return _by_positions(its, now=now)


def _by_positions(its: Known, *, now: datetime) -> Verdict:
    if its.open_positions:
        return Verdict.POSITIONS_OPEN
    if not its.has_account and its.connection == Connection.NO_ACCOUNT:
        return Verdict.IDLE  # without an account nothing can be open
    if its.open_positions is None or its.heartbeat_at is None or now - its.heartbeat_at > FRESH_FACTS:
        return Verdict.POSITIONS_UNKNOWN
    return Verdict.IDLE


def over(its: Known, *, now: datetime) -> Verdict | None:
    """``OVER`` if its days are, whatever it does; else what speaks against ending it, or None: they go on."""
    if its.kind != Kind.PRESS_PASS:
        return Verdict.LIVE
    if its.ends_at is None or its.ends_at > now:
        return None
    if its.paid_for or its.upgrading:
        return Verdict.PAID_FOR if its.paid_for else Verdict.UPGRADING
    return Verdict.OVER


def recycled_at(its: Known, *, idle_after: timedelta) -> datetime | None:
    """When it goes if nothing happens until then; None while nothing is known to go by."""
    idle_at = its.activity_at + idle_after if its.activity_at else None
    return min((at for at in (idle_at, its.ends_at) if at is not None), default=None)


WHY_NOT: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.LIVE: "it runs the customer's own account",
        Verdict.PAID_FOR: "its customer has a plan",
        Verdict.UPGRADING: "a live terminal is on its way that replaces it",
        Verdict.IN_MOTION: "it is not running, or just moving",
        Verdict.ACTIVITY_UNKNOWN: "no activity of it is known, and unknown is not idle",
        Verdict.HOST_SILENT: "its host is silent, so nothing newer is known of it",
        Verdict.POSITIONS_OPEN: "it has open positions",
        Verdict.POSITIONS_UNKNOWN: "whether it has open positions is not known",
    }
)


def evidence(its: Known, *, now: datetime, idle_after: timedelta, host_fresh: timedelta) -> str:
    """For staff: when it would be recycled, because of what, and what speaks against it now."""
    if its.kind != Kind.PRESS_PASS:
        return "Never: it is live."
    at = recycled_at(its, idle_after=idle_after)
    if at is None:
        return f"Not to be said: {WHY_NOT[Verdict.ACTIVITY_UNKNOWN]}."
    days_end = at == its.ends_at
    because = "its days are over then" if days_end else f"the last activity was {its.activity_at:{_FORM}}"
    lines = [f"Would be {'ended' if days_end else 'recycled'} at {at:{_FORM}}, because {because}."]
    against = over(its, now=now) if days_end else judged(its, now=now, idle_after=idle_after, host_fresh=host_fresh)
    if against is not None and against in WHY_NOT:
        lines.append(f"Not now, because {WHY_NOT[against]}.")
    lines.append(f"Activity is noted at most once in {RESOLUTION.total_seconds():g} s; a heartbeat is none.")
    return " ".join(lines)


_FORM = "%Y-%m-%d %H:%M:%S UTC"
