"""Money is given back: a row says that it is to be, a worker does it, and doing it again gives nothing twice."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from farm import clock, errors, states
from farm.models import Instance
from farm.states import Kind, Refusal, Status
from presspass.billing import doors, logins, stripe_api, terminals
from presspass.billing.saying import say
from presspass.errors import StripeRefused, StripeSilent
from presspass.models import Checkout, Notice, Refund, Subscription, User

log = logging.getLogger(__name__)

WHY = "refunded"


def ask(customer_id: int, stripe_subscription: str, *, why: str, who: str) -> Refund:
    """Have a subscription cancelled and its last payment given back. Asked for already is the same one."""
    row, _ = Refund.objects.get_or_create(
        stripe_subscription=stripe_subscription, defaults={"customer_id": customer_id, "why": why, "who": who}
    )
    doors.ring_on_commit(doors.REFUND, row.pk)
    return row


def may_ask(customer: User, bought: Subscription) -> bool:
    """Paid for what could not be given: no slot after all, or an account whose seat somebody took meanwhile."""
    if bought.ended_at is not None or logins.working(customer) is not None:
        return False
    row = logins.attempt_under_way(customer)
    if row is not None:
        return _is_in_line(row)
    return bought.late_at is not None or _lost_the_seat(customer)


def _lost_the_seat(customer: User) -> bool:
    newest = Instance.objects.filter(customer_id=customer.pk, kind=Kind.LIVE).order_by("-pk").first()
    return newest is not None and newest.refusal == Refusal.SEAT_TAKEN


def _is_in_line(row: Instance) -> bool:
    return row.status == Status.WAITING and row.host_id is None and row.held_until is None


def ask_mine(customer: User) -> Refund:
    """Raise :class:`errors.Refused` when it is not theirs to choose."""
    bought = Subscription.objects.filter(customer=customer, ended_at__isnull=True).first()
    if bought is None or not may_ask(customer, bought):
        raise errors.Refused(f"That is for our staff to do: write to {settings.SUPPORT_EMAIL}.")
    row = ask(customer.pk, bought.stripe_subscription, why="asked for by the customer", who=f"customer:{customer.pk}")
    terminals.end(customer.pk, why="refunded")
    return row


def give(refund_id: int) -> bool:
    """Do it; False if it is done, somebody else's turn, or put off."""
    row = Refund.objects.filter(pk=refund_id, done_at__isnull=True).first()
    if row is None or not _claim(row):
        return False
    try:
        cents = _give(row)
    except (StripeSilent, StripeRefused) as error:
        Refund.objects.filter(pk=row.pk).update(error=f"{type(error).__name__}: {error}"[:200])
        log.warning("refund put off", extra={"refund": row.pk, "attempt": row.attempts, "error": str(error)})
        return False
    _book(row, cents)
    return True


def _claim(row: Refund) -> bool:
    attempts = row.attempts + 1
    wait = states.retry_delay(attempts, first=30, most=3600)
    retried = attempts < settings.RETRY_ATTEMPTS
    same = Refund.objects.filter(pk=row.pk, attempts=row.attempts, done_at__isnull=True)
    row.attempts = attempts
    return same.update(attempts=attempts, next_at=clock.now() + wait if retried else None) == 1


def _give(row: Refund) -> int:
    payment = stripe_api.payment_of(row.stripe_subscription)
    stripe_api.cancel(row.stripe_subscription)
    if payment is None:
        return 0
    if not payment.refunded:
        stripe_api.refund(payment, key=f"refund-{row.pk}-{payment.intent}")
    return payment.cents


@transaction.atomic
def _book(row: Refund, cents: int) -> None:
    now = clock.now()
    Refund.objects.filter(pk=row.pk).update(done_at=now, cents=cents, next_at=None, error="")
    wrong = Checkout.objects.filter(stripe_subscription=row.stripe_subscription)
    wrong.exclude(status=Checkout.Status.OPEN).update(status=Checkout.Status.REFUNDED)
    bought = Subscription.objects.select_for_update().filter(stripe_subscription=row.stripe_subscription).first()
    if bought is not None:
        close(bought, why=WHY)
        Subscription.objects.filter(pk=bought.pk).update(status=Subscription.Status.CANCELED)
    if cents:
        say(row.customer_id, Notice.Kind.REFUNDED, about=row.stripe_subscription, cents=cents, why=row.why)


def close(bought: Subscription, *, why: str) -> bool:
    """The right to a terminal is over: they are destroyed, and when none is left so is the subscription."""
    if bought.ended_at is not None:
        return True
    if not terminals.end(bought.customer_id, why=why):
        # Somebody is just moving one: stopped from now on, and looked at again.
        now = clock.now()
        stopped = bought.stopped_at or now
        Subscription.objects.filter(pk=bought.pk).update(stopped_at=stopped, ends_at=now, look_at=now, why=why)
        return False
    Subscription.objects.filter(pk=bought.pk).update(ended_at=clock.now(), why=why[:60], look_at=None)
    return True


def due(limit: int) -> list[int]:
    rows = Refund.objects.filter(next_at__lte=clock.now()).order_by("next_at")
    return list(rows.values_list("pk", flat=True)[:limit])


def put_off(refund_ids: list[int]) -> None:
    """Rung for: not again until that had time to be answered."""
    again = clock.now() + timedelta(seconds=settings.RING_AGAIN_SECONDS)
    Refund.objects.filter(pk__in=refund_ids, done_at__isnull=True).update(next_at=again)
