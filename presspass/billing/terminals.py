"""What the state of a payment means for a customer's live terminals; farm.lifecycle does it.

Each may be called again: what is so already is left. What cannot be done now (somebody else is just moving it) is
False, and the next look does it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from django.db import transaction

from farm import errors
from farm import lifecycle as farm_lifecycle
from farm.models import Instance
from farm.states import Goal, Kind, Status

log = logging.getLogger(__name__)

WHO = "payment"


def _live(customer_id: int) -> Iterable[Instance]:
    """All of a customer's live terminals that are not on their way out; a hold that is not paid for is none."""
    mine = Instance.objects.filter(customer_id=customer_id, kind=Kind.LIVE).exclude(goal=Goal.DESTROYED)
    return mine.exclude(status=Status.WAITING, held_until__isnull=False).order_by("-pk")


def _each(rows: Iterable[Instance], act: Callable[[Instance], None]) -> bool:
    done = True
    for row in list(rows):
        try:
            with transaction.atomic():
                act(row)
        except (errors.Refused, errors.ClaimLost) as error:
            log.info("a terminal does not follow its payment yet", extra={"instance": row.pk, "error": str(error)})
            done = False
    return done


def stop(customer_id: int, *, why: str) -> bool:
    """Stop what was proven, with care, its clone kept; end what was still on its way."""
    return _each(_live(customer_id), lambda row: _stop(row, why))


def _stop(row: Instance, why: str) -> None:
    if row.proven_at is None or row.status == Status.LOST:
        farm_lifecycle.end(row.pk, why=why, who=WHO)
    else:
        farm_lifecycle.stop(row.pk, why=why, who=WHO)


def resume(customer_id: int, *, why: str) -> bool:
    return _each(_live(customer_id), lambda row: farm_lifecycle.resume(row.pk, why=why, who=WHO))


def end(customer_id: int, *, why: str) -> bool:
    return _each(_live(customer_id), lambda row: farm_lifecycle.end(row.pk, why=why, who=WHO))
