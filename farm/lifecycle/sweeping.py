"""Whatever has a step due is rung for, whoever forgot it; and the line is served when a slot is free.

Nothing here depends on a message having arrived. Its cost follows the rows with a step due, not the rows at rest.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import groupby

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from farm import clock, doorbell, placement, states
from farm.lifecycle import line, moving
from farm.lifecycle.asking import in_line
from farm.models import Instance
from farm.states import Goal, Kind, Status

BATCH = 500
WHY_AGAIN = {Status.FAILED: "trying again", Status.LOST: "its machine is back"}

log = logging.getLogger(__name__)


def sweep() -> int:
    """Ring for every row whose step is due and whose host is there to take it; return how many were rung for."""
    _retry_failed()
    rung = 0
    while True:
        due = _take_due()
        for pk in due:
            doorbell.ring(doorbell.DISPATCH, pk)
        rung += len(due)
        if len(due) < BATCH:
            return rung


def _fresh() -> Q:
    """Only hosts that speak are told anything: orders for the others would pile up in their queues."""
    return Q(host__surveyed_at__gte=clock.now() - timedelta(seconds=settings.SURVEY_FRESH_SECONDS))


def _take_due() -> list[int]:
    """The next batch of due rows, put off in the same transaction so that no other sweep rings for them as well."""
    now = clock.now()
    with transaction.atomic():
        due = list(
            Instance.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(_fresh(), next_at__lte=now, status__in=states.IN_MOTION)
            .order_by("next_at")
            .values_list("pk", flat=True)[:BATCH]
        )
        again = now + timedelta(seconds=settings.RING_AGAIN_SECONDS)
        Instance.objects.filter(pk__in=due).update(next_at=again)
    return due


def _retry_failed() -> None:
    """A lost one goes the same way: its host speaks again, and is told to destroy it."""
    due = Instance.objects.filter(_fresh(), status__in=WHY_AGAIN, next_at__lte=clock.now())
    for (status, goal), rows in groupby(due.order_by("status", "goal")[:BATCH], key=lambda row: (row.status, row.goal)):
        moving.move_many(list(rows), states.retried_as(Goal(goal)), why=WHY_AGAIN[Status(status)], who="sweep")


def admit() -> int:
    """Give free slots to those in line, the longest-waiting first; return how many got one."""
    admitted, all_were = _admit(in_line())
    if not all_were and placement.candidates():  # what lacks is a demo account: of the others nobody waits for that
        admitted += _admit(in_line().exclude(kind=Kind.PRESS_PASS, account__isnull=True))[0]
    return admitted


def _admit(rows: QuerySet[Instance]) -> tuple[int, bool]:
    """How many got a slot, and whether nobody was left without."""
    admitted = 0
    for pk in rows.values_list("pk", flat=True)[:BATCH]:
        try:
            served = _serve(pk)
        except Exception:
            log.exception("one in line could not be placed", extra={"instance": pk})
            continue
        if served is None:
            continue
        if not served:
            return admitted, False
        admitted += 1
    return admitted, True


@transaction.atomic
def _serve(instance_id: int) -> bool | None:
    """Give the row a slot; False if the farm has none, None if it stands in line no more."""
    row = moving.locked(instance_id)
    if row.status != Status.WAITING or row.host_id is not None:
        return None
    return line.serve(row, who="line")
