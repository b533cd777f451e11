"""Stripe through its SDK: what we ask of it, and its answers as plain facts.

Nothing here knows our rows, and nothing here may be called inside a transaction. A request that makes something carries
a key that follows from our row, so that repeating it makes nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

import stripe
from django.conf import settings

from presspass.errors import StripeRefused, StripeSilent

TIMEOUT_SECONDS = (3.0, 10.0)
"""To connect, and to be answered. A page waits for it, so it is short; workers try again later."""
SIGNED_SECONDS = 300
"""A webhook that was signed longer ago is not believed: somebody may have kept it."""

T = TypeVar("T")
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A Checkout Session as Stripe has it."""

    id: str
    url: str
    is_open: bool
    is_complete: bool
    is_paid: bool
    mode: str
    currency: str
    cents: int
    checkout: int | None
    """The row of ours that it was made for."""
    subscription: str


@dataclass(frozen=True, kw_only=True)
class Sub:
    """A subscription as Stripe has it."""

    id: str
    customer: str
    status: str
    currency: str
    cents: int
    interval: str
    period_end: datetime
    cancel_at_period_end: bool
    invoice: str


@dataclass(frozen=True, kw_only=True)
class Payment:
    intent: str
    cents: int
    refunded: bool
    disputed: bool


@cache
def _client(key: str, base: str) -> stripe.StripeClient:
    http = stripe.RequestsClient(timeout=TIMEOUT_SECONDS)
    addresses: Any = {"base_addresses": {"api": base}} if base else {}
    return stripe.StripeClient(key, http_client=http, max_network_retries=1, **addresses)


def _asked(ask: Callable[[stripe.StripeClient], T]) -> T:
    if not settings.STRIPE_SECRET_KEY:
        raise StripeSilent("STRIPE_SECRET_KEY is not set.")
    try:
        return ask(_client(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE))
    except (stripe.InvalidRequestError, stripe.CardError, stripe.IdempotencyError) as error:
        raise StripeRefused(str(error.user_message or "Stripe refused."), code=str(error.code or "")) from error
    except stripe.StripeError as error:
        raise StripeSilent(type(error).__name__) from error


def _plain(answer: Any) -> Json:
    """SDK objects are no dictionaries; these are, all the way down."""
    plain: Json = answer.to_dict()
    return plain


# --- sessions ---------------------------------------------------------------------------------------------------------


def create_session(
    *,
    key: str,
    checkout: int,
    customer: int,
    email: str,
    known_as: str,
    name: str,
    cents: int,
    currency: str,
    price: str,
    expires_at: datetime,
    success_url: str,
    cancel_url: str,
) -> Session:
    """``known_as`` is the customer's id at Stripe if they have one, ``price`` that of the plan's price."""
    made = {"currency": currency, "unit_amount": cents, "recurring": {"interval": "month"}}
    line = {"price": price} if price else {"price_data": made | {"product_data": {"name": name}}}
    ours = {"checkout": str(checkout)}
    params: Any = {
        "mode": "subscription",
        "line_items": [line | {"quantity": 1}],
        "client_reference_id": str(customer),
        "metadata": ours,
        "subscription_data": {"metadata": ours},
        "expires_at": int(expires_at.timestamp()),
        "success_url": success_url,
        "cancel_url": cancel_url,
    }
    params |= {"customer": known_as} if known_as else {"customer_email": email}
    return _session(_asked(lambda client: client.v1.checkout.sessions.create(params, {"idempotency_key": key})))


def session(name: str) -> Session:
    return _session(_asked(lambda client: client.v1.checkout.sessions.retrieve(name)))


def expire_session(name: str) -> Session:
    """Close the pay page, and say what has become of it: it may be paid already."""
    try:
        return _session(_asked(lambda client: client.v1.checkout.sessions.expire(name)))
    except StripeRefused:
        return session(name)


def sessions_of(subscription: str) -> list[Session]:
    params: Any = {"subscription": subscription}
    found = _asked(lambda client: client.v1.checkout.sessions.list(params))
    return [_session(one) for one in found.data]


def _session(answer: Any) -> Session:
    said = _plain(answer)
    number = str((said.get("metadata") or {}).get("checkout", ""))
    return Session(
        id=said["id"],
        url=said.get("url") or "",
        is_open=said["status"] == "open",
        is_complete=said["status"] == "complete",
        is_paid=said["status"] == "complete" and said["payment_status"] == "paid",
        mode=said["mode"],
        currency=said["currency"] or "",
        cents=said["amount_total"] or 0,
        checkout=int(number) if number.isascii() and number.isdigit() and len(number) < 19 else None,
        subscription=_name(said.get("subscription")),
    )


