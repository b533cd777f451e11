"""A host's survey is compared with the rows it should hold; only what changed is written.

A constant number of statements for a host in which nothing moves, however many instances it holds. What it should show
and does not is a ghost: brought back, or put before staff (see :func:`_bury`). What it shows and should not is an
orphan (farm.lifecycle.orphans).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from farm import clock, doorbell, errors, leases, orders, states
from farm.agent import protocol
from farm.lifecycle import living, moving, orphans, watching
from farm.lifecycle.recording import connection_of
from farm.models import Host, Instance
from farm.states import Goal, Process, Reason, Status

log = logging.getLogger(__name__)

FACTS = ("account", "currency", "balance", "equity", "positions", "orders", "trade_allowed", "connected")
ACTIVITY_RESOLUTION = timedelta(minutes=1)
CLOCK_TOLERANCE = timedelta(minutes=1)
GHOST_AFTER = timedelta(seconds=15)
"""Two surveys in a row, so far apart, must lack an instance before anything is made of that."""


def record_survey(envelope: Mapping[str, Any]) -> None:
    """Take in what a host reports of itself and its instances. Raise :class:`errors.Untrusted` if it is not the host's.

    An older survey that arrives after a newer one changes nothing.
    """
    host, body = orders.opened(envelope)
    try:
        survey = protocol.Survey.parse(body)
    except protocol.Malformed as error:
        raise errors.Untrusted(f"{host.name} sent a survey that is none: {error}", host=host.name) from error
    sent = datetime.fromtimestamp(survey.sent_at, UTC)
    with transaction.atomic():
        rows = list(host.instances.exclude(status__in=[Status.WAITING, Status.DESTROYED]))
        _record_instances(host, survey, rows)
        missing, unwanted = _missing(host, survey, rows), _unwanted(host, survey, rows)
        _bury_ghosts(host, survey, rows, missing)
        orphans.note(host, survey, rows, sent=sent)
        # The host's row comes last, as everywhere: who reports on an instance of it at this moment holds that one.
        if not _record_host(host, survey, sent, {"missing": missing, "unwanted": unwanted}):
            transaction.set_rollback(True)


def _record_host(
    host: Host, survey: protocol.Survey, sent: datetime, differs: Mapping[str, Mapping[str, float]]
) -> bool:
    """False if a newer survey came meanwhile."""
    now = clock.now()
    silent_since = now - timedelta(seconds=settings.SURVEY_FRESH_SECONDS)
    was_silent = host.surveyed_at is None or host.surveyed_at < silent_since
    mended = survey.master_ok and not host.master_ok
    changes = {
        "surveyed_at": now,
        "survey_sent_at": sent,
        "boot_id": survey.boot_id[:64],
        "agent": survey.agent[:32],
        "master_ok": survey.master_ok,
        "master_reason": survey.master_reason[:200],
        "master_digest": survey.master_digest[:128],
        "servers": survey.servers,
        "load": {**survey.load, "pool": survey.pool, "lease_left": survey.lease_left, **differs}
        | {"since_boot": survey.since_boot},
        "said_policy": survey.policy.value,
        "watchdog_ok": survey.watchdog_ok is True,
        "clock_off_seconds": round((sent - now).total_seconds(), 1),
    }
    if not Host.objects.filter(_is_older(survey, sent, now), pk=host.pk).update(**changes):
        return False
    _mind_a_changed_policy(host, survey)
    if mended:
        waiting_for_it = Instance.objects.filter(host=host, status=Status.FAILED)
        waiting_for_it.filter(reason__in=states.RETRIED_UNTIL_MENDED).update(next_at=now)
    if was_silent:
        watching.note_back(host)
    if was_silent or mended:
        doorbell.ring_on_commit(doorbell.SWEEP)
        doorbell.ring_on_commit(doorbell.ADMIT)
    return True


def _is_older(survey: protocol.Survey, sent: datetime, now: datetime) -> Q:
    """Whether what the host's row shows is older than ``survey``; one that somebody plays again must not count.

    Within one boot by the clock that nobody sets, so that a host is heard whose wall clock was set back. Of two boots
    by the wall's clock; there one that ran ahead and is right now must not make the host silent until its old time
    comes again.
    """
    by_wall = Q(survey_sent_at__isnull=True) | Q(survey_sent_at__lt=sent)
    if not survey.since_boot:
        return by_wall
    same_boot = Q(boot_id=survey.boot_id[:64], load__since_boot__isnull=False)
    if abs(sent - now) <= CLOCK_TOLERANCE:
        by_wall |= Q(survey_sent_at__gt=now + CLOCK_TOLERANCE)
    return same_boot & Q(load__since_boot__lt=survey.since_boot) | ~same_boot & by_wall


def _mind_a_changed_policy(host: Host, survey: protocol.Survey) -> None:
    """Static until now: what it started as such no lease of before ever bound. Its fence begins with its next lease."""
    if host.said_policy != Host.Policy.STATIC or survey.policy is protocol.Policy.STATIC or host.fenced_until is None:
        return
    if leases.is_past(host, leases.earlier_now()):
        Host.objects.filter(pk=host.pk, fenced_until=host.fenced_until).update(fenced_until=None)


def _record_instances(host: Host, survey: protocol.Survey, rows: Sequence[Instance]) -> None:
    lines = {line.instance: line for line in survey.instances}
    stirring = [row for row in rows if _stirs(row, _line(row, lines, host))]
    if not stirring:
        return
    written: dict[tuple[str, ...], list[Instance]] = {}
    for row in _locked(stirring):
        line = _line(row, lines, host)
        changes = _changes(row, line) if line is not None else None
        if line is None or changes is None:
            continue
        if not _moved(row, line, changes, who=f"host:{host.name}") and changes:
            for name, value in changes.items():
                setattr(row, name, value)
            written.setdefault(tuple(sorted(changes)), []).append(row)
    # By what changed: a statement's cost is its rows times its columns, and mostly it is the heartbeat alone.
    for columns, alike in written.items():
        Instance.objects.bulk_update(alike, columns, batch_size=500)


# --- ghosts -----------------------------------------------------------------------------------------------------------


def _missing(host: Host, survey: protocol.Survey, rows: Iterable[Instance]) -> dict[str, float]:
    """The instances that should run and that the survey does not know at all, with when a survey first lacked them.

    The last survey's are at hand in the host's row. A host that was given up, or that lost its master as well, lacks
    its instances for a reason of its own: nothing is concluded from that.
    """
    if host.lost_at is not None or not survey.master_ok:
        return {}
    said = {line.instance for line in survey.instances}
    now = clock.now()
    last = host.load.get("missing", {})
    missing = {}
    for row in rows:
        if row.pk not in said and _should_run(row, now):
            since = last.get(str(row.pk), now.timestamp())
            # What was lacking before it became what it is now, was rightly so.
            missing[str(row.pk)] = since if since >= row.status_since.timestamp() else now.timestamp()
    return missing


def _unwanted(host: Host, survey: protocol.Survey, rows: Iterable[Instance]) -> dict[str, float]:
    """The stopped instances that run all the same, with when a survey first showed that: staff are told."""
    lines = {line.instance: line for line in survey.instances}
    now, last = clock.now(), host.load.get("unwanted", {})
    return {
        str(row.pk): last.get(str(row.pk), now.timestamp())
        for row in rows
        if row.status == Status.STOPPED and not _is_ordered(row, now)
        if (line := _line(row, lines, host)) is not None and line.process is Process.RUNNING
    }


def _should_run(row: Instance, now: datetime) -> bool:
    wanted = row.goal == Goal.RUNNING and row.status in {Status.STARTING, Status.RUNNING}
    return wanted and not _is_ordered(row, now)


def _is_ordered(row: Instance, now: datetime) -> bool:
    return row.claimed_until is not None and row.claimed_until > now


def _bury_ghosts(host: Host, survey: protocol.Survey, rows: Iterable[Instance], missing: Mapping[str, float]) -> None:
    before = (clock.now() - GHOST_AFTER).timestamp()
    ghosts = [row for row in rows if missing.get(str(row.pk), math.inf) <= before]
    for row in _locked(ghosts) if ghosts else []:
        if not _should_run(row, clock.now()):
            continue
        try:
            _bury(row, survey, who=f"host:{host.name}")
        except Exception:
            log.exception("a ghost could not be followed", extra={"instance": row.pk})


def _bury(row: Instance, survey: protocol.Survey, *, who: str) -> None:
    """The host knows nothing of it. Only if nothing of it stands there is it surely not running, and made anew."""
    if row.folder in survey.strangers or protocol.unreadable_state(row.pk) in survey.strangers:
        detail = f"{row.folder} stands on its host, which does not know any more what it is"
        moving.fail(row, Reason.FORGOTTEN, detail, who=who)
    else:
        moving.fail(row, Reason.CLONE_MISSING, "its host knows nothing of it", who=who)


# --- lines ------------------------------------------------------------------------------------------------------------


def _line(row: Instance, lines: Mapping[int, protocol.Observation], host: Host) -> protocol.Observation | None:
    """What the survey says of the row; None if that is nothing, of an older order, or of another's folder."""
    line = lines.get(row.pk)
    if line is None or line.folder != row.folder:  # a number that was given twice, by a restored database
        return None
    if line.epoch == host.epoch:
        return line if line.generation == row.generation else None
    return line if line.epoch < host.epoch and _goes_on(row, line) else None


