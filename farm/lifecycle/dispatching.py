"""A row with a step due is claimed, and its order written. The caller sends it after the transaction is over."""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from farm import clock, errors, orders, states, vault
from farm.lifecycle import keeping, living, moving, restoring
from farm.models import Instance, Transition
from farm.states import VERBS, Connection, Kind, Reason, Refusal, Status

log = logging.getLogger(__name__)


def claim(instance_id: int) -> orders.Letter | None:
    """Take the instance's due step; None if there is none, or somebody has it.

    From here on the answer to this one order counts and no earlier one's; if none comes until ``claimed_until``, the
    sweep rings and the order is written anew.
    """
    try:
        with transaction.atomic():
            row = _claimed(instance_id)
            return None if row is None else _written(row)
    except errors.ClaimLost:
        return None
    except Exception as error:
        log.exception("an order could not be written", extra={"instance": instance_id})
        _count_failure(instance_id, type(error).__name__)
        return None


def _written(row: Instance) -> orders.Letter:
    verb = VERBS[Status(row.status)]
    password = vault.settle(row.account) if row.account and row.status == Status.INJECTING else None
    return orders.letter(row, verb, password=password, keepsake=keeping.address_for(row, verb))


@transaction.atomic
def _count_failure(instance_id: int, error: str) -> None:
    """Without an order there will be no answer: the row is tried again later, and in the end stands before staff."""
    row = moving.locked(instance_id)
    if row.status in states.IN_MOTION:
        moving.fail(row, Reason.UNEXPECTED, f"its order could not be written: {error}", who="portal")


def put_back(letter: orders.Letter) -> None:
    """The broker did not take the order: its claim ends now instead of when nobody answers."""
    soon = moving.soon(settings.RETRY_FIRST_SECONDS)
    same = Instance.objects.filter(pk=letter.instance, generation=letter.generation, claimed_until__isnull=False)
    same.update(claimed_until=None, next_at=soon)


def _claimed(instance_id: int) -> Instance | None:
    now = clock.now()
    unclaimed = Instance.objects.filter(Q(claimed_until__isnull=True) | Q(claimed_until__lte=now), pk=instance_id)
    due = unclaimed.filter(status__in=states.IN_MOTION, next_at__isnull=False)
    # A host that was given up is told to destroy, and nothing else: what it has comes up elsewhere.
    due = due.exclude(~Q(status=Status.DESTROYING), host__lost_at__isnull=False)
    row = due.select_related("account").first()
    if row is None or _must_wait(row) or _gave_up(row):
        return None
    status = Status.CLONING if row.status == Status.REQUESTED else Status(row.status)
    until = moving.soon(settings.READY_SECONDS if status is Status.STARTING else settings.CLAIM_SECONDS)
    changes = {"generation": F("generation") + 1, "claimed_until": until, "next_at": until, "attempts": row.attempts}
    if status != row.status:
        changes |= {"status": status, "status_since": now}
    if unclaimed.filter(status=row.status, generation=row.generation).update(**changes) != 1:
        return None
    if status != row.status:
        # In bulk, which sends no signal: the step that this status makes due is the one being taken.
        Transition.objects.bulk_create(
            [Transition(instance=row, at=now, was=row.status, became=status, why="told the host", who="portal")]
        )
    return Instance.objects.select_related("host", "account", "port").get(pk=row.pk)


def _must_wait(row: Instance) -> bool:
    """Put a live one off: its clone until the old one's keepsake came, its login while its broker is given a pause.

    And the start of any while it is not known what else runs its account.
    """
    if row.kind != Kind.LIVE:
        return False
    until = keeping.awaited_until(row)
    if row.status in {Status.INJECTING, Status.STARTING} and (restoring.is_unclear() or vault.is_haunted(row)):
        until = moving.soon(settings.CLAIM_SECONDS)
    if row.status == Status.INJECTING and row.account is not None and vault.is_paused(row.account.server):
        until = moving.soon(settings.CLAIM_SECONDS)
    if until is None:
        return False
    Instance.objects.filter(pk=row.pk, generation=row.generation).update(next_at=until)
    return True


def _gave_up(row: Instance) -> bool:
    """Count an order that nobody answered; after too many in a row the instance stands as failed before staff."""
    if row.claimed_until is None:
        return False
    if living.awaits_proof(row) and row.connection != Connection.UNKNOWN:
        living.refuse(row, Refusal.NO_ANSWER, "", who="portal")
        return True
    row.attempts += 1
    if row.attempts < settings.RETRY_ATTEMPTS:
        return False
    moving.fail(row, Reason.TOO_SLOW, f"no answer to {row.attempts} orders in a row", who="portal")
    return True
