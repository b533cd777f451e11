"""What is due by the clock, whether or not Stripe told us: events left over, refunds, holds, grace that is over.

Each row on its own: one that fails is logged and does not stop the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from farm import clock, doorbell, errors
from farm import lifecycle as farm_lifecycle
from presspass.billing import doors, events, refunds, settling, stripe_api
from presspass.errors import StripeRefused, StripeSilent
from presspass.models import Checkout, Subscription

BATCH = 200

log = logging.getLogger(__name__)


def look() -> None:
    for event_id in events.due(BATCH):
        doorbell.ring(doors.SETTLE, event_id)
    owed = refunds.due(BATCH)
    refunds.put_off(owed)
    for refund_id in owed:
        doorbell.ring(doors.REFUND, refund_id)
    _each("hold", farm_lifecycle.expired_holds(BATCH), _expire)
    _each("subscription", _due(), settling.follow)
    _each("stopped subscription", _stopped(), settling.keep_stopped)


def check(checkout_id: int) -> None:
    """The customer came back from the pay page: ask at once instead of waiting to be told."""
    checkout = Checkout.objects.filter(pk=checkout_id, status=Checkout.Status.OPEN).exclude(stripe_session="").first()
    if checkout is not None:
        settling.settle_session(stripe_api.session(checkout.stripe_session))


def _due() -> list[int]:
    alive = Subscription.objects.filter(look_at__lte=clock.now(), ended_at__isnull=True).order_by("look_at")
    return list(alive.values_list("pk", flat=True)[:BATCH])


def _stopped() -> list[int]:
    alive = Subscription.objects.filter(stopped_at__isnull=False, ended_at__isnull=True).order_by("stopped_at")
    return list(alive.values_list("pk", flat=True)[:BATCH])


def _expire(instance_id: int) -> None:
    checkout = Checkout.objects.filter(instance_id=instance_id, status=Checkout.Status.OPEN).first()
    if checkout is None:
        farm_lifecycle.release_hold(instance_id, why="not paid in time", who="payment")
    else:
        settling.look_at_hold(checkout)


def _each(what: str, ids: Iterable[int], act: Callable[[int], None]) -> None:
    for pk in ids:
        try:
            act(pk)
        except (StripeSilent, StripeRefused, errors.FarmError) as error:
            log.warning("put off", extra={"what": what, "row": pk, "error": f"{type(error).__name__}: {error}"})
        except Exception:
            log.exception("could not be looked at", extra={"what": what, "row": pk})
