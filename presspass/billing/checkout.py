"""The way to the pay page: a slot is held, a session is made at Stripe, and both are given up together.

begin      rows first, in one transaction: credentials, hold, checkout
pay_url    then Stripe is asked for the session, outside of it; asked again it is the same one
cancel     the session is closed at Stripe before the slot is freed: it may have been paid meanwhile
retry      paid for already: another login straight away
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.urls import reverse

from farm import clock, errors
from farm import lifecycle as farm_lifecycle
from farm.models import Instance
from presspass.billing import logins, settling, stripe_api
from presspass.billing.logins import Login
from presspass.errors import NotSold, NotVerified, StripeRefused
from presspass.models import Checkout, Plan, Subscription, User
from presspass.sales import CURRENCY

BEFORE_HOLD_ENDS = timedelta(seconds=30)
LEAST_AT_STRIPE = timedelta(minutes=30, seconds=5)


def is_sold() -> bool:
    return bool(settings.STRIPE_SECRET_KEY and settings.INTAKE_KEY)


def open_checkout(customer: User) -> Checkout | None:
    mine = Checkout.objects.filter(customer=customer, status=Checkout.Status.OPEN)
    return mine.select_related("plan", "instance__attempt").first()


def subscription_of(customer: User) -> Subscription | None:
    """The one that is not over."""
    return Subscription.objects.filter(customer=customer, ended_at__isnull=True).select_related("plan").first()


def begin(customer: User, plan: Plan, login: Login) -> Checkout:
    """Hold a slot for a login, to be paid for. Raise :class:`errors.Refused`; no slot is :class:`errors.NoFreePort`."""
    _require_verified(customer)
    if not is_sold() or not plan.active:
        raise NotSold
    until = clock.now() + timedelta(seconds=settings.HOLD_SECONDS)
    try:
        with transaction.atomic():
            User.objects.select_for_update().get(pk=customer.pk)
            _require_nothing_under_way(customer)
            bought = subscription_of(customer)
            if bought is not None and bought.status != Subscription.Status.CANCELED:
                raise NotSold("You have a plan already.")
            row = farm_lifecycle.hold(
                customer_id=customer.pk,
                account=logins.kept(login, customer),
                replaces=logins.replaced_by_next(customer),
                until=until,
                who=f"customer:{customer.pk}",
            )
            logins.note(row, login)
            return Checkout.objects.create(
                customer=customer,
                plan=plan,
                cents=plan.cents,
                instance=row,
                expires_at=until - BEFORE_HOLD_ENDS,
            )
    except IntegrityError:
        raise errors.Refused("A payment of yours is open already: go on with it, or cancel it first.") from None


def retry(customer: User, login: Login) -> Instance:
    """Try another login on what is paid for. Raise :class:`errors.Refused`."""
    _require_verified(customer)
    with transaction.atomic():
        User.objects.select_for_update().get(pk=customer.pk)
        _require_nothing_under_way(customer)
        bought = subscription_of(customer)
        if bought is None or not bought.is_paid or bought.stopped_at is not None:
            raise errors.Refused("Your plan is not paid at the moment.")
        row = farm_lifecycle.go_on(
            customer_id=customer.pk,
            account=logins.kept(login, customer),
            replaces=logins.replaced_by_next(customer),
            who=f"customer:{customer.pk}",
        )
        logins.note(row, login)
        Subscription.objects.filter(pk=bought.pk).update(instance=row)
    return row


def pay_url(checkout: Checkout) -> str:
    """Where it is paid. Raise :class:`StripeSilent` or :class:`StripeRefused`; the slot stays held either way."""
    if checkout.url:
        return checkout.url
    _give_time(checkout)
    known = Subscription.objects.filter(customer=checkout.customer).exclude(stripe_customer="").order_by("-pk").first()
    there = settings.SITE_URL + reverse("presspass:paid", args=[checkout.pk])
    made = stripe_api.create_session(
        key=f"checkout-{checkout.pk}-{checkout.tries}",
        checkout=checkout.pk,
        customer=checkout.customer_id,
        email=checkout.customer.email,
        known_as=known.stripe_customer if known else "",
        name=f"BITTEN {checkout.plan.name}",
        cents=checkout.cents,
        currency=CURRENCY,
        price=checkout.plan.stripe_price,
        expires_at=checkout.expires_at,
        success_url=there,
        cancel_url=settings.SITE_URL + reverse("presspass:go_live"),
    )
    still_open = Checkout.objects.filter(pk=checkout.pk, status=Checkout.Status.OPEN)
    if still_open.update(stripe_session=made.id, url=made.url) != 1:
        stripe_api.expire_session(made.id)  # cancelled in another window meanwhile
        raise StripeRefused("This payment was cancelled.")
    checkout.stripe_session, checkout.url = made.id, made.url
    return made.url


def _give_time(checkout: Checkout) -> None:
    """Asked for late, because Stripe was silent before: it wants 30 minutes, so the slot is held that much longer."""
    now = clock.now()
    if checkout.expires_at - now >= LEAST_AT_STRIPE:
        return
    until = now + timedelta(seconds=settings.HOLD_SECONDS)
    with transaction.atomic():
        extended = Checkout.objects.filter(pk=checkout.pk, status=Checkout.Status.OPEN, stripe_session="")
        if extended.update(expires_at=until - BEFORE_HOLD_ENDS, tries=checkout.tries + 1) != 1:
            raise StripeRefused("This payment is no longer open.")
        farm_lifecycle.hold_longer(checkout.instance_id, until=until)
    checkout.refresh_from_db()


def cancel(checkout: Checkout, *, who: str) -> bool:
    """Give up an open payment and its slot; False if it turned out to be paid. Raise :class:`StripeSilent`."""
    if checkout.stripe_session:
        closed = stripe_api.expire_session(checkout.stripe_session)
        if closed.is_complete:
            settling.settle_session(closed)
            return False
    settling.give_up(checkout.pk, Checkout.Status.CANCELLED, why="the payment was cancelled", who=who)
    return True


def _require_verified(customer: User) -> None:
    if not customer.verified:
        raise NotVerified


def _require_nothing_under_way(customer: User) -> None:
    if open_checkout(customer) is not None:
        raise errors.Refused("A payment of yours is open already: go on with it, or cancel it first.")
    if logins.attempt_under_way(customer) is not None:
        raise errors.Refused("A live terminal of yours is on its way already.")
