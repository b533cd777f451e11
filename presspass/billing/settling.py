"""What Stripe says now becomes what our rows say, whatever was told before and in whatever order.

The truth is fetched first, while no transaction is open; then it is written in one. Doing it again changes nothing.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from farm import clock, errors
from farm import lifecycle as farm_lifecycle
from presspass.billing import refunds, stripe_api, terminals
from presspass.billing.saying import say
from presspass.billing.stripe_api import Payment, Session, Sub
from presspass.models import Checkout, Notice, Refund, Subscription, User
from presspass.sales import CURRENCY

log = logging.getLogger(__name__)

AFTER_PERIOD = timedelta(hours=1)
"""Stripe takes about so long to charge for the next period."""
UNPAID_AT_MOST = timedelta(days=1)
"""A session that is complete while its money is still to come keeps its slot so long."""
RUNS = {"active", "trialing"}
OWES = {"past_due", "unpaid", "incomplete", "paused"}
NOT_PAID = "not paid"


# --- sessions ---------------------------------------------------------------------------------------------------------


def settle_session(found: Session) -> None:
    """Bring the checkout that a session belongs to up to date; one that is none of ours is left."""
    checkout = Checkout.objects.filter(pk=found.checkout).first() if found.checkout else None
    if checkout is None:
        log.warning("a session of no checkout of ours", extra={"session": found.id})
    elif found.is_paid:
        sub = stripe_api.subscription(found.subscription)
        _book(checkout.pk, found, sub, stripe_api.payment_of(sub.id))
    elif not found.is_complete and not found.is_open and checkout.stripe_session in {"", found.id}:
        give_up(checkout.pk, Checkout.Status.EXPIRED, why="the pay page expired", who="payment")


@transaction.atomic
def give_up(checkout_id: int, status: Checkout.Status, *, why: str, who: str) -> bool:
    """Give an open checkout's slot back; False if it is open no more."""
    checkout = Checkout.objects.select_for_update().get(pk=checkout_id)
    if checkout.status != Checkout.Status.OPEN:
        return False
    _close(checkout, status)
    farm_lifecycle.release_hold(checkout.instance_id, why=why, who=who)
    return True


def _close(checkout: Checkout, status: Checkout.Status, *, problem: str = "") -> None:
    checkout.status, checkout.url, checkout.problem = status, "", problem
    checkout.save(update_fields=["status", "url", "problem", "stripe_session", "stripe_subscription"])


@transaction.atomic
def _book(checkout_id: int, found: Session, sub: Sub, payment: Payment | None) -> None:
    """A paid session: a subscription begins, or it was one too many, or not what was agreed."""
    about = Checkout.objects.only("customer_id").get(pk=checkout_id)
    User.objects.select_for_update().get(pk=about.customer_id)  # whatever else this customer pays waits here
    checkout = Checkout.objects.select_for_update().select_related("plan").get(pk=checkout_id)
    known = Subscription.objects.select_for_update().filter(stripe_subscription=sub.id).first()
    if known is not None:
        _copy(known, sub, payment)
        return
    if Refund.objects.filter(stripe_subscription=sub.id).exists():
        return
    other = _other(checkout, sub)
    problem = _mismatch(checkout, found, sub)
    if other is not None and other.status != Subscription.Status.CANCELED:
        _refuse(checkout, found, sub, why="paid twice")
    elif checkout.status in {Checkout.Status.PAID, Checkout.Status.REFUNDED, Checkout.Status.WRONG}:
        if checkout.stripe_subscription != sub.id:
            _refuse(checkout, found, sub, why="paid twice")
    elif problem:
        checkout.stripe_session, checkout.stripe_subscription = found.id, sub.id
        _close(checkout, Checkout.Status.WRONG, problem=problem)
        farm_lifecycle.release_hold(checkout.instance_id, why="paid, but not what was agreed", who="payment")
        log.error("a payment is not what was agreed", extra={"checkout": checkout.pk, "problem": problem})
    elif sub.status not in RUNS | OWES or (payment is not None and payment.refunded):
        checkout.stripe_session, checkout.stripe_subscription = found.id, sub.id
        _close(checkout, Checkout.Status.REFUNDED, problem=f"at Stripe it is {sub.status} already")
        farm_lifecycle.release_hold(checkout.instance_id, why="over before it was heard of", who="payment")
    else:
        if other is not None:
            Subscription.objects.filter(pk=other.pk).update(
                ended_at=clock.now(), look_at=None, why="followed by another"
            )
        _start(checkout, found, sub)


