"""What Stripe tells: stored once by its id and acknowledged at once, handled by a task.

An event only says what to look at. What is so is asked of Stripe, so that order, duplicates and replays don't matter.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from farm import clock, errors, states
from presspass.billing import doors, settling, stripe_api
from presspass.errors import StripeRefused, StripeSilent
from presspass.models import StripeEvent

log = logging.getLogger(__name__)

NAMES = ("subscription", "payment_intent", "charge", "customer", "invoice")


def receive(payload: bytes, signature: str) -> StripeEvent:
    """Store what Stripe sent; sent again it is the same row. Raise :class:`stripe_api.Unsigned`."""
    said = stripe_api.opened(payload, signature)
    about = said.get("data", {}).get("object", {}) if isinstance(said.get("data"), dict) else {}
    made = said.get("created")
    created = datetime.fromtimestamp(made, UTC) if isinstance(made, int) else clock.now()
    columns = {"type": said["type"][:100], "created": created, "names": _names(said, about)}
    try:
        with transaction.atomic():
            row, new = StripeEvent.objects.get_or_create(event=said["id"][:100], defaults=columns)
            if new:
                doors.ring_on_commit(doors.SETTLE, row.pk)
    except IntegrityError:  # two at once: the other one stored it
        row = StripeEvent.objects.get(event=said["id"][:100])
    return row


def _names(said: dict[str, Any], about: Any) -> dict[str, str | bool]:
    """The ids in an event, and nothing else of it: addresses and cards are Stripe's to keep."""
    if not isinstance(about, dict):
        return {}
    parent = about.get("parent") if isinstance(about.get("parent"), dict) else {}
    details = parent.get("subscription_details") if isinstance(parent, dict) else None
    found = {name: about.get(name) for name in NAMES} | {"id": about.get("id"), "object": about.get("object")}
    if isinstance(details, dict):
        found["subscription"] = details.get("subscription")
    kept: dict[str, str | bool] = {name: value[:100] for name, value in found.items() if isinstance(value, str)}
    return kept | {"livemode": said.get("livemode") is True}


def settle(event_id: int) -> bool:
    """Handle an event; False if it is handled, somebody else's turn, or put off."""
    row = StripeEvent.objects.filter(pk=event_id, handled_at__isnull=True).first()
    if row is None or not _claim(row):
        return False
    try:
        _handle(row)
    except (StripeSilent, StripeRefused, errors.ClaimLost) as error:
        _put_off(row, error)
        return False
    except Exception as error:
        # A row that cannot be handled must not stop those behind it; it is tried again, then stands before staff.
        _put_off(row, error)
        log.exception("an event could not be handled", extra={"event": row.event, "type": row.type})
        return False
    StripeEvent.objects.filter(pk=row.pk).update(handled_at=clock.now(), next_at=None, error="")
    return True


def _claim(row: StripeEvent) -> bool:
    attempts = row.attempts + 1
    wait = states.retry_delay(attempts, first=settings.RETRY_FIRST_SECONDS * 2, most=3600)
    retried = attempts < settings.RETRY_ATTEMPTS * 2
    same = StripeEvent.objects.filter(pk=row.pk, attempts=row.attempts, handled_at__isnull=True)
    row.attempts = attempts
    return same.update(attempts=attempts, next_at=clock.now() + wait if retried else None) == 1


def _put_off(row: StripeEvent, error: Exception) -> None:
    StripeEvent.objects.filter(pk=row.pk).update(error=f"{type(error).__name__}: {error}"[:200])
    log.warning("an event is put off", extra={"event": row.event, "attempt": row.attempts})


def _handle(row: StripeEvent) -> None:
    name, kind = str(row.names.get("id", "")), row.type
    if row.names.get("livemode", False) is not settings.STRIPE_SECRET_KEY.startswith(("sk_live_", "rk_live_")):
        log.error("an event of another mode of Stripe's", extra={"event": row.event})
    elif kind.startswith("checkout.session."):
        settling.settle_session(stripe_api.session(name))
    elif kind.startswith("customer.subscription."):
        settling.settle_subscription(name)
    elif kind.startswith("invoice."):
        _subscription(str(row.names.get("subscription", "")))
    elif kind.startswith(("charge.", "refund.")):
        intent = str(row.names.get("payment_intent", ""))
        _subscription(stripe_api.subscription_paid_by(intent) if intent else "")


def _subscription(name: str) -> None:
    if name:
        settling.settle_subscription(name)


def due(limit: int) -> list[int]:
    """Events that nobody has handled, whose turn it is; not again until a ring had time to be answered."""
    rows = StripeEvent.objects.filter(next_at__lte=clock.now(), handled_at__isnull=True).order_by("next_at")
    found = list(rows.values_list("pk", flat=True)[:limit])
    again = clock.now() + timedelta(seconds=settings.RING_AGAIN_SECONDS)
    StripeEvent.objects.filter(pk__in=found, handled_at__isnull=True).update(next_at=again)
    return found
