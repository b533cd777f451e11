"""What the tests buy, and how."""

from __future__ import annotations

from typing import Any

import stripe

from tests.paperstripe.conftest import Paper

SUCCESS = "http://127.0.0.1:1/go-live/done/?session={CHECKOUT_SESSION_ID}"
CANCEL = "http://127.0.0.1:1/go-live/"


def a_price(client: stripe.StripeClient, *, amount: int = 3900, name: str = "Nibbler") -> stripe.Price:
    product = client.v1.products.create({"name": name})
    recurring: Any = {"interval": "month"}
    return client.v1.prices.create(
        {"product": product.id, "unit_amount": amount, "currency": "usd", "recurring": recurring}
    )


def order(**more: Any) -> Any:
    """The parameters of a session for Nibbler at 39 dollars a month, and what the test adds or takes away (None)."""
    inline = {
        "currency": "usd",
        "unit_amount": 3900,
        "recurring": {"interval": "month"},
        "product_data": {"name": "Nibbler"},
    }
    usual = {
        "mode": "subscription",
        "line_items": [{"price_data": inline, "quantity": 1}],
        "success_url": SUCCESS,
        "cancel_url": CANCEL,
        "customer_email": "ada@example.com",
    }
    return {name: value for name, value in (usual | more).items() if value is not None}


def bought(paper: Paper, client: stripe.StripeClient, **more: Any) -> stripe.checkout.Session:
    """A session that was paid on the pay page."""
    session = client.v1.checkout.sessions.create(order(**more))
    assert session.url is not None
    assert paper.page(session.url, {"do": "pay"}).status == 303
    return client.v1.checkout.sessions.retrieve(session.id)


def subscription_of(client: stripe.StripeClient, session: stripe.checkout.Session) -> stripe.Subscription:
    assert isinstance(session.subscription, str)
    return client.v1.subscriptions.retrieve(session.subscription)


def intent_of(client: stripe.StripeClient, session: stripe.checkout.Session) -> str:
    """The payment behind a session's first invoice, found the way that the API now has for it."""
    assert isinstance(session.invoice, str)
    payments = client.v1.invoice_payments.list({"invoice": session.invoice})
    intent = payments.data[0].payment.payment_intent
    assert isinstance(intent, str)
    return intent
