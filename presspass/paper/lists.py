"""Lists: newest first, filtered, by pages."""

from __future__ import annotations

from typing import Any

from presspass.paper.book import PATHS, Book, listed, rendered, unfold
from presspass.paper.parameters import CURRENCY, FLAG, TEXT, Choice, Each, Hash, Json, Reader

SUBSCRIPTION_STATUS = Choice(("active", "all", "canceled", "ended", "incomplete", "incomplete_expired", "past_due",
                              "paused", "trialing", "unpaid"))  # fmt: skip


PAYMENT: dict[str, Reader] = {"type": Choice(("payment_intent",)), "payment_intent": TEXT}
FILTERS: dict[str, dict[str, Reader]] = {
    "product": {"active": FLAG, "ids": Each(TEXT)},
    "price": {"active": FLAG, "currency": CURRENCY, "product": TEXT, "lookup_keys": Each(TEXT),
              "type": Choice(("one_time", "recurring"))},
    "customer": {"email": TEXT},
    "checkout.session": {"customer": TEXT, "subscription": TEXT, "payment_intent": TEXT,
                         "status": Choice(("complete", "expired", "open"))},
    "subscription": {"customer": TEXT, "price": TEXT, "status": SUBSCRIPTION_STATUS},
    "invoice": {"customer": TEXT, "subscription": TEXT,
                "status": Choice(("draft", "open", "paid", "uncollectible", "void"))},
    "invoice_payment": {"invoice": TEXT, "status": Choice(("canceled", "open", "paid")),
                        "payment": Hash(PAYMENT, needs=("type",))},
    "refund": {"charge": TEXT, "payment_intent": TEXT},
    "payment_intent": {"customer": TEXT},
    "charge": {"customer": TEXT, "payment_intent": TEXT},
    "dispute": {"charge": TEXT, "payment_intent": TEXT},
    "event": {"type": TEXT, "types": Each(TEXT), "delivery_success": FLAG},
}  # fmt: skip


def fits(kind: str, one: Json, name: str, value: Any) -> bool:
    if name == "created":
        moment = int(one["created"])
        late = moment > value.get("gt", -1) and moment >= value.get("gte", 0)
        return bool(late and moment < value.get("lt", moment + 1) and moment <= value.get("lte", moment))
    if name in ("ids", "lookup_keys", "types"):
        return one[{"ids": "id", "lookup_keys": "lookup_key", "types": "type"}[name]] in value
    if kind == "subscription" and name == "status":
        return bool(value == "all" or one["status"] == value or (value == "ended" and one["status"] == "canceled"))
    if kind == "subscription" and name == "price":
        return any(item["price"]["id"] == value for item in one["items"]["data"])
    if kind == "invoice" and name == "subscription":
        return bool(one["parent"]["subscription_details"]["subscription"] == value)
    if name == "delivery_success":
        return (one["pending_webhooks"] == 0) is value
    if name == "payment":
        return bool(one[name]["payment_intent"] == value.get("payment_intent", one[name]["payment_intent"]))
    if name == "type" and value.endswith(".*"):
        return str(one[name]).startswith(value[:-1])
    return bool(one[name] == value)


def browse(book: Book, kind: str, given: Json) -> Json:
    """A page of a list, newest first."""
    expand, limit = given.pop("expand", []), given.pop("limit", 10)
    after, before = given.pop("starting_after", None), given.pop("ending_before", None)
    rows = list(reversed(book.objects[kind].values()))
    for param, edge in (("starting_after", after), ("ending_before", before)):
        if edge is not None:
            place = rows.index(book.get(kind, edge, param=param))
            rows = rows[place + 1 :] if param == "starting_after" else rows[:place]
    if kind == "subscription" and "status" not in given:  # the ended ones are listed to those who ask for them
        rows = [one for one in rows if one["status"] != "canceled"]
    rows = [one for one in rows if all(fits(kind, one, name, value) for name, value in given.items())]
    page = rows[:limit] if before is None else rows[-limit:]
    shown = listed([rendered(book, one) for one in page], url=f"/v1/{PATHS[kind]}", more=len(rows) > len(page))
    for way in expand:
        unfold(book, shown, way.split("."), way)
    return shown
