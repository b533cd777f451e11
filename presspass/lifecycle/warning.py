"""Customers are told before their terminal goes: a Notice for each warning, once, in batches with one ring each."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F

from farm import clock, doorbell
from farm import lifecycle as farm_lifecycle
from farm.models import Instance
from presspass import idleness
from presspass.idleness import Verdict
from presspass.lifecycle import looking
from presspass.lifecycle.links import SEND_NOTICES
from presspass.models import Notice

TOLD_WHEN = frozenset({Verdict.IDLE, Verdict.HOST_SILENT, Verdict.POSITIONS_UNKNOWN})
"""Who may be recycled then is told, also while it is not known whether an open position will keep it."""

log = logging.getLogger(__name__)


def idle_after() -> timedelta:
    return timedelta(hours=settings.IDLE_HOURS)


def warned_before() -> timedelta:
    """How long before; at most half of the time that it takes, or it would come at once."""
    return min(timedelta(hours=settings.WARN_HOURS), idle_after() / 2)


# --- recycled soon ----------------------------------------------------------------------------------------------------


def tell_of_idleness(*, dry_run: bool, failed: list[int]) -> list[dict[str, Any]]:
    now = clock.now()
    rows = looking.going_quiet(after=now - idle_after(), since=now - idle_after() + warned_before())
    told = []
    for batch in looking.batches(rows, "activity_at"):
        due = [row for row in batch if _will_go(row, now=now, failed=failed)]
        if not dry_run:
            due = _noted_idle(due)
        told += [_said(row, "idle", row.activity_at + idle_after()) for row in due if row.activity_at]
    return told


def _will_go(row: Instance, *, now: datetime, failed: list[int]) -> bool:
    """Whether 24 h are soon over, and that is what ends it: not the end of its days, of which it is told besides."""
    try:
        its = looking.known(row)
        verdict = idleness.judged(
            its,
            now=now,
            idle_after=idle_after() - warned_before(),
            host_fresh=timedelta(seconds=settings.SURVEY_FRESH_SECONDS),
        )
    except Exception:
        log.exception("a terminal could not be judged", extra={"instance": row.pk})
        failed.append(row.pk)
        return False
    if its.activity_at is None or verdict not in TOLD_WHEN:
        return False
    return its.ends_at is None or its.ends_at > its.activity_at + idle_after()


@transaction.atomic
def _noted_idle(rows: list[Instance]) -> list[Instance]:
    """Those of ``rows`` that are still as they were read and were told by nobody else, now noted as told."""
    if not rows:
        return []
    same = Instance.objects.filter(pk__in=[row.pk for row in rows]).exclude(warned_idle_of=F("activity_at"))
    locked = same.select_for_update(skip_locked=True, no_key=True).order_by("pk")
    now_there = dict(locked.values_list("pk", "activity_at"))
    mine = [row for row in rows if row.activity_at is not None and now_there.get(row.pk) == row.activity_at]
    Notice.objects.bulk_create([_idle_notice(row) for row in mine], ignore_conflicts=True)
    Instance.objects.filter(pk__in=[row.pk for row in mine]).update(warned_idle_of=F("activity_at"))
    if mine:
        doorbell.ring_on_commit(SEND_NOTICES)
    return mine


def _idle_notice(row: Instance) -> Notice:
    as_of = row.activity_at.isoformat() if row.activity_at else ""
    return Notice(
        customer_id=row.customer_id,
        kind=Notice.Kind.IDLE_WARNING,
        about=f"{row.pk} {as_of}",
        data={"instance": row.pk, "as_of": as_of},
    )


# --- days soon over ---------------------------------------------------------------------------------------------------


def tell_of_end(*, dry_run: bool, failed: list[int]) -> list[dict[str, Any]]:
    now = clock.now()
    told = []
    for batch in looking.batches(looking.to_tell_of_end(now=now), "warn_end_at"):
        due = [row for row in batch if _is_told_of_end(row)]
        if not dry_run:
            due = _noted_end(due, now=now)
        told += [_said(row, "end", row.ends_at) for row in due if row.ends_at is not None and row.ends_at > now]
    return told


def _is_told_of_end(row: Instance) -> bool:
    its = looking.known(row)
    return not its.upgrading and not its.paid_for


@transaction.atomic
def _noted_end(rows: list[Instance], *, now: datetime) -> list[Instance]:
    if not rows:
        return []
    same = Instance.objects.filter(pk__in=[row.pk for row in rows])
    locked = same.select_for_update(skip_locked=True, no_key=True).order_by("pk")
    now_there = {pk: (warn, ends) for pk, warn, ends in locked.values_list("pk", "warn_end_at", "ends_at")}
    mine = [row for row in rows if now_there.get(row.pk) == (row.warn_end_at, row.ends_at)]
    Notice.objects.bulk_create(
        [_end_notice(row) for row in mine if row.ends_at is not None and row.ends_at > now], ignore_conflicts=True
    )
    for before in (*farm_lifecycle.TOLD_BEFORE, None):
        ids = [row.pk for row in mine if _next(row, now=now) == before]
        later = None if before is None else F("ends_at") - before
        if ids:
            Instance.objects.filter(pk__in=ids).update(warn_end_at=later)
    if mine:
        doorbell.ring_on_commit(SEND_NOTICES)
    return mine


def _next(row: Instance, *, now: datetime) -> timedelta | None:
    at = farm_lifecycle.next_warning(row.ends_at, after=now) if row.ends_at else None
    return row.ends_at - at if at is not None and row.ends_at is not None else None


def _end_notice(row: Instance) -> Notice:
    ends_at = row.ends_at.isoformat() if row.ends_at else ""
    return Notice(
        customer_id=row.customer_id,
        kind=Notice.Kind.END_WARNING,
        about=f"{row.pk} {ends_at} {row.warn_end_at:%d%H%M}",
        data={"instance": row.pk, "ends_at": ends_at},
    )


def _said(row: Instance, of: str, at: datetime | None) -> dict[str, Any]:
    return {"instance": row.pk, "of": of, "at": at.isoformat() if at else ""}
