"""When a Press Pass ends, why, and what keeps it."""

from __future__ import annotations

from datetime import datetime

from farm.models import Instance
from farm.states import Goal, Kind
from presspass import moments
from presspass.telling.facts import open_positions
from presspass.telling.situation import Situation


def ends(row: Instance, its: Situation) -> tuple[str, ...]:
    if row.kind != Kind.PRESS_PASS or row.goal == Goal.DESTROYED:
        return ()
    idle_at = row.activity_at + its.idle_after if row.activity_at and row.first_running_at else None
    days = f"{its.trial_days:g} days"
    if its.trial_ends_at is None:
        return (f"Free for {days}, counted from when it first runs.",)
    over = f"{moments.at_and_away(its.trial_ends_at, now=its.now, zone=its.zone)}"
    if idle_at is None or idle_at >= its.trial_ends_at or open_positions(row):
        keeps = ("An open position counts as activity.",) if open_positions(row) else ()
        return (f"Your Press Pass ends {over}: its {days} are over then.", *keeps)
    hours = f"{its.idle_after.total_seconds() / 3600:g} h"
    return (
        f"It ends {_idle(idle_at, its)}: that is {hours} without activity.",
        f"Opening this page, an order or an open position puts that off, until its {days} are over {over}.",
    )


def _idle(idle_at: datetime, its: Situation) -> str:
    return moments.at_and_away(max(idle_at, its.now), now=its.now, zone=its.zone).text