def _other(checkout: Checkout, sub: Sub) -> Subscription | None:
    alive = Subscription.objects.filter(customer_id=checkout.customer_id, ended_at__isnull=True)
    return alive.exclude(stripe_subscription=sub.id).first()


def _mismatch(checkout: Checkout, found: Session, sub: Sub) -> str:
    """What differs between what was agreed and what was paid; empty if nothing."""
    agreed = ("subscription", CURRENCY, checkout.cents)
    paid = (found.mode, found.currency, found.cents)
    if paid != agreed:
        return f"agreed {agreed}, paid {paid}"
    each = (CURRENCY, checkout.cents, "month")
    renewed = (sub.currency, sub.cents, sub.interval)
    return "" if renewed == each else f"agreed {each}, renewed {renewed}"


def _refuse(checkout: Checkout, found: Session, sub: Sub, *, why: str) -> None:
    """One payment too many: it goes back, and what the customer has stays as it is."""
    refunds.ask(checkout.customer_id, sub.id, why=why, who="payment")
    if checkout.status == Checkout.Status.OPEN:
        checkout.stripe_session, checkout.stripe_subscription = found.id, sub.id
        _close(checkout, Checkout.Status.REFUNDED, problem=why)
        farm_lifecycle.release_hold(checkout.instance_id, why=why, who="payment")


def _start(checkout: Checkout, found: Session, sub: Sub) -> None:
    now = clock.now()
    bought = Subscription.objects.create(
        customer_id=checkout.customer_id,
        plan=checkout.plan,
        cents=checkout.cents,
        stripe_customer=sub.customer,
        stripe_subscription=sub.id,
        status=sub.status,
        period_end=sub.period_end,
        cancel_at_period_end=sub.cancel_at_period_end,
        instance_id=checkout.instance_id,
        look_at=sub.period_end + AFTER_PERIOD,
        created_at=now,
    )
    checkout.stripe_session, checkout.stripe_subscription = found.id, sub.id
    _close(checkout, Checkout.Status.PAID)
    try:
        farm_lifecycle.activate(checkout.instance_id, who="payment")
    except errors.Refused:
        Subscription.objects.filter(pk=bought.pk).update(late_at=now)
        say(bought.customer_id, Notice.Kind.PAID_WITHOUT_SLOT, about=sub.id)
    if sub.status in OWES:
        _copy(bought, sub, None)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def settle_subscription(name: str) -> None:
    """Bring a subscription up to date; one that we don't know yet is looked for among the sessions."""
    row = Subscription.objects.filter(stripe_subscription=name).first()
    if row is None:
        for found in stripe_api.sessions_of(name):
            settle_session(found)
        return
    sub, payment = stripe_api.subscription(name), stripe_api.payment_of(name)
    with transaction.atomic():
        _copy(Subscription.objects.select_for_update().get(pk=row.pk), sub, payment)


def _copy(row: Subscription, sub: Sub, payment: Payment | None) -> None:
    row.status, row.period_end, row.cancel_at_period_end = sub.status, sub.period_end, sub.cancel_at_period_end
    if row.ended_at is None:
        if payment is not None and (payment.refunded or payment.disputed):
            _take_back(row, "refunded" if payment.refunded else "disputed")
        elif sub.status in RUNS:
            _all_is_well(row)
        elif sub.status in OWES:
            _owes(row, sub)
        elif row.grace_until is None and row.stopped_at is None:
            _stop(row, "cancelled")
        row.look_at = _next_look(row)
    row.save()


def _owes(row: Subscription, sub: Sub) -> None:
    if row.grace_until is None and row.stopped_at is None:
        row.grace_until = clock.now() + timedelta(days=settings.GRACE_DAYS)
        say(row.customer_id, Notice.Kind.PAYMENT_FAILED, about=sub.invoice, grace_until=row.grace_until)


