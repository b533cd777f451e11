"""What a host answered to an order becomes the row's next status; answers to older orders become nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db import transaction

from farm import clock, errors, orders, ports, states
from farm.agent import protocol
from farm.lifecycle import keeping, living, moving
from farm.models import Host, Instance, Orphan
from farm.states import Goal, Process, Reason, Status, Verb

log = logging.getLogger(__name__)


def record(envelope: Mapping[str, Any]) -> bool:
    """Act on a host's report; False if it is about an order that is no longer the newest.

    Raise :class:`errors.Untrusted` if it is not signed by the host it names, or is about another host's instance.
    """
    host, body = orders.opened(envelope)
    try:
        report = protocol.Report.parse(body)
    except protocol.Malformed as error:
        raise errors.Untrusted(f"{host.name} sent a report that is none: {error}", host=host.name) from error
    with transaction.atomic():
        row = _row(host, report)
        if row is None:
            log.info("report on an orphan", extra={"instance": report.instance, "host": host.name})
            return False
        if report.verb is Verb.KEEP:
            keeping.note(row, report)
            return False
        if not _is_answer(row, report, epoch=host.epoch):
            log.info("late report", extra={"instance": row.pk, "host": host.name, "generation": report.generation})
            return False
        _apply(row, report, who=f"host:{host.name}")
    return True


def _row(host: Host, report: protocol.Report) -> Instance | None:
    """The row, locked; None if the report is about what no row accounts for, and that host is known to have."""
    try:
        row = moving.locked(report.instance)
    except Instance.DoesNotExist:
        row = None
    if row is None or row.host_id != host.pk:
        if Orphan.objects.filter(host=host, instance_number=report.instance).exists():
            return None
        why = f"{host.name} reports on instance {report.instance}, which is not on it."
        raise errors.Untrusted(why, host=host.name)
    return row


def _is_answer(row: Instance, report: protocol.Report, *, epoch: int) -> bool:
    newest = (report.epoch, report.generation) == (epoch, row.generation)
    return newest and states.VERBS.get(Status(row.status)) is report.verb


def _apply(row: Instance, report: protocol.Report, *, who: str) -> None:
    """Make of ``row``, which is locked, what the answer says; all of it or nothing."""
    if report.outcome is not protocol.Outcome.DONE:
        reason = report.reason or Reason.UNEXPECTED
        if reason is Reason.PORT_TAKEN and row.host is not None:
            with contextlib.suppress(errors.NoFreePort):  # it keeps the number, and is tried again with it
                ports.quarantine(row.host, row)
        moving.fail(row, reason, report.detail, who=who)
        return
    if report.observed is None:
        raise errors.Untrusted(f"{_claim(row, report)} and saw nothing of it.", host=report.host)
    if report.verb in {Verb.STOP, Verb.DESTROY} and report.observed.process is not Process.STOPPED:
        raise errors.Untrusted(f"{_claim(row, report)} while its process is not gone.", host=report.host)
    if report.verb is Verb.START and living.awaits_proof(row):
        _await_proof(row, report.observed, who=who)
        return
    to = states.after(report.verb, has_account=row.account_id is not None, goal=Goal(row.goal))
    changes = _observed(row, report.observed)
    if to is Status.RUNNING and row.first_running_at is None:
        changes["first_running_at"] = clock.now()
    # What staff and pages should know all the same: that a clone came up without its keepsake, for example.
    but = f"; {report.detail}" if report.detail else ""
    moving.move(row, to, why=f"{report.verb.value} done{but}", who=who, **changes)
    if to is Status.STOPPED:
        living.successors_go_on(row, who=who)
    elif to is Status.DESTROYED:
        living.gone(row, who=who)


def _claim(row: Instance, report: protocol.Report) -> str:
    return f"{report.host} calls the {report.verb.value} of instance {row.pk} done"


def _await_proof(row: Instance, observed: protocol.Observation, *, who: str) -> None:
    """The terminal is up; whether it may trade is proven now, or by a survey before the claim runs out."""
    changes = _observed(row, observed)
    if not living.judge(row, observed, changes, who=who):
        until = moving.soon(settings.READY_SECONDS)
        same = Instance.objects.filter(pk=row.pk, status=row.status, generation=row.generation)
        same.update(**changes, claimed_until=until, next_at=until)


def _observed(row: Instance, observed: protocol.Observation) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if observed.digest and observed.digest != row.digest:
        changes["digest"] = observed.digest[:128]
    if observed.process is Process.RUNNING:
        changes |= connection_of(row, observed)
    return changes


def connection_of(row: Instance, observed: protocol.Observation) -> dict[str, Any]:
    """The columns that change with what the journal says of the broker; empty when it says what the row knows."""
    now = {
        "connection": observed.connection,
        "refusal": observed.refusal,
        "refusal_text": observed.refusal_text[:200],
    }
    changes: dict[str, Any] = {name: value for name, value in now.items() if getattr(row, name) != value}
    if "connection" in changes:
        changes["connection_since"] = clock.now()
    return changes
