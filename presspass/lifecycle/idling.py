"""One run of recycle_idle: customers are told first, then what is over ends, what is idle goes, and the line is served.

presspass decides, farm acts and has the last look. Any number of runs may go on at once: each row is taken by one of
them, and asked again in the moment it is taken. A row or batch that fails is noted and does not stop the rest.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from farm import clock
from farm import lifecycle as farm_lifecycle
from farm.models import Instance
from farm.states import Status
from presspass import idleness
from presspass.idleness import Verdict
from presspass.lifecycle import looking, runs, warning

BATCH = looking.BATCH
WHO = "recycle_idle"
WHO_ENDS = "press_pass_end"
WHY_ENDS = "its days are over"

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Summary:
    older_than_hours: float
    dry_run: bool
    looked_at: int = 0
    warned: list[dict[str, Any]] = field(default_factory=list)
    """Who is told, by instance: of being recycled or of the end, and the moment that they are told."""
    over: list[int] = field(default_factory=list)
    """Found with their days over, whether or not then ended."""
    ended: list[int] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    """Found idle, whether or not then recycled."""
    recycled: list[int] = field(default_factory=list)
    spared: dict[str, int] = field(default_factory=dict)
    """How many had no activity of late, or no days left, and were left alone all the same, by why."""
    withdrawn: list[int] = field(default_factory=list)
    """Held slots that were not accepted in time."""
    served: list[dict[str, Any]] = field(default_factory=list)
    """In a dry run: who in line would get a slot, and whether it would only be held."""
    served_count: int = 0
    failed: list[int] = field(default_factory=list)
    """Rows that could not be judged or taken; the log says why."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def counts(self) -> dict[str, int]:
        lists = ("warned", "ended", "recycled", "withdrawn", "failed")
        return {name: len(getattr(self, name)) for name in lists} | {"served": self.served_count}


def recycle_idle(*, older_than: timedelta, dry_run: bool = False, limit: int | None = None) -> Summary:
    """Do all that is due now; recycle at most ``limit`` terminals that had no activity for ``older_than``."""
    summary = Summary(older_than_hours=older_than.total_seconds() / 3600, dry_run=dry_run)
    if not dry_run:
        runs.begin(WHO)
    spared: Counter[str] = Counter()
    _tell(summary)
    _end(summary, spared)
    _recycle(summary, spared, older_than=older_than, limit=limit)
    _serve(summary)
    summary.spared = dict(sorted(spared.items()))
    if not dry_run:
        runs.finish(WHO, summary.counts())
    return summary


# --- told -------------------------------------------------------------------------------------------------------------


def _tell(summary: Summary) -> None:
    if not summary.dry_run:
        while farm_lifecycle.reckon_ends(limit=BATCH) == BATCH:
            pass
    for told in (warning.tell_of_end, warning.tell_of_idleness):
        try:
            summary.warned += told(dry_run=summary.dry_run, failed=summary.failed)
        except Exception:
            log.exception("customers could not be warned")


# --- over -------------------------------------------------------------------------------------------------------------


def _end(summary: Summary, spared: Counter[str]) -> None:
    now = clock.now()
    for rows in looking.batches(looking.over(now=now), "ends_at"):
        found = []
        for row in rows:
            verdict = _judged(row, lambda its: idleness.over(its, now=now), summary)
            if verdict is Verdict.OVER:
                found.append(row)
            elif verdict is not None:
                spared[verdict.value] += 1
        summary.over += [row.pk for row in found]
        if not summary.dry_run:
            held = [row.pk for row in found if row.status != Status.WAITING]
            summary.ended += _taken(held, _ended, summary)
            summary.ended += [row.pk for row in found if row.status == Status.WAITING and _left_line(row, summary)]


def _ended(ids: Sequence[int]) -> list[int]:
    return farm_lifecycle.end_over(ids, why=WHY_ENDS, who=WHO_ENDS)


def _left_line(row: Instance, summary: Summary) -> bool:
    try:
        farm_lifecycle.end(row.pk, why=WHY_ENDS, who=WHO_ENDS)
    except Exception:
        log.exception("one in line could not be ended", extra={"instance": row.pk})
        summary.failed.append(row.pk)
        return False
    return True


# --- idle -------------------------------------------------------------------------------------------------------------


def _recycle(summary: Summary, spared: Counter[str], *, older_than: timedelta, limit: int | None) -> None:
    now = clock.now()
    fresh = timedelta(seconds=settings.SURVEY_FRESH_SECONDS)
    unknown = looking.unknown().count()
    if unknown:
        spared[Verdict.ACTIVITY_UNKNOWN.value] += unknown
        summary.looked_at += unknown
    for rows in looking.batches(looking.quiet(since=now - older_than, now=now), "activity_at", size=BATCH):
        summary.looked_at += len(rows)
        idle = []
        for row in rows:
            verdict = _judged(
                row,
                lambda its: idleness.judged(its, now=now, idle_after=older_than, host_fresh=fresh),
                summary,
            )
            if verdict is Verdict.IDLE:
                idle.append(row.pk)
            elif verdict is not None:
                spared[verdict.value] += 1
        idle = idle[: None if limit is None else max(0, limit - len(summary.idle))]
        summary.idle += idle
        if not summary.dry_run:
            summary.recycled += _taken(idle, _Recycler(older_than, now - older_than), summary)
        if limit is not None and len(summary.idle) >= limit:
            break


@dataclass(frozen=True)
class _Recycler:
    older_than: timedelta
    idle_before: datetime

    def __call__(self, ids: Sequence[int]) -> list[int]:
        why = f"{self.older_than.total_seconds() / 3600:g} h without activity"
        return farm_lifecycle.recycle(ids, why=why, who=WHO, idle_before=self.idle_before)


# --- each batch, and the one row in it that fails ---------------------------------------------------------------------


def _judged(row: Instance, ask: Callable[[idleness.Known], Verdict | None], summary: Summary) -> Verdict | None:
    try:
        return ask(looking.known(row))
    except Exception:
        log.exception("a terminal could not be judged", extra={"instance": row.pk})
        summary.failed.append(row.pk)
        return None


def _taken(ids: list[int], take: Callable[[Sequence[int]], list[int]], summary: Summary) -> list[int]:
    """Take the batch; if that fails, one by one, so that only those fail that must."""
    if not ids:
        return []
    try:
        return take(ids)
    except Exception:
        log.exception("a batch failed, trying one by one", extra={"first": ids[0], "number": len(ids)})
    taken = []
    for pk in ids:
        try:
            taken += take([pk])
        except Exception:
            log.exception("a terminal could not be taken", extra={"instance": pk})
            summary.failed.append(pk)
    return taken


# --- the line ---------------------------------------------------------------------------------------------------------


def _serve(summary: Summary) -> None:
    """Slots held for a payment are left alone: what became of it is asked of Stripe first (billing.looking)."""
    if summary.dry_run:
        summary.withdrawn = farm_lifecycle.expired_offers()
        found = farm_lifecycle.foreseen(freed=len(summary.withdrawn))
        summary.served = [{"instance": pk, "held": held} for pk, held in found]
        summary.served_count = len(found)
        return
    try:
        summary.withdrawn = farm_lifecycle.withdraw_expired()
        summary.served_count = farm_lifecycle.admit()
    except Exception:
        log.exception("the line could not be served")