def _goes_on(row: Instance, line: protocol.Observation) -> bool:
    """Whether a line of before a restore still tells of the row: its host was told nothing new of it since.

    The host may have been told more before than the restored row knows.
    """
    return not _is_ordered(row, clock.now()) and line.generation >= row.generation


def _stirs(row: Instance, line: protocol.Observation | None) -> bool:
    """Whether there may be anything to write: asked without a lock, and again with it."""
    if line is None:
        return False
    wanted = row.goal == Goal.RUNNING and row.status in {Status.STARTING, Status.RUNNING}
    moves = wanted and (living.awaits_proof(row) or states.seen(Status(row.status), line).status != row.status)
    return moves or bool(_changes(row, line))


def _locked(rows: Sequence[Instance]) -> list[Instance]:
    """The rows as they are now, in the order in which all locks are taken, with what the unproven ones replace."""
    wanted = {row.pk for row in rows}
    replaced = {row.replaces_id for row in rows if row.replaces_id is not None and living.awaits_proof(row)}
    both = Instance.objects.filter(pk__in=wanted | replaced).order_by("pk")
    list(both.select_for_update(no_key=True).values_list("pk", flat=True))
    return list(Instance.objects.filter(pk__in=wanted).select_related("account", "replaces__account").order_by("pk"))


