"""Money and time: sessions become subscriptions, invoices are collected, periods end."""

from __future__ import annotations

import calendar
import copy
from collections.abc import Iterable
from datetime import UTC, datetime

from presspass.paper.book import Book, listed, public
from presspass.paper.parameters import DAY, Json, Refusal

DECLINED = "Your card was declined."


def money(amount: int, currency: str) -> str:
    sign = {"usd": "$", "eur": "€", "gbp": "£"}.get(currency, f"{currency.upper()} ")
    return f"{sign}{amount / 100:,.2f}"


def later(start: int, recurring: Json, *, anchor: int) -> int:
    """One interval on; the 31st becomes the last of a shorter month, and the 31st again after it."""
    interval, count = recurring["interval"], recurring["interval_count"]
    if interval in ("day", "week"):
        return start + int(count) * DAY * (7 if interval == "week" else 1)
    moment = datetime.fromtimestamp(start, UTC)
    months = moment.month - 1 + int(count) * (12 if interval == "year" else 1)
    year, month = moment.year + months // 12, months % 12 + 1
    day = min(datetime.fromtimestamp(anchor, UTC).day, calendar.monthrange(year, month)[1])
    return int(moment.replace(year=year, month=month, day=day).timestamp())


def total(items: Iterable[Json]) -> int:
    return sum(int(item["price"]["unit_amount"]) * int(item["quantity"]) for item in items)


def new_customer(book: Book, given: Json) -> Json:
    values: Json = {
        "email": None,
        "name": None,
        "description": None,
        "balance": 0,
        "delinquent": False,
        "currency": None,
    }
    made = book.add("customer", values | given | {"_card_good": True})
    book.tell("customer.created", made)
    return made


def new_price(book: Book, given: Json, *, product: str, active: bool = True) -> Json:
    recurring = given.get("recurring")
    if recurring is not None:
        recurring = {
            "interval_count": 1,
            "usage_type": "licensed",
            "meter": None,
            "trial_period_days": None,
        } | recurring
    return book.add("price", {
        "active": active, "billing_scheme": "per_unit", "currency": given["currency"], "product": product,
        "unit_amount": given["unit_amount"], "unit_amount_decimal": str(given["unit_amount"]), "recurring": recurring,
        "type": "recurring" if recurring else "one_time", "lookup_key": given.get("lookup_key"),
        "tax_behavior": "unspecified", "nickname": given.get("nickname"), "metadata": given.get("metadata", {}),
    })  # fmt: skip


def new_product(book: Book, given: Json, *, active: bool = True) -> Json:
    values: Json = {"active": active, "description": None, "images": [], "default_price": None, "updated": book.now()}
    return book.add("product", values | given, name=given.get("id", ""))


def new_item(book: Book, subscription: str, price: Json, quantity: int) -> Json:
    made = book.add("subscription_item", {"subscription": subscription, "price": public(price), "quantity": quantity})
    del book.objects["subscription_item"][made["id"]]  # it lives inside its subscription
    return made


def set_period(subscription: Json, start: int, end: int) -> None:
    for one in (*subscription["items"]["data"], subscription):
        one["current_period_start"], one["current_period_end"] = start, end


def new_subscription(book: Book, customer: str, session: Json) -> Json:
    now = book.now()
    made = book.add("subscription", {
        "customer": customer, "status": "incomplete", "currency": session["currency"], "cancel_at_period_end": False,
        "cancel_at": None, "canceled_at": None, "ended_at": None, "start_date": now, "billing_cycle_anchor": now,
        "collection_method": "charge_automatically", "latest_invoice": None,
        "metadata": session["_subscription"]["metadata"],
        "cancellation_details": {"comment": None, "feedback": None, "reason": None}, "trial_end": None, "discounts": [],
        "description": session["_subscription"].get("description"), "pending_update": None, "_pending": [],
    })  # fmt: skip
    items = [new_item(book, made["id"], line["price"], line["quantity"]) for line in session["_lines"]]
    made["items"] = listed(items, url=f"/v1/subscription_items?subscription={made['id']}")
    set_period(made, now, later(now, items[0]["price"]["recurring"], anchor=now))
    return made


