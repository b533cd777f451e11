"""What is done to it from outside, over /_paper/."""

from __future__ import annotations

import dataclasses

from presspass.paper.billing import complete, end, happen, renew, set_period
from presspass.paper.book import Book, rendered
from presspass.paper.parameters import DAY, Json, Refusal


def knob(book: Book, way: list[str], given: Json) -> Json:
    """What is done to it from outside, over /_paper/."""
    verb = (way[0], *way[2:])
    if verb == ("sessions", "pay"):
        session = book.get("checkout.session", way[1])
        paid = given.get("payment_status", "paid") == "paid"
        complete(book, session, email=given.get("email", "paper@example.com"), paid=paid)
        return rendered(book, session)
    if verb == ("subscriptions", "renew"):
        subscription = book.get("subscription", way[1])
        if given.get("outcome") not in ("paid", "failed"):
            raise Refusal("outcome is paid or failed", param="outcome")
        return rendered(book, renew(book, subscription, good=given["outcome"] == "paid"))
    if verb == ("subscriptions", "end_period"):
        subscription = book.get("subscription", way[1])
        set_period(subscription, subscription["current_period_start"], book.now())
        happen(book)
        return rendered(book, subscription)
    if verb == ("subscriptions", "give_up"):
        subscription = book.get("subscription", way[1])
        if given.get("status", "canceled") == "unpaid":
            book.change(subscription, status="unpaid")
        else:
            end(book, subscription, "payment_failed")
        return rendered(book, subscription)
    if verb == ("charges", "dispute"):
        return rendered(book, dispute(book, book.get("charge", way[1])))
    if verb == ("advance",):
        if type(given.get("seconds")) is not int or given["seconds"] < 0:
            raise Refusal("seconds is a number, and the clock goes forward only", param="seconds")
        book.offset, book.dirty = book.offset + given["seconds"], True
        happen(book)
        return {"now": book.now()}
    if verb == ("knobs",):
        book.knobs.turn(given)
        book.lock.notify_all()
        return dataclasses.asdict(book.knobs)
    if verb == ("reset",):
        book.forget()
        return {"now": book.now()}
    raise Refusal("No such knob.", status=404)


def dispute(book: Book, charge: Json) -> Json:
    if charge["disputed"] or not charge["paid"]:
        raise Refusal(f"Charge {charge['id']} cannot be disputed.", executed=True)
    charge["disputed"] = True
    made = book.add("dispute", {
        "amount": charge["amount"], "currency": charge["currency"], "charge": charge["id"], "reason": "fraudulent",
        "payment_intent": charge["payment_intent"], "status": "needs_response", "is_charge_refundable": False,
        "evidence": {}, "evidence_details": {"due_by": book.now() + 7 * DAY}, "balance_transactions": [],
    })  # fmt: skip
    book.tell("charge.dispute.created", made)
    return made