def _moved(row: Instance, line: protocol.Observation, changes: dict[str, Any], *, who: str) -> bool:
    """Whether what the host saw made another status of ``row``, which is locked. One poisonous row stops no other."""
    if row.goal != Goal.RUNNING or row.status not in {Status.STARTING, Status.RUNNING}:
        return False
    try:
        if living.awaits_proof(row):
            return line.process is Process.RUNNING and living.judge(row, line, changes, who=who)
        if row.generation < line.generation and line.process is Process.STOPPED and row.status == Status.RUNNING:
            # Told to stop it, or to destroy it, in the time that the restored database lacks: nobody knows why.
            detail = "its host was told to end it, and the restored database does not know that"
            moving.fail(row, Reason.FORGOTTEN, detail, who=who)
            return True
        return _follow(row, states.seen(Status(row.status), line), changes, who=who)
    except Exception:
        log.exception("a line of a survey could not be followed", extra={"instance": row.pk})
        return True


def _follow(row: Instance, found: states.Seen, changes: dict[str, Any], *, who: str) -> bool:
    if found.status == row.status:
        return False
    if found.status is Status.FAILED:
        moving.fail(row, found.reason, found.why, who=who)
    elif found.status is Status.STARTING:
        # The host starts it again by itself, under the order it has: no new one is due unless that takes too long.
        later = moving.soon(settings.READY_SECONDS)
        moving.move(
            row, found.status, why=found.why, who=who, generation=row.generation, next_at=later, claimed_until=later
        )
    else:
        first = {} if row.first_running_at else {"first_running_at": clock.now()}
        moving.move(row, found.status, why=found.why, who=who, **changes, **first)
    return True


def _changes(row: Instance, line: protocol.Observation) -> dict[str, Any] | None:
    """The columns that this line of the survey changes; None if it cannot be read."""
    try:
        return _read(row, line)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        log.warning("unreadable line in a survey", extra={"instance": row.pk, "error": type(error).__name__})
        return None


def _read(row: Instance, line: protocol.Observation) -> dict[str, Any]:
    """Connection is written at once, heartbeat and activity at a resolution."""
    changes: dict[str, Any] = {}
    if line.process is Process.RUNNING:
        changes |= connection_of(row, line)
    beat = line.heartbeat
    if beat is not None and "at" in beat:
        facts = {name: beat.get(name) for name in FACTS if name in beat}
        at = _moment(beat["at"])
        stale = row.heartbeat_at is None or at - row.heartbeat_at >= timedelta(
            seconds=settings.HEARTBEAT_RESOLUTION_SECONDS
        )
        if facts != row.facts or stale:
            changes |= {"facts": facts, "heartbeat_at": at}
    active = _activity(line)
    if active is not None and (row.activity_at is None or active - row.activity_at >= ACTIVITY_RESOLUTION):
        changes["activity_at"] = active
    if line.digest and line.digest != row.digest:
        changes["digest"] = line.digest[:128]
    return changes


def _activity(line: protocol.Observation) -> datetime | None:
    beat = line.heartbeat or {}
    if beat.get("positions") or beat.get("orders"):
        return clock.now()
    times = [at for at in (line.activity_at, beat.get("last_order_at")) if at is not None]
    return _moment(max(times)) if times else None


def _moment(seconds: float) -> datetime:
    """A host's time, never later than ours: a clock that runs ahead must not make a terminal look alive for longer."""
    return min(datetime.fromtimestamp(seconds, UTC), clock.now())