# --- subscriptions ----------------------------------------------------------------------------------------------------


def subscription(name: str) -> Sub:
    said = _plain(_asked(lambda client: client.v1.subscriptions.retrieve(name)))
    items = said["items"]["data"]
    price = items[0]["price"]
    ends = max(item["current_period_end"] for item in items)
    return Sub(
        id=said["id"],
        customer=_name(said["customer"]),
        status=said["status"],
        currency=said["currency"],
        cents=sum((item["price"]["unit_amount"] or 0) * item.get("quantity", 1) for item in items),
        interval=(price["recurring"] or {}).get("interval", ""),
        period_end=datetime.fromtimestamp(ends, UTC),
        cancel_at_period_end=bool(said["cancel_at_period_end"]),
        invoice=_name(said["latest_invoice"]),
    )


def cancel(name: str) -> None:
    """Cancel at once. Cancelled already is success."""
    if subscription(name).status in {"canceled", "incomplete_expired"}:
        return
    _asked(lambda client: client.v1.subscriptions.cancel(name))


def payment_of(name: str) -> Payment | None:
    """The last payment for a subscription; None if nothing was ever paid."""
    params: Any = {"subscription": name, "status": "paid", "limit": 1}
    invoices = _asked(lambda client: client.v1.invoices.list(params)).data
    if not invoices or not invoices[0].id:
        return None
    wanted: Any = {"invoice": invoices[0].id, "status": "paid", "limit": 1}
    payments = [_plain(one) for one in _asked(lambda client: client.v1.invoice_payments.list(wanted)).data]
    intent = _name(payments[0]["payment"].get("payment_intent")) if payments else ""
    return _payment(intent) if intent else None


def _payment(intent: str) -> Payment:
    expand: Any = {"expand": ["latest_charge"]}
    said = _plain(_asked(lambda client: client.v1.payment_intents.retrieve(intent, expand)))
    charge = said.get("latest_charge") or {}
    return Payment(
        intent=intent,
        cents=said["amount_received"],
        refunded=bool(charge.get("refunded")),
        disputed=bool(charge.get("disputed")),
    )


def subscription_paid_by(intent: str) -> str:
    """Which subscription a payment was for; empty if for none."""
    params: Any = {"payment": {"type": "payment_intent", "payment_intent": intent}, "limit": 1}
    payments = [_plain(one) for one in _asked(lambda client: client.v1.invoice_payments.list(params)).data]
    if not payments:
        return ""
    invoice = _plain(_asked(lambda client: client.v1.invoices.retrieve(_name(payments[0]["invoice"]))))
    details = (invoice.get("parent") or {}).get("subscription_details") or {}
    return _name(details.get("subscription"))


def refund(payment: Payment, *, key: str) -> None:
    """Give all of it back. Given back already is success."""
    params: Any = {"payment_intent": payment.intent}
    try:
        _asked(lambda client: client.v1.refunds.create(params, {"idempotency_key": key}))
    except StripeRefused as refusal:
        if refusal.code != "charge_already_refunded":
            raise


def portal_url(customer: str, *, return_url: str) -> str:
    """Where a customer changes their card, reads invoices, cancels. Each call opens another door; none needs a key."""
    params: Any = {"customer": customer, "return_url": return_url}
    return str(_asked(lambda client: client.v1.billing_portal.sessions.create(params)).url)


def _name(of: Any) -> str:
    """An object's id, given or expanded; empty for none."""
    return str((of.get("id") if isinstance(of, Mapping) else of) or "")


# --- webhooks ---------------------------------------------------------------------------------------------------------


class Unsigned(Exception):
    """Not by Stripe, or too old."""


def opened(payload: bytes, signature: str) -> Json:
    """The event in a webhook. Raise :class:`Unsigned` unless Stripe signed these very bytes a short while ago."""
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise Unsigned("not UTF-8") from error
    if not any(_verifies(text, signature, secret) for secret in settings.STRIPE_WEBHOOK_SECRET):
        raise Unsigned("no signature of ours fits")
    try:
        event = json.loads(text)
    except ValueError as error:
        raise Unsigned("no JSON") from error
    if not isinstance(event, dict) or not isinstance(event.get("id"), str) or not isinstance(event.get("type"), str):
        raise Unsigned("no event")
    return event


def _verifies(text: str, signature: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(text, signature, secret, SIGNED_SECONDS)
    except (stripe.SignatureVerificationError, ValueError):
        return False
    return True