def line(book: Book, subscription: Json, item: Json, amount: int, *, proration: bool = False) -> Json:
    product = book.objects["product"][item["price"]["product"]]["name"]
    made = book.add("line_item", {
        "amount": amount, "subtotal": amount, "currency": subscription["currency"], "quantity": item["quantity"],
        "description": f"{item['quantity']} × {product}" if not proration else f"Change to {product}",
        "period": {"start": item["current_period_start"], "end": item["current_period_end"]},
        "pricing": {"type": "price_details", "unit_amount_decimal": item["price"]["unit_amount_decimal"],
                    "price_details": {"price": item["price"]["id"], "product": item["price"]["product"]}},
        "parent": {"type": "subscription_item_details", "invoice_item_details": None, "subscription_item_details": {
            "subscription": subscription["id"], "subscription_item": item["id"], "proration": proration}},
    })  # fmt: skip
    return book.objects["line_item"].pop(made["id"])


def bill(book: Book, subscription: Json, reason: str, lines: list[Json]) -> Json:
    """An open invoice over these lines, with the payment that is to pay it."""
    customer = book.objects["customer"][subscription["customer"]]
    amount, now = sum(one["amount"] for one in lines), book.now()
    currency, owner = subscription["currency"], customer["id"]
    invoice = book.add("invoice", {
        "status": "open", "customer": owner, "customer_email": customer["email"], "currency": currency,
        "amount_due": amount, "hosted_invoice_url": None,
        "amount_paid": 0, "amount_remaining": amount, "subtotal": amount, "total": amount, "billing_reason": reason,
        "attempt_count": 0, "attempted": False, "auto_advance": True, "next_payment_attempt": None, "number": None,
        "collection_method": "charge_automatically", "period_start": lines[0]["period"]["start"],
        "period_end": lines[0]["period"]["end"], "status_transitions": {
            "finalized_at": now, "paid_at": None, "voided_at": None, "marked_uncollectible_at": None},
        "parent": {"type": "subscription_details", "quote_details": None, "subscription_details": {
            "subscription": subscription["id"], "metadata": subscription["metadata"]}},
    })  # fmt: skip
    invoice["number"] = f"PAPER-{len(book.objects['invoice']):04}"
    invoice["lines"] = listed(lines, url=f"/v1/invoices/{invoice['id']}/lines")
    intent = book.add("payment_intent", {
        "amount": amount, "amount_received": 0, "amount_capturable": 0, "currency": currency, "customer": owner,
        "status": "requires_payment_method", "latest_charge": None, "last_payment_error": None, "canceled_at": None,
        "capture_method": "automatic", "payment_method_types": ["card"], "description": f"Invoice {invoice['number']}",
    })  # fmt: skip
    book.add("invoice_payment", {
        "invoice": invoice["id"], "amount_requested": amount, "amount_paid": None, "currency": currency,
        "is_default": True, "status": "open", "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        "status_transitions": {"paid_at": None, "canceled_at": None},
    })  # fmt: skip
    subscription["latest_invoice"] = invoice["id"]
    book.tell("invoice.created", invoice)
    book.tell("invoice.finalized", invoice)
    return invoice


def collect(book: Book, invoice: Json, *, good: bool) -> None:
    """One try to charge the card for an open invoice, and what follows for its subscription."""
    payment = next(one for one in book.objects["invoice_payment"].values() if one["invoice"] == invoice["id"])
    intent = book.objects["payment_intent"][payment["payment"]["payment_intent"]]
    subscription = book.objects["subscription"][invoice["parent"]["subscription_details"]["subscription"]]
    amount, now = invoice["amount_due"], book.now()
    charge = book.add("charge", {
        "amount": amount, "amount_captured": amount * good, "amount_refunded": 0, "captured": good, "paid": good,
        "currency": invoice["currency"], "customer": invoice["customer"], "payment_intent": intent["id"],
        "disputed": False, "refunded": False, "status": "succeeded" if good else "failed",
        "failure_code": None if good else "card_declined",
        "failure_message": None if good else DECLINED, "billing_details": {"email": invoice["customer_email"]},
        "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": "4242" if good else "0341"}},
    })  # fmt: skip
    intent["latest_charge"] = charge["id"]
    invoice.update(attempt_count=invoice["attempt_count"] + 1, attempted=True)
    if not good:
        failed = {"type": "card_error", "code": "card_declined", "decline_code": "generic_decline", "message": DECLINED}
        intent["last_payment_error"] = failed | {"charge": charge["id"]}
        invoice["next_payment_attempt"] = now + 3 * DAY
        for kind, about in (("charge.failed", charge), ("payment_intent.payment_failed", intent)):
            book.tell(kind, about)
        book.tell("invoice.payment_failed", invoice)
        if subscription["status"] == "active":
            book.change(subscription, status="past_due")
        return
    intent.update(status="succeeded", amount_received=amount, last_payment_error=None)
    invoice.update(status="paid", amount_paid=amount, amount_remaining=0, next_payment_attempt=None)
    invoice["status_transitions"]["paid_at"] = payment["status_transitions"]["paid_at"] = now
    payment.update(status="paid", amount_paid=amount)
    for kind, about in (("charge.succeeded", charge), ("payment_intent.succeeded", intent)):
        book.tell(kind, about)
    if subscription["status"] in ("incomplete", "past_due", "unpaid"):
        book.change(subscription, status="active")
    book.tell("invoice.paid", invoice)
    book.tell("invoice.payment_succeeded", invoice)
    settle(book, subscription)


