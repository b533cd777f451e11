"""What paper Stripe refuses, because Stripe does."""

from __future__ import annotations

import time
from typing import Any

import pytest
import stripe

from tests.paperstripe.buying import a_price, bought, intent_of, order, subscription_of
from tests.paperstripe.conftest import SECRET, Paper, Receiver
from tests.waiting import until


@pytest.mark.parametrize("key", ["sk_live_something", "nonsense", "pk_test_public"])
def test_a_key_that_is_not_a_secret_test_key_is_not_let_in_and_not_repeated(paper: Paper, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError) as refused:
        paper.client(key).v1.customers.list()
    assert refused.value.http_status == 401
    assert key not in str(refused.value)


def test_with_a_key_of_its_own_no_other_is_let_in(paper: Paper) -> None:
    paper.stop()
    paper.start("--key", "sk_test_the_one")
    with pytest.raises(stripe.AuthenticationError):
        paper.client("sk_test_another").v1.customers.list()
    assert paper.client("sk_test_the_one").v1.customers.list().data == []


@pytest.mark.parametrize("kind", ["checkout.sessions", "subscriptions", "invoices", "charges", "refunds", "events"])
def test_what_does_not_exist_is_missing_by_its_id(client: stripe.StripeClient, kind: str) -> None:
    service: Any = client.v1
    for part in kind.split("."):
        service = getattr(service, part)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        service.retrieve("nothing_of_this_name")
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (404, "resource_missing", "id")
    assert "nothing_of_this_name" in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        ({"mode": None}, "mode", "parameter_missing"),
        ({"mode": "lottery"}, "mode", None),
        ({"line_items": None}, "line_items", "parameter_missing"),
        ({"success_url": None}, "success_url", "parameter_missing"),
        ({"success_url": "/relative"}, "success_url", "url_invalid"),
        ({"customer_email": "nobody"}, "customer_email", "email_invalid"),
        ({"client_reference_id": ""}, "client_reference_id", "parameter_invalid_empty"),
        ({"client_reference_id": "x" * 201}, "client_reference_id", None),
        ({"customer": "cus_none", "customer_email": None}, "customer", "resource_missing"),
        ({"customer": "cus_none"}, "customer", None),
        ({"colour": "red"}, "colour", "parameter_unknown"),
        ({"subscription_data": {"trial": 3}}, "subscription_data[trial]", "parameter_unknown"),
        ({"expires_at": "soon"}, "expires_at", "parameter_invalid_integer"),
        ({"line_items": [{"price": "price_none", "quantity": 1}]}, "line_items[0][price]", "resource_missing"),
        ({"line_items": [{"quantity": 1}]}, "line_items[0]", None),
        ({"metadata": {"k" * 41: "v"}}, "metadata", None),
        ({"expand": ["secrets"]}, "expand", None),
    ],
    ids=str,
)
def test_a_wrong_session_is_refused_by_the_name_of_the_parameter(
    client: stripe.StripeClient, wrong: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.checkout.sessions.create(order(**wrong))
    assert (refused.value.http_status, refused.value.param, refused.value.code) == (400, param, code)


@pytest.mark.parametrize("seconds", [600, 1795, 86400 + 60])
def test_a_session_lives_thirty_minutes_at_least_and_a_day_at_most(client: stripe.StripeClient, seconds: int) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.checkout.sessions.create(order(expires_at=int(time.time()) + seconds))
    assert refused.value.param == "expires_at"


def test_a_one_time_or_retired_price_starts_no_subscription(client: stripe.StripeClient) -> None:
    price = a_price(client)
    client.v1.prices.update(price.id, {"active": False})
    once = client.v1.prices.create({"product": str(price.product), "unit_amount": 3900, "currency": "usd"})
    for wrong in (price.id, once.id):
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.checkout.sessions.create(order(line_items=[{"price": wrong, "quantity": 1}]))


def test_a_lookup_key_is_had_by_one_price(client: stripe.StripeClient) -> None:
    product = client.v1.products.create({"name": "Fang"})
    wanted: Any = {"product": product.id, "unit_amount": 8900, "currency": "usd", "lookup_key": "fang"}
    client.v1.prices.create(wanted)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.prices.create(wanted)
    assert refused.value.param == "lookup_key"


def test_a_reused_idempotency_key_is_refused_for_other_parameters_and_another_endpoint(
    client: stripe.StripeClient,
) -> None:
    client.v1.customers.create({"email": "ada@example.com"}, {"idempotency_key": "once"})
    with pytest.raises(stripe.IdempotencyError) as refused:
        client.v1.customers.create({"email": "eve@example.com"}, {"idempotency_key": "once"})
    assert refused.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError):
        client.v1.products.create({"name": "Fang"}, {"idempotency_key": "once"})
    assert len(client.v1.customers.list().data) == 1


