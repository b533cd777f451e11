"""Calls after the money: subscriptions, invoices, refunds."""

from __future__ import annotations

import copy

from presspass.paper.billing import DECLINED, bill, collect, end, line, money, new_item, total
from presspass.paper.book import Book, public
from presspass.paper.parameters import (
    FLAG,
    META,
    QUANTITY,
    TEXT,
    Choice,
    Each,
    Hash,
    Json,
    Number,
    Reader,
    Refusal,
    no_such,
)
from presspass.paper.routes import merged, route

CANCELLATION = Hash({"comment": TEXT, "feedback": TEXT})
SUBSCRIPTION_UPDATE: dict[str, Reader] = {
    "cancel_at_period_end": FLAG, "metadata": META, "cancellation_details": CANCELLATION,
    "proration_behavior": Choice(("create_prorations", "none", "always_invoice")),
    "items": Each(Hash({"id": TEXT, "price": TEXT, "quantity": QUANTITY})),
}  # fmt: skip


@route("POST", "subscriptions/ID", SUBSCRIPTION_UPDATE)
def update_subscription(book: Book, given: Json, name: str) -> Json:
    subscription = book.get("subscription", name)
    if subscription["status"] == "canceled" and set(given) - {"metadata", "cancellation_details"}:
        said = "A canceled subscription can only update its cancellation_details and metadata."
        raise Refusal(said, executed=True)
    changes = merged(subscription, given)
    if "cancel_at_period_end" in given:
        leaving = given["cancel_at_period_end"]
        changes |= {"cancel_at_period_end": leaving, "canceled_at": book.now() if leaving else None,
                    "cancel_at": subscription["current_period_end"] if leaving else None}  # fmt: skip
    if "cancellation_details" in given:
        changes["cancellation_details"] = subscription["cancellation_details"] | given["cancellation_details"]
    if "items" in given:
        changes["items"] = changed_items(book, subscription, given["items"])
        prorate(book, subscription, changes["items"]["data"], given.get("proration_behavior", "create_prorations"))
    book.change(subscription, **changes)
    return subscription


def changed_items(book: Book, subscription: Json, wanted: list[Json]) -> Json:
    """As Stripe reads it: an entry without an id is one more item, not the old one changed."""
    items: Json = copy.deepcopy(subscription["items"])
    held = {item["id"]: item for item in items["data"]}
    for index, one in enumerate(wanted):
        where = f"items[{index}]"
        if "id" in one and one["id"] not in held:
            raise no_such("subscription_item", one["id"], param=f"{where}[id]")
        if "id" not in one and "price" not in one:
            raise Refusal(f"Missing required param: {where}[price].", param=f"{where}[price]", code="parameter_missing")
        price = book.get("price", one["price"], param=f"{where}[price]") if "price" in one else held[one["id"]]["price"]
        if price["recurring"] is None or price["currency"] != subscription["currency"]:
            raise Refusal("The price must be recurring, in the subscription's currency.", param=f"{where}[price]")
        if "id" in one:
            item = held[one["id"]]
            item.update(price=public(price), quantity=one.get("quantity", item["quantity"]))
        else:
            made = new_item(book, subscription["id"], price, one.get("quantity", 1))
            first = items["data"][0]
            items["data"].append(made | {name: first[name] for name in ("current_period_start", "current_period_end")})
    return items


def prorate(book: Book, subscription: Json, items: list[Json], behaviour: str) -> None:
    start, finish = subscription["current_period_start"], subscription["current_period_end"]
    share = max(0, min(finish - book.now(), finish - start)) / max(1, finish - start)
    difference = round((total(items) - total(subscription["items"]["data"])) * share)
    if behaviour == "none" or not difference:
        return
    entry = line(book, subscription, items[0], difference, proration=True)
    if behaviour == "create_prorations" or difference < 0:
        subscription["_pending"].append(entry)  # on the next invoice
        return
    good = book.objects["customer"][subscription["customer"]]["_card_good"]
    collect(book, bill(book, subscription, "subscription_update", [entry]), good=good)


@route("DELETE", "subscriptions/ID", {"cancellation_details": CANCELLATION, "invoice_now": FLAG, "prorate": FLAG})
def cancel_subscription(book: Book, given: Json, name: str) -> Json:
    subscription = book.get("subscription", name)
    if subscription["status"] == "canceled":
        raise no_such("subscription", name)  # a cancelled one is gone for this verb, in Stripe too
    subscription["cancellation_details"].update(given.get("cancellation_details", {}))
    end(book, subscription, "cancellation_requested")
    return subscription


@route("POST", "invoices/ID/pay")
def pay_invoice(book: Book, given: Json, name: str) -> Json:
    invoice = book.get("invoice", name)
    if invoice["status"] != "open":
        said = "Invoice is already paid" if invoice["status"] == "paid" else "This invoice can no longer be paid"
        raise Refusal(said, code="invoice_already_paid" if invoice["status"] == "paid" else None, executed=True)
    good = book.objects["customer"][invoice["customer"]]["_card_good"]
    collect(book, invoice, good=good)
    if not good:
        more = {"decline_code": "generic_decline"}
        raise Refusal(DECLINED, code="card_declined", status=402, kind="card_error", executed=True, more=more)
    return invoice


@route("POST", "refunds", {"payment_intent": TEXT, "charge": TEXT, "amount": Number(1), "metadata": META,
                           "reason": Choice(("duplicate", "fraudulent", "requested_by_customer"))})  # fmt: skip
def create_refund(book: Book, given: Json, _: str) -> Json:
    charge = refunded_charge(book, given)
    left = charge["amount"] - charge["amount_refunded"]
    amount = given.get("amount", left)
    if not left:
        said = f"Charge {charge['id']} has already been refunded."
        raise Refusal(said, code="charge_already_refunded", executed=True)
    if charge["disputed"]:
        said = f"Charge {charge['id']} has been charged back; cannot issue a refund."
        raise Refusal(said, code="charge_disputed", executed=True)
    if amount > left:
        asked, rest = money(amount, charge["currency"]), money(left, charge["currency"])
        said = f"Refund amount ({asked}) is greater than unrefunded amount on charge ({rest})"
        raise Refusal(said, param="amount", executed=True)
    refund = book.add("refund", {
        "amount": amount, "currency": charge["currency"], "charge": charge["id"],
        "payment_intent": charge["payment_intent"], "reason": given.get("reason"), "status": "succeeded",
        "metadata": given.get("metadata", {}), "customer": None,
    })  # fmt: skip
    del refund["livemode"]
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    book.tell("refund.created", refund)
    book.tell("charge.refunded", charge)
    return refund


def refunded_charge(book: Book, given: Json) -> Json:
    if ("payment_intent" in given) == ("charge" in given):
        said = "One of the following params should be provided for this request: payment_intent or charge."
        raise Refusal(said, code="parameter_missing")
    if "charge" in given:
        charge = book.get("charge", given["charge"], param="charge")
    else:
        intent = book.get("payment_intent", given["payment_intent"], param="payment_intent")
        if intent["status"] != "succeeded":
            said = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
            raise Refusal(said, code="payment_intent_unexpected_state", param="payment_intent", executed=True)
        charge = book.objects["charge"][intent["latest_charge"]]
    if not charge["paid"]:
        raise Refusal(f"Charge {charge['id']} has not been paid and cannot be refunded.", param="charge", executed=True)
    return charge