def _all_is_well(row: Subscription) -> None:
    """Also after a failed payment: paid again undoes it. What was stopped starts again."""
    if row.stopped_at is not None and row.why != NOT_PAID:
        return
    row.grace_until = row.ends_at = None
    if row.stopped_at is not None and terminals.resume(row.customer_id, why="paid again"):
        _resumed(row)


def _resumed(row: Subscription) -> None:
    say(
        row.customer_id,
        Notice.Kind.RESUMED,
        about=f"{row.stripe_subscription} {row.stopped_at:%Y-%m-%d %H:%M:%S}",
    )
    row.stopped_at, row.why = None, ""


def _take_back(row: Subscription, why: str) -> None:
    """The money is gone again, not by an order of ours."""
    if Refund.objects.filter(stripe_subscription=row.stripe_subscription).exists() or row.stopped_at is not None:
        return
    log.error("a payment was taken back", extra={"subscription": row.pk, "why": why})
    _stop(row, why)


def _stop(row: Subscription, why: str) -> None:
    """Stop with care now, destroy after another grace. Open positions are not waited for: they stay at the broker."""
    now = clock.now()
    row.grace_until, row.stopped_at, row.why = None, now, why
    row.ends_at = now + timedelta(days=settings.GRACE_DAYS)
    terminals.stop(row.customer_id, why=why)
    say(
        row.customer_id,
        Notice.Kind.STOPPED,
        about=f"{row.stripe_subscription} {now:%Y-%m-%d %H:%M:%S}",
        why=why,
        ends_at=row.ends_at,
    )


def _next_look(row: Subscription) -> datetime | None:
    return row.grace_until or row.ends_at or row.period_end + AFTER_PERIOD


# --- what is due by the clock -----------------------------------------------------------------------------------------


def follow(subscription_id: int) -> None:
    """Ask Stripe about one subscription whose time has come, then do what the time demands."""
    row = Subscription.objects.get(pk=subscription_id)
    again = clock.now() + timedelta(minutes=5)
    Subscription.objects.filter(pk=row.pk, look_at__isnull=False).update(look_at=again)  # if this fails, not at once
    settle_subscription(row.stripe_subscription)
    row.refresh_from_db()
    now = clock.now()
    if row.ended_at is not None:
        return
    if row.ends_at is not None and row.ends_at <= now:
        stripe_api.cancel(row.stripe_subscription)  # nobody is charged for a terminal that is gone
        _end(row.pk)
    elif row.grace_until is not None and row.grace_until <= now:
        with transaction.atomic():
            owing = Subscription.objects.select_for_update().get(pk=row.pk)
            if owing.grace_until is not None and owing.grace_until <= now:
                _stop(owing, NOT_PAID)
                owing.look_at = _next_look(owing)
                owing.save()


@transaction.atomic
def _end(subscription_id: int) -> None:
    row = Subscription.objects.select_for_update().get(pk=subscription_id)
    if row.ended_at is None and row.ends_at is not None and row.ends_at <= clock.now():
        why = row.why or NOT_PAID
        if refunds.close(row, why=why):
            Subscription.objects.filter(pk=row.pk).update(status=Subscription.Status.CANCELED)
            say(row.customer_id, Notice.Kind.ENDED, about=row.stripe_subscription, why=why)


def keep_stopped(subscription_id: int) -> None:
    """Make terminals follow a subscription that is stopped, or was and is paid again."""
    with transaction.atomic():
        row = Subscription.objects.select_for_update().get(pk=subscription_id)
        if row.ended_at is not None or row.stopped_at is None:
            return
        if row.ends_at is not None:
            terminals.stop(row.customer_id, why=row.why or NOT_PAID)
        elif terminals.resume(row.customer_id, why="paid again"):
            _resumed(row)
            row.save()


def look_at_hold(checkout: Checkout) -> None:
    """The time of a hold is over: before the slot goes, the pay page is closed and Stripe asked what became of it."""
    if checkout.stripe_session:
        found = stripe_api.expire_session(checkout.stripe_session)
        if found.is_complete and not found.is_paid and clock.now() - checkout.created_at < UNPAID_AT_MOST:
            until = clock.now() + timedelta(seconds=settings.HOLD_SECONDS)
            farm_lifecycle.hold_longer(checkout.instance_id, until=until)
            return
        settle_session(found)
    give_up(checkout.pk, Checkout.Status.EXPIRED, why="not paid in time", who="payment")
