"""What can be done to paper Stripe from outside: its clock, its renewals, its bad days."""

from __future__ import annotations

import time

import pytest
import stripe

from tests.paperstripe.buying import bought, order, subscription_of
from tests.paperstripe.conftest import Paper, Receiver
from tests.waiting import until


def test_an_unknown_knob_or_a_wrong_value_turns_nothing(paper: Paper) -> None:
    for wrong in ({"hold": True, "colour": "red"}, {"hold": True, "duplicate": "3"}, {"hold": True, "drop_next": -1}):
        with pytest.raises(AssertionError):
            paper.knob("knobs", **wrong)
    assert paper.knob("knobs")["hold"] is False


def test_open_sessions_expire_when_the_clock_moves(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    soon = client.v1.checkout.sessions.create(order(expires_at=int(time.time()) + 1860))
    late = client.v1.checkout.sessions.create(order())
    paid = bought(paper, client)
    paper.knob("advance", seconds=1900)
    states = [client.v1.checkout.sessions.retrieve(one.id).status for one in (soon, late, paid)]
    assert states == ["expired", "open", "complete"]
    told = until(lambda: receiver.events("checkout.session.expired"))
    assert [event.data.object["id"] for event in told] == [soon.id]
    assert client.v1.checkout.sessions.list({"status": "expired"}).data[0].id == soon.id


def test_the_clock_that_was_moved_decides_what_a_session_may_be(paper: Paper, client: stripe.StripeClient) -> None:
    paper.knob("advance", seconds=3600)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.checkout.sessions.create(order(expires_at=int(time.time()) + 3600))
    assert refused.value.param == "expires_at"


def test_a_paid_renewal_moves_the_period_and_is_told(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    before = subscription_of(client, bought(paper, client))
    paper.knob(f"subscriptions/{before.id}/renew", outcome="paid")
    after = client.v1.subscriptions.retrieve(before.id)
    assert after["items"].data[0].current_period_start == before["items"].data[0].current_period_end
    invoices = client.v1.invoices.list({"subscription": before.id}).data
    assert [(one.billing_reason, one.status) for one in invoices] == [
        ("subscription_cycle", "paid"), ("subscription_create", "paid"),
    ]  # fmt: skip
    until(lambda: len(receiver.events("invoice.paid")) == 2)


def test_a_failed_renewal_is_past_due_until_its_own_invoice_is_paid(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    subscription = str(bought(paper, client).subscription)
    for attempt in (1, 2):
        paper.knob(f"subscriptions/{subscription}/renew", outcome="failed")
        invoice = client.v1.invoices.list().data[0]
        assert (invoice.status, invoice.attempt_count, invoice.amount_remaining) == ("open", attempt, 3900)
        assert client.v1.subscriptions.retrieve(subscription).status == "past_due"
    until(lambda: len(receiver.events("invoice.payment_failed")) == 2)
    paper.knob(f"subscriptions/{subscription}/renew", outcome="paid")
    assert client.v1.subscriptions.retrieve(subscription).status == "active"
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"
    assert len(client.v1.invoices.list().data) == 2


@pytest.mark.parametrize("status", ["canceled", "unpaid"])
def test_when_the_last_retry_failed_the_subscription_ends_as_set(
    paper: Paper, client: stripe.StripeClient, status: str
) -> None:
    subscription = str(bought(paper, client).subscription)
    paper.knob(f"subscriptions/{subscription}/renew", outcome="failed")
    paper.knob(f"subscriptions/{subscription}/give_up", status=status)
    assert client.v1.subscriptions.retrieve(subscription).status == status


def test_at_the_end_of_the_period_who_left_is_gone_and_who_stayed_has_paid(
    paper: Paper, client: stripe.StripeClient
) -> None:
    left, stayed = (str(bought(paper, client).subscription) for _ in range(2))
    client.v1.subscriptions.update(left, {"cancel_at_period_end": True})
    paper.knob("advance", seconds=32 * 86400)
    assert client.v1.subscriptions.retrieve(left).status == "canceled"
    assert client.v1.subscriptions.retrieve(stayed).status == "active"
    assert len(client.v1.invoices.list({"subscription": stayed}).data) == 2
    assert len(client.v1.invoices.list({"subscription": left}).data) == 1


def test_a_session_can_be_complete_before_its_money_came(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    session = client.v1.checkout.sessions.create(order())
    paper.knob(f"sessions/{session.id}/pay", payment_status="unpaid")
    early = client.v1.checkout.sessions.retrieve(session.id)
    assert (early.status, early.payment_status) == ("complete", "unpaid")
    subscription = subscription_of(client, early)
    assert subscription.status == "incomplete"
    paper.knob(f"subscriptions/{subscription.id}/renew", outcome="paid")
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "paid"
    assert client.v1.subscriptions.retrieve(subscription.id).status == "active"
    until(lambda: receiver.events("checkout.session.async_payment_succeeded"))


def test_a_line_that_is_cut_after_the_work_leaves_one_session_when_the_sdk_asks_again(
    paper: Paper, client: stripe.StripeClient
) -> None:
    paper.knob("knobs", cut_next=1)
    with pytest.raises(stripe.APIConnectionError):
        client.v1.checkout.sessions.create(order(), {"idempotency_key": "hold-7"})
    paper.knob("knobs", cut_next=1)
    again = paper.client(retries=2).v1.checkout.sessions.create(order(), {"idempotency_key": "hold-7"})
    assert [one.id for one in client.v1.checkout.sessions.list().data] == [again.id]


def test_when_it_is_down_nothing_is_done(paper: Paper, client: stripe.StripeClient) -> None:
    paper.knob("knobs", down=True)
    with pytest.raises(stripe.APIError) as refused:
        client.v1.customers.create({})
    assert refused.value.http_status == 503
    paper.knob("knobs", down=False)
    assert client.v1.customers.list().data == []


def test_a_slow_answer_comes_after_the_work(paper: Paper, client: stripe.StripeClient) -> None:
    paper.knob("knobs", slow_seconds=0.3)
    before = time.monotonic()
    client.v1.customers.create({})
    assert time.monotonic() - before >= 0.3


def test_after_a_reset_nothing_is_known(paper: Paper, client: stripe.StripeClient) -> None:
    session = bought(paper, client)
    paper.knob("advance", seconds=86400)
    assert paper.knob("reset")["now"] <= time.time()
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.retrieve(session.id)
    assert client.v1.events.list().data == []
