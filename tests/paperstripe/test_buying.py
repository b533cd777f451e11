"""From a price to a subscription that is paid, refunded and left, through the SDK and the pages."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from tests.paperstripe.buying import CANCEL, a_price, bought, intent_of, order, subscription_of
from tests.paperstripe.conftest import Paper, Receiver
from tests.waiting import until


def test_an_open_session_has_a_page_and_owes_its_money(client: stripe.StripeClient) -> None:
    made = client.v1.checkout.sessions.create(
        order(client_reference_id="7", metadata={"order": "12"}, expires_at=int(time.time()) + 1860)
    )
    session = client.v1.checkout.sessions.retrieve(made.id)
    assert (session.status, session.payment_status, session.amount_total, session.currency) == (
        "open", "unpaid", 3900, "usd",
    )  # fmt: skip
    assert (session.client_reference_id, session.metadata and session.metadata["order"]) == ("7", "12")
    assert session.url is not None
    assert session.url.endswith(f"/pay/{session.id}")
    assert session.subscription is None
    assert session.customer is None


def test_the_page_says_what_is_bought_for_how_much_and_that_no_money_moves(
    paper: Paper, client: stripe.StripeClient
) -> None:
    price = a_price(client, amount=8900, name="Fang <b>&")
    session = client.v1.checkout.sessions.create(order(line_items=[{"price": price.id, "quantity": 1}]))
    page = paper.page(f"/pay/{session.id}")
    assert "$89.00 a month" in page.text
    assert "Fang &lt;b&gt;&amp;" in page.text
    assert "ada@example.com" in page.text
    assert "No real money moves" in page.text
    assert "<script" not in page.text
    assert re.findall(r"<button[^>]*>([^<]*)<", page.text) == ["Pay", "Decline the card", "Cancel and go back"]


def test_paying_makes_customer_subscription_invoice_payment_and_charge_and_goes_back(
    paper: Paper, client: stripe.StripeClient
) -> None:
    session = client.v1.checkout.sessions.create(order(subscription_data={"metadata": {"order": "12"}}))
    gone = paper.page(f"/pay/{session.id}", {"do": "pay"})
    assert gone.location == f"http://127.0.0.1:1/go-live/done/?session={session.id}"
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription.latest_invoice.payments"]})
    assert (paid.status, paid.payment_status, paid.url, paid.payment_intent) == ("complete", "paid", None, None)
    assert paid.customer_details is not None
    assert paid.customer_details.email == "ada@example.com"
    subscription: Any = paid.subscription
    assert (subscription.status, subscription.metadata["order"]) == ("active", "12")
    invoice = subscription.latest_invoice
    assert (invoice.status, invoice.amount_paid, invoice.billing_reason) == ("paid", 3900, "subscription_create")
    assert invoice.parent.subscription_details.subscription == subscription.id
    intent = client.v1.payment_intents.retrieve(invoice.payments.data[0].payment.payment_intent)
    assert (intent.status, intent.amount_received) == ("succeeded", 3900)
    charge = client.v1.charges.retrieve(str(intent.latest_charge))
    assert (charge.paid, charge.amount, charge.refunded) == (True, 3900, False)


def test_the_period_is_a_month_on_the_item_and_on_the_subscription(paper: Paper, client: stripe.StripeClient) -> None:
    subscription = subscription_of(client, bought(paper, client))
    item = subscription["items"].data[0]
    start, end = (datetime.fromtimestamp(at, UTC) for at in (item.current_period_start, item.current_period_end))
    assert (end.year * 12 + end.month) - (start.year * 12 + start.month) == 1
    assert subscription["current_period_end"] == item.current_period_end


def test_paying_twice_buys_once(paper: Paper, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())
    first, second = (paper.page(f"/pay/{session.id}", {"do": "pay"}) for _ in range(2))
    assert first.location == second.location
    assert len(client.v1.subscriptions.list({"status": "all"}).data) == 1
    assert "is started" in paper.page(f"/pay/{session.id}").text


def test_a_declined_card_is_told_and_the_page_stays_open(paper: Paper, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())
    back = paper.page(f"/pay/{session.id}", {"do": "decline"})
    assert back.location is not None
    assert "The card was declined. Nothing was charged." in paper.page(back.location).text
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    assert client.v1.charges.list().data == []
    assert paper.page(f"/pay/{session.id}", {"do": "pay"}).status == 303


def test_cancel_goes_back_and_leaves_the_session_open(paper: Paper, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())
    assert paper.page(f"/pay/{session.id}", {"do": "cancel"}).location == CANCEL
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"


def test_an_expired_session_takes_no_money(paper: Paper, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())
    assert client.v1.checkout.sessions.expire(session.id).status == "expired"
    paper.page(f"/pay/{session.id}", {"do": "pay"})
    assert client.v1.charges.list().data == []
    assert "Nothing was charged" in paper.page(f"/pay/{session.id}").text


def test_a_known_customer_is_used_again(paper: Paper, client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({"email": "ada@example.com"})
    session = bought(paper, client, customer=customer.id, customer_email=None)
    assert session.customer == customer.id
    assert [one.id for one in client.v1.subscriptions.list({"customer": customer.id}).data] == [session.subscription]
    assert client.v1.subscriptions.list({"customer": "cus_other"}).data == []


def test_the_same_idempotency_key_gives_the_same_answer_and_does_it_once(client: stripe.StripeClient) -> None:
    first, second = (client.v1.checkout.sessions.create(order(), {"idempotency_key": "hold-7"}) for _ in range(2))
    assert first.id == second.id
    assert len(client.v1.checkout.sessions.list().data) == 1


def test_a_refused_request_does_not_use_up_its_idempotency_key(client: stripe.StripeClient) -> None:
    again: Any = {"idempotency_key": "once"}
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.create({"email": "nobody"}, again)
    client.v1.customers.create({"email": "ada@example.com"}, again)
    assert [one.email for one in client.v1.customers.list().data] == ["ada@example.com"]


def test_a_repeated_refund_under_one_key_pays_back_once(paper: Paper, client: stripe.StripeClient) -> None:
    intent = intent_of(client, bought(paper, client))
    options: Any = {"idempotency_key": "refund-7"}
    first, second = (client.v1.refunds.create({"payment_intent": intent}, options) for _ in range(2))
    assert (first.id, first.amount, first.status) == (second.id, 3900, "succeeded")
    charge = client.v1.charges.list({"expand": ["data.refunds"]}).data[0]
    assert (charge.refunded, charge.amount_refunded) == (True, 3900)
    assert charge.refunds is not None
    assert [one.id for one in charge.refunds.data] == [first.id]


def test_from_a_charge_the_way_leads_back_to_its_subscription(paper: Paper, client: stripe.StripeClient) -> None:
    session = bought(paper, client)
    intent = str(client.v1.charges.list().data[0].payment_intent)
    found = client.v1.invoice_payments.list(
        {"payment": {"type": "payment_intent", "payment_intent": intent}, "expand": ["data.invoice"]}
    )
    invoice: Any = found.data[0].invoice
    assert invoice.parent.subscription_details.subscription == session.subscription


def test_a_subscription_is_left_at_its_end_taken_back_and_cancelled(paper: Paper, client: stripe.StripeClient) -> None:
    subscription = subscription_of(client, bought(paper, client))
    leaving = client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert (leaving.status, leaving.cancel_at_period_end) == ("active", True)
    assert leaving.cancel_at == subscription["items"].data[0].current_period_end
    staying = client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": False})
    assert (staying.cancel_at_period_end, staying.cancel_at) == (False, None)
    assert client.v1.subscriptions.cancel(subscription.id).status == "canceled"
    assert client.v1.subscriptions.list().data == []
    assert len(client.v1.subscriptions.list({"status": "canceled"}).data) == 1


def test_another_price_is_billed_for_the_rest_of_the_period_at_once_when_asked(
    paper: Paper, client: stripe.StripeClient
) -> None:
    subscription = subscription_of(client, bought(paper, client))
    item = subscription["items"].data[0].id
    changed = client.v1.subscriptions.update(
        subscription.id,
        {
            "items": [{"id": item, "price": a_price(client, amount=8900).id}],
            "proration_behavior": "always_invoice",
            "expand": ["latest_invoice"],
        },
    )
    assert [one.price.unit_amount for one in changed["items"].data] == [8900]
    invoice: Any = changed.latest_invoice
    assert (invoice.billing_reason, invoice.status) == ("subscription_update", "paid")
    assert 4990 <= invoice.total <= 5000


def test_an_item_without_an_id_is_one_more_and_not_the_old_one_changed(
    paper: Paper, client: stripe.StripeClient
) -> None:
    subscription = subscription_of(client, bought(paper, client))
    price = a_price(client, amount=8900).id
    changed = client.v1.subscriptions.update(
        subscription.id, {"items": [{"price": price}], "proration_behavior": "none"}
    )
    assert [one.price.unit_amount for one in changed["items"].data] == [3900, 8900]


def test_lists_are_newest_first_and_paged(client: stripe.StripeClient) -> None:
    made = [client.v1.customers.create({"name": f"Customer {number}"}).id for number in range(5)]
    first = client.v1.customers.list({"limit": 2})
    assert ([one.id for one in first.data], first.has_more) == (made[:2:-1], True)
    rest = client.v1.customers.list({"limit": 3, "starting_after": first.data[-1].id})
    assert ([one.id for one in rest.data], rest.has_more) == (made[2::-1], False)
    assert [one.id for one in client.v1.customers.list({"limit": 2}).auto_paging_iter()] == made[::-1]


def test_prices_are_found_by_their_lookup_keys(client: stripe.StripeClient) -> None:
    product = client.v1.products.create({"name": "Fang"}).id
    usual: Any = {"product": product, "currency": "usd", "unit_amount": 8900}
    for key in ("fang", "nibbler"):
        client.v1.prices.create(usual | {"lookup_key": key})
    assert [one.lookup_key for one in client.v1.prices.list({"lookup_keys": ["fang"]}).data] == ["fang"]


def test_metadata_is_added_to_and_an_empty_value_takes_a_key_away(client: stripe.StripeClient) -> None:
    customer = client.v1.customers.create({"metadata": {"a": "1", "b": "2"}})
    changed = client.v1.customers.update(customer.id, {"metadata": {"b": "", "c": "3"}})
    assert changed.metadata is not None
    assert changed.metadata.to_dict() == {"a": "1", "c": "3"}


def test_in_the_portal_a_customer_leaves_stays_and_changes_the_card(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    session = bought(paper, client)
    subscription = str(session.subscription)
    portal = client.v1.billing_portal.sessions.create(
        {"customer": str(session.customer), "return_url": "http://127.0.0.1:1/account/"}
    )
    assert "$39.00 a month" in paper.page(portal.url).text
    assert "http://127.0.0.1:1/account/" in paper.page(portal.url).text
    for verb, leaving in (("leave", True), ("keep", False)):
        assert paper.page(portal.url, {"do": f"{verb} {subscription}"}).status == 303
        assert client.v1.subscriptions.retrieve(subscription).cancel_at_period_end is leaving
    paper.page(portal.url, {"do": "card"})
    paper.knob(f"subscriptions/{subscription}/end_period")
    assert client.v1.subscriptions.retrieve(subscription).status == "past_due"
    paper.page(portal.url, {"do": "card"})
    assert client.v1.subscriptions.retrieve(subscription).status == "active"
    until(lambda: len(receiver.events("invoice.paid")) == 2)


def test_in_the_portal_nobody_changes_what_is_another_customers(paper: Paper, client: stripe.StripeClient) -> None:
    hers = str(bought(paper, client).subscription)
    other = client.v1.customers.create({"email": "eve@example.com"})
    portal = client.v1.billing_portal.sessions.create({"customer": other.id})
    paper.page(portal.url, {"do": f"leave {hers}"})
    assert client.v1.subscriptions.retrieve(hers).cancel_at_period_end is False
    assert "Nibbler" not in paper.page(portal.url).text