def test_a_session_that_is_not_open_cannot_be_expired(paper: Paper, client: stripe.StripeClient) -> None:
    paid = bought(paper, client)
    expired = client.v1.checkout.sessions.expire(client.v1.checkout.sessions.create(order()).id)
    for session in (paid, expired):
        with pytest.raises(stripe.InvalidRequestError, match=f"status of `{session.status}`") as refused:
            client.v1.checkout.sessions.expire(session.id)
        assert refused.value.http_status == 400


def test_no_more_is_refunded_than_was_paid(paper: Paper, client: stripe.StripeClient) -> None:
    intent = intent_of(client, bought(paper, client))
    client.v1.refunds.create({"payment_intent": intent, "amount": 3000})
    with pytest.raises(stripe.InvalidRequestError, match=r"\$9.01.*greater than.*\$9.00") as refused:
        client.v1.refunds.create({"payment_intent": intent, "amount": 901})
    assert refused.value.param == "amount"
    client.v1.refunds.create({"payment_intent": intent})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"payment_intent": intent})
    assert refused.value.code == "charge_already_refunded"
    assert sum(refund.amount for refund in client.v1.refunds.list().data) == 3900


def test_a_refund_names_one_payment_and_a_positive_amount(paper: Paper, client: stripe.StripeClient) -> None:
    intent = intent_of(client, bought(paper, client))
    for wrong in ({}, {"payment_intent": intent, "amount": 0}, {"payment_intent": intent, "reason": "whim"}):
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.refunds.create(wrong)  # type: ignore[arg-type]
    assert client.v1.refunds.list().data == []


def test_a_disputed_charge_is_not_refunded(paper: Paper, client: stripe.StripeClient) -> None:
    bought(paper, client)
    charge = client.v1.charges.list().data[0]
    paper.knob(f"charges/{charge.id}/dispute")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"charge": charge.id})
    assert refused.value.code == "charge_disputed"


def test_a_cancelled_subscription_is_gone_for_cancelling_and_changing(
    paper: Paper, client: stripe.StripeClient
) -> None:
    subscription = subscription_of(client, bought(paper, client))
    client.v1.subscriptions.cancel(subscription.id)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.subscriptions.cancel(subscription.id)
    assert refused.value.http_status == 404
    with pytest.raises(stripe.InvalidRequestError, match="canceled subscription"):
        client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})


def test_a_call_that_paper_does_not_know_says_so(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="only the part of the API"):
        client.v1.coupons.create({"percent_off": 10, "duration": "once"})


@pytest.mark.parametrize("limit", [0, 101])
def test_a_page_of_a_list_has_one_to_a_hundred_rows(client: stripe.StripeClient, limit: int) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.events.list({"limit": limit})
    assert refused.value.param == "limit"


def test_a_tampered_or_wrongly_signed_webhook_is_seen_by_the_sdk(
    client: stripe.StripeClient, receiver: Receiver
) -> None:
    client.v1.customers.create({"email": "ada@example.com"})
    payload, signed, _ = until(lambda: receiver.received and receiver.received[0])
    assert stripe.Webhook.construct_event(payload, signed, SECRET).type == "customer.created"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload.replace(b"ada@", b"eve@"), signed, SECRET)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload, signed, "whsec_of_another")


def test_pages_that_nobody_made_are_not_there(paper: Paper) -> None:
    assert paper.page("/pay/cs_test_none").status == 404
    assert paper.page("/portal/none").status == 404


def test_a_file_that_is_not_its_own_is_neither_used_nor_overwritten(paper: Paper) -> None:
    paper.stop()
    paper.data.write_text("{ somebody's notes")
    paper.start()
    assert (paper.url, paper.stop()) == ("", 1)
    assert paper.data.read_text() == "{ somebody's notes"
