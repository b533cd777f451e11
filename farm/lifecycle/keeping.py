"""What the customer made goes along: asked of the old instance, waited for a little, given to the new one's host."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from farm import clock, doorbell, keepsakes, orders
from farm.agent.protocol import Report
from farm.lifecycle import moving
from farm.models import Instance, Ticket
from farm.states import Kind, Status, Verb

TRIES = 3
"""So many failures a destroy may have before it is done without a keepsake."""
BATCH = 50
ASKABLE = frozenset({Status.RUNNING, Status.STOPPED})
"""No order is out for such an instance, so the number it has is the one that its host knows."""

log = logging.getLogger(__name__)


def address_for(row: Instance, verb: Verb) -> str:
    """The one-time address that belongs into the order for ``verb``; "" where no keepsake is wanted."""
    if verb is Verb.CLONE and keepsakes.is_kept(row.customer_id):
        return keepsakes.issue(row, Ticket.Direction.GET)
    if verb is Verb.DESTROY and _leaves_one(row):
        return keepsakes.issue(row, Ticket.Direction.PUT)
    return ""


def _leaves_one(row: Instance) -> bool:
    """Whether a keepsake of ``row`` is of use: somebody worked in it, and no other one goes on from there."""
    if row.first_running_at is None or row.attempts >= TRIES:
        return False
    if moving.was_lost(row) and row.replaced_by.filter(first_running_at__isnull=False).exists():
        return False
    return row.kind == Kind.PRESS_PASS or not row.replaced_by.filter(status=Status.RUNNING).exists()


# --- while it runs ---------------------------------------------------------------------------------------------------


def fetch_keepsakes() -> int:
    """Have the keepsakes of running live terminals fetched whose last is old: should their host be lost, there is one.

    Return how many hosts were rung for. What comes of it is :func:`accept_keepsake`'s; what does not come is asked for
    the next time.
    """
    now, every = clock.now(), timedelta(hours=settings.KEEPSAKE_EVERY_HOURS)
    if not every:
        return 0
    due = Instance.objects.filter(keep_due_at__lte=now, status=Status.RUNNING, host__lost_at__isnull=True)
    due = due.filter(host__surveyed_at__gte=now - timedelta(seconds=settings.SURVEY_FRESH_SECONDS))
    with transaction.atomic():
        mine = due.select_for_update(skip_locked=True, no_key=True, of=("self",)).order_by("keep_due_at")
        batch = list(mine.values_list("pk", flat=True)[:BATCH])
        Instance.objects.filter(pk__in=batch).update(keep_due_at=now + every)
    for pk in batch:
        doorbell.ring(doorbell.KEEP, pk)
    return len(batch)


# --- before a clone is made ------------------------------------------------------------------------------------------


def ask_first(row: Instance) -> None:
    """Have the keepsake of the instance that ``row`` replaces fetched; :func:`awaited_until` waits for it."""
    if _asked_of(row) is not None:
        doorbell.ring_on_commit(doorbell.KEEP, row.replaces_id)


def _asked_of(row: Instance) -> Instance | None:
    """The old instance, if its host can be asked now."""
    old = row.replaces
    if settings.KEEPSAKE_WAIT_SECONDS <= 0 or old is None or old.status not in ASKABLE or old.host is None:
        return None
    heard = old.host.surveyed_at
    return old if heard is not None and heard >= moving.soon(-settings.SURVEY_FRESH_SECONDS) else None


def awaited_until(row: Instance) -> datetime | None:
    """Until when the first order of ``row`` waits for the old instance's keepsake; None if it waits no longer."""
    if row.status != Status.REQUESTED or row.generation != 1:
        return None
    until = row.status_since + timedelta(seconds=settings.KEEPSAKE_WAIT_SECONDS)
    old = _asked_of(row) if clock.now() < until else None
    if old is None or keepsakes.is_settled(old.pk, since=row.status_since):
        return None
    return until


def ask_for_keepsake(instance_id: int) -> orders.Letter | None:
    """The order to send the instance's keepsake; None if it is just on its way to something else.

    It changes nothing, so it takes no number and no claim: answered or not, the row is as it was.
    """
    with transaction.atomic():
        rows = Instance.objects.select_related("host", "account", "port")
        row = rows.filter(pk=instance_id, status__in=ASKABLE).first()
        if row is None:
            return None
        address = keepsakes.issue(row, Ticket.Direction.PUT)
    return orders.letter(row, Verb.KEEP, password=None, keepsake=address)


@transaction.atomic
def accept_keepsake(token: str, data: bytes, *, digest: str) -> None:
    """Keep what a host brought with its ticket, and let go on who waits for it. Raises :class:`errors.Refused`."""
    _let_go_on(keepsakes.accept(token, data, digest=digest))


def note(row: Instance, report: Report) -> None:
    """A host's word on a keep, which is no step of the row. Nobody waits any longer for one that will not come."""
    about = {"instance": row.pk, "outcome": report.outcome.value, "reason": report.reason.value}
    log.info("keepsake", extra={**about, "detail": report.detail})
    if report.reason and row.status in ASKABLE and keepsakes.withdraw(row.pk):
        _let_go_on(row.pk)


def _let_go_on(old_id: int) -> None:
    waiting = Instance.objects.filter(replaces_id=old_id, status=Status.REQUESTED, claimed_until__isnull=True)
    for pk in waiting.values_list("pk", flat=True):
        doorbell.ring_on_commit(doorbell.DISPATCH, pk)
    waiting.update(next_at=clock.now())
