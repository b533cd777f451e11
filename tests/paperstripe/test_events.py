"""Webhooks: what is told, how often, in which order, and what is kept."""

from __future__ import annotations

import stripe

from tests.paperstripe.buying import bought, intent_of, order
from tests.paperstripe.conftest import SECRET, Paper, Receiver
from tests.waiting import until


def arrived(receiver: Receiver, kind: str, *, times: int = 1) -> list[stripe.Event]:
    until(lambda: len(receiver.events(kind)) >= times)
    return receiver.events(kind)


def test_a_purchase_tells_all_that_happened_and_keeps_each_event_once(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    session = bought(paper, client)
    until(lambda: not paper.deliveries()["waiting"])
    told = receiver.events()
    assert {event.type for event in told} >= {
        "customer.created", "customer.subscription.created", "customer.subscription.updated", "invoice.paid",
        "payment_intent.succeeded", "charge.succeeded", "checkout.session.completed",
    }  # fmt: skip
    assert len({event.id for event in told}) == len(told)
    kept = {event.id for event in client.v1.events.list({"limit": 100}).data}
    assert kept == {event.id for event in told}
    done = next(event for event in told if event.type == "checkout.session.completed")
    assert done.data.object["id"] == session.id
    assert client.v1.events.retrieve(done.id).pending_webhooks == 0


def test_an_event_shows_the_object_as_it_was_then(paper: Paper, client: stripe.StripeClient) -> None:
    bought(paper, client)
    created = client.v1.events.list({"type": "customer.subscription.created"}).data[0]
    updated = client.v1.events.list({"type": "customer.subscription.updated"}).data[0]
    assert (created.data.object["status"], updated.data.object["status"]) == ("incomplete", "active")
    assert updated.data.previous_attributes is not None
    assert updated.data.previous_attributes["status"] == "incomplete"
    paper.knob(f"subscriptions/{created.data.object['id']}/renew", outcome="paid")
    assert client.v1.events.retrieve(created.id).data.object["items"] == created.data.object["items"]


def test_refund_dispute_and_cancellation_are_told(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    first, second = bought(paper, client), bought(paper, client)
    client.v1.refunds.create({"payment_intent": intent_of(client, first), "amount": 900})
    assert arrived(receiver, "charge.refunded")[0].data.object["amount_refunded"] == 900
    intent = client.v1.payment_intents.retrieve(intent_of(client, second))
    disputed = paper.knob(f"charges/{intent.latest_charge}/dispute")
    told = arrived(receiver, "charge.dispute.created")[0].data.object
    assert (told["id"], told["payment_intent"], told["status"]) == (disputed["id"], intent.id, "needs_response")
    client.v1.subscriptions.cancel(str(first.subscription))
    assert arrived(receiver, "customer.subscription.deleted")[0].data.object["status"] == "canceled"


def test_an_answer_that_is_not_2xx_is_tried_again_until_it_is(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    paper.knob("knobs", retry_scale=0.01)
    receiver.statuses = [500, 302, 404]
    client.v1.customers.create({"email": "ada@example.com"})
    until(lambda: len(receiver.received) == 4)
    assert len({event.id for event in receiver.events()}) == 1
    until(lambda: not paper.deliveries()["waiting"])
    said = [(line["outcome"], line["status"], line["attempt"]) for line in paper.deliveries()["deliveries"]]
    assert said == [("failed", 500, 1), ("failed", 302, 2), ("failed", 404, 3), ("delivered", 200, 4)]


def test_duplicates_are_the_same_event_again(paper: Paper, client: stripe.StripeClient, receiver: Receiver) -> None:
    paper.knob("knobs", duplicate=3)
    client.v1.customers.create({"email": "ada@example.com"})
    until(lambda: len(receiver.received) == 3)
    assert len({event.id for event in receiver.events()}) == 1
    assert len(client.v1.events.list().data) == 1


def test_held_events_go_out_in_the_order_that_is_asked_for(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    paper.knob("knobs", hold=True)
    bought(paper, client)
    happened = [event.id for event in client.v1.events.list({"limit": 100}).data][::-1]
    assert len(paper.deliveries()["waiting"]) == len(happened)
    assert receiver.received == []
    paper.knob("release", order="given", events=[happened[4], happened[0]])
    assert [event.id for event in receiver.events()] == [happened[4], happened[0]]
    paper.knob("release", order="reversed")
    assert [event.id for event in receiver.events()[2:]] == [
        one for one in happened[::-1] if one not in (happened[4], happened[0])
    ]
    client.v1.customers.create({})
    assert len(paper.deliveries()["waiting"]) == 1
    paper.knob("knobs", hold=False)
    until(lambda: not paper.deliveries()["waiting"])


def test_a_delay_keeps_an_event_back(paper: Paper, client: stripe.StripeClient, receiver: Receiver) -> None:
    paper.knob("knobs", delay_seconds=60)
    client.v1.customers.create({})
    waiting = paper.deliveries()["waiting"][0]
    assert 50 < waiting["due"] - client.v1.events.list().data[0].created <= 61
    assert receiver.received == []


def test_shuffled_events_all_arrive(paper: Paper, client: stripe.StripeClient, receiver: Receiver) -> None:
    paper.knob("knobs", shuffle=True, duplicate=2)
    bought(paper, client)
    kept = {event.id for event in client.v1.events.list({"limit": 100}).data}
    until(lambda: len(receiver.received) == 2 * len(kept))
    assert {event.id for event in receiver.events()} == kept


def test_dropped_events_never_arrive_but_can_be_listed(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    paper.knob("knobs", drop_next=1)
    lost, sent = client.v1.customers.create({}), client.v1.customers.create({})
    until(lambda: receiver.received)
    until(lambda: not paper.deliveries()["waiting"])
    assert [event.data.object["id"] for event in receiver.events()] == [sent.id]
    assert [event.data.object["id"] for event in client.v1.events.list().data] == [sent.id, lost.id]
    assert paper.deliveries()["deliveries"][0]["outcome"] == "dropped"


def test_only_the_chosen_kinds_are_sent(paper: Paper, client: stripe.StripeClient, receiver: Receiver) -> None:
    paper.knob("knobs", types=["checkout.session.completed"])
    bought(paper, client)
    arrived(receiver, "checkout.session.completed")
    assert paper.deliveries()["waiting"] == []
    assert receiver.kinds() == ["checkout.session.completed"]


def test_the_state_goes_on_after_a_stop_and_what_was_not_told_is_told(
    paper: Paper, client: stripe.StripeClient, receiver: Receiver
) -> None:
    paper.knob("knobs", hold=True)
    session = bought(paper, client)
    again = {"idempotency_key": "once"}
    still = client.v1.checkout.sessions.create(order(), again)  # type: ignore[arg-type]
    assert paper.stop() == 0
    paper.start()
    client = paper.client()
    assert client.v1.checkout.sessions.retrieve(session.id).status == "complete"
    assert client.v1.checkout.sessions.create(order(), again).id == still.id  # type: ignore[arg-type]
    assert str(client.v1.checkout.sessions.retrieve(still.id).url).startswith(paper.url)
    arrived(receiver, "checkout.session.completed")


def test_neither_the_log_nor_the_deliveries_hold_a_secret(paper: Paper, client: stripe.StripeClient) -> None:
    session = bought(paper, client)
    portal = client.v1.billing_portal.sessions.create({"customer": str(session.customer)})
    paper.page(portal.url)
    paper.page("/pay/x?token=in_a_query")
    paper.stop()
    log = paper.log.read_text()
    assert "POST /v1/checkout/sessions 200" in log
    token = portal.url.rpartition("/")[2]
    for secret in ("sk_test_of_the_tests", SECRET, token, "in_a_query", "ada@example.com"):
        assert secret not in log