def settle(book: Book, subscription: Json) -> None:
    """A session that was complete before its money came is paid now."""
    for session in book.objects["checkout.session"].values():
        waited = session["status"] == "complete" and session["payment_status"] == "unpaid"
        if waited and session["subscription"] == subscription["id"]:
            session["payment_status"] = "paid"
            book.tell("checkout.session.async_payment_succeeded", session)


def complete(book: Book, session: Json, *, email: str, paid: bool = True) -> None:
    """What the pay page does when the card is good. Complete already: nothing."""
    if session["status"] == "complete":
        return
    if session["status"] != "open":
        raise Refusal("This Checkout Session has expired.", executed=True)
    if session["customer"] is None:
        session["customer"] = new_customer(book, {"email": session["customer_email"] or email})["id"]
    customer = book.objects["customer"][session["customer"]]
    customer["_card_good"] = True
    subscription = new_subscription(book, customer["id"], session)
    items = subscription["items"]["data"]
    lines = [line(book, subscription, item, total([item])) for item in items]
    invoice = bill(book, subscription, "subscription_create", lines)
    book.tell("customer.subscription.created", subscription)
    if paid:
        collect(book, invoice, good=True)
    session.update(
        status="complete", payment_status="paid" if paid else "unpaid", subscription=subscription["id"],
        invoice=invoice["id"], url=None, customer_details={"email": customer["email"], "name": customer["name"]},
    )  # fmt: skip
    book.tell("checkout.session.completed", session)


def open_invoice(book: Book, subscription: Json) -> Json | None:
    invoice = book.objects["invoice"].get(subscription["latest_invoice"] or "")
    return invoice if invoice and invoice["status"] == "open" else None


def renew(book: Book, subscription: Json, *, good: bool) -> Json:
    """Try the open invoice again; when there is none, bill the next period."""
    if subscription["status"] in ("canceled", "incomplete_expired"):
        raise Refusal("A canceled subscription does not renew.", executed=True)
    invoice = open_invoice(book, subscription)
    if invoice is None:
        items, start = subscription["items"]["data"], subscription["current_period_end"]
        before = {"items": copy.deepcopy(subscription["items"]), "latest_invoice": subscription["latest_invoice"]}
        end = later(start, items[0]["price"]["recurring"], anchor=subscription["billing_cycle_anchor"])
        set_period(subscription, start, end)
        lines = [line(book, subscription, item, total([item])) for item in items] + subscription["_pending"]
        subscription["_pending"] = []
        invoice = bill(book, subscription, "subscription_cycle", lines)
        book.tell("customer.subscription.updated", subscription, previous=before)
    collect(book, invoice, good=good)
    return subscription


def end(book: Book, subscription: Json, reason: str) -> None:
    now = book.now()
    subscription.update(status="canceled", canceled_at=subscription["canceled_at"] or now, ended_at=now)
    subscription["cancellation_details"]["reason"] = reason
    book.tell("customer.subscription.deleted", subscription)


def expire(book: Book, session: Json) -> None:
    session.update(status="expired", url=None)
    book.tell("checkout.session.expired", session)


def happen(book: Book) -> None:
    """What is due by the clock: sessions expire, periods end."""
    now = book.now()
    for session in list(book.objects["checkout.session"].values()):
        if session["status"] == "open" and session["expires_at"] <= now:
            expire(book, session)
    for subscription in list(book.objects["subscription"].values()):
        while subscription["status"] in ("active", "past_due") and subscription["current_period_end"] <= now:
            if subscription["cancel_at_period_end"]:
                end(book, subscription, "cancellation_requested")
            elif open_invoice(book, subscription):
                break  # it is being retried; no second one on top
            else:
                good = book.objects["customer"][subscription["customer"]]["_card_good"]
                renew(book, subscription, good=good)
