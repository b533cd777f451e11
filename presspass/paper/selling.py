"""Calls before the money: products, prices, customers, Checkout Sessions, the billing portal."""

from __future__ import annotations

import secrets

from presspass.paper.billing import expire, new_customer, new_price, new_product
from presspass.paper.book import Book, public
from presspass.paper.parameters import (
    CURRENCY,
    DAY,
    EMAIL,
    FLAG,
    HALF_HOUR,
    META,
    PRICE_DATA,
    PRODUCT_DATA,
    QUANTITY,
    TEXT,
    URL,
    Choice,
    Each,
    Hash,
    Json,
    Number,
    Reader,
    Refusal,
    Text,
)
from presspass.paper.routes import merged, route

PERSON: dict[str, Reader] = {"email": EMAIL, "name": TEXT, "description": TEXT, "metadata": META}
NOT_RECURRING = "You must provide at least one recurring price in `subscription` mode."
SESSION: dict[str, Reader] = {
    "mode": Choice(("payment", "setup", "subscription")), "ui_mode": Choice(("hosted_page",)), "success_url": URL,
    "cancel_url": URL, "client_reference_id": Text(200), "customer": TEXT, "customer_email": EMAIL, "metadata": META,
    "expires_at": Number(), "locale": Text(10), "currency": CURRENCY,
    "line_items": Each(Hash({"price": TEXT, "quantity": QUANTITY,
                             "price_data": Hash(PRICE_DATA, needs=("currency",))})),
    "subscription_data": Hash({"metadata": META, "description": Text(500)}),
}  # fmt: skip


@route("POST", "products", PRODUCT_DATA | {"id": TEXT, "active": FLAG}, needs=("name",))
def create_product(book: Book, given: Json, _: str) -> Json:
    if given.get("id") in book.objects["product"]:
        raise Refusal("Product already exists.", param="id", code="resource_already_exists")
    return new_product(book, given)


@route("POST", "products/ID", PRODUCT_DATA | {"active": FLAG})
def update_product(book: Book, given: Json, name: str) -> Json:
    return update(book, "product", given, name)


@route("POST", "prices/ID", {"active": FLAG, "nickname": TEXT, "metadata": META})
def update_price(book: Book, given: Json, name: str) -> Json:
    return update(book, "price", given, name)


@route("POST", "customers/ID", PERSON)
def update_customer(book: Book, given: Json, name: str) -> Json:
    return update(book, "customer", given, name)


def update(book: Book, kind: str, given: Json, name: str) -> Json:
    about = book.get(kind, name)
    book.change(about, **given | merged(about, given))
    return about


@route("POST", "prices", PRICE_DATA | {"lookup_key": Text(200), "transfer_lookup_key": FLAG, "nickname": TEXT,
                                       "metadata": META}, needs=("currency",))  # fmt: skip
def create_price(book: Book, given: Json, _: str) -> Json:
    key = given.get("lookup_key")
    holder = next((one for one in book.objects["price"].values() if key and one["lookup_key"] == key), None)
    if holder and not given.get("transfer_lookup_key"):
        raise Refusal(f"A price (`{holder['id']}`) already uses that lookup key.", param="lookup_key")
    product = product_of(book, given, "")
    if holder:
        holder["lookup_key"] = None
    return new_price(book, given, product=product)


def product_of(book: Book, given: Json, where: str, *, active: bool = True) -> str:
    if "unit_amount" not in given:
        name = f"{where}[unit_amount]" if where else "unit_amount"
        raise Refusal(f"Missing required param: {name}.", param=name, code="parameter_missing")
    if ("product" in given) == ("product_data" in given):
        name = f"{where}[product]" if where else "product"
        raise Refusal("You must pass either product or product_data.", param=name, code="parameter_missing")
    if "product" in given:
        return str(book.get("product", given["product"], param=f"{where}[product]" if where else "product")["id"])
    return str(new_product(book, given["product_data"], active=active)["id"])


@route("POST", "customers", PERSON)
def create_customer(book: Book, given: Json, _: str) -> Json:
    return new_customer(book, given)


@route("POST", "checkout/sessions", SESSION, needs=("mode",))
def create_session(book: Book, given: Json, _: str) -> Json:
    check_session(book, given)
    lines = [session_line(book, one, f"line_items[{index}]") for index, one in enumerate(given["line_items"])]
    currency, amount = lines[0]["currency"], sum(one["amount_total"] for one in lines)
    if any(one["currency"] != currency for one in lines):
        raise Refusal("All line items must have the same currency.", param="line_items")
    if amount < 50:
        raise Refusal("The Checkout Session's total amount must convert to at least 50 cents.", code="amount_too_small")
    if "customer" in given:
        book.get("customer", given["customer"], param="customer")
    return book.add("checkout.session", {
        "mode": "subscription", "status": "open", "payment_status": "unpaid", "ui_mode": "hosted_page",
        "currency": currency, "amount_subtotal": amount, "amount_total": amount,
        "client_reference_id": given.get("client_reference_id"), "customer_details": None,
        "customer": given.get("customer"), "customer_email": given.get("customer_email"),
        "customer_creation": None if "customer" in given else "always", "subscription": None, "invoice": None,
        "payment_intent": None, "payment_link": None, "setup_intent": None, "locale": given.get("locale"),
        "success_url": given["success_url"], "cancel_url": given.get("cancel_url"),
        "metadata": given.get("metadata", {}),
        "expires_at": given.get("expires_at", book.now() + DAY), "payment_method_types": ["card"], "url": None,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}, "_lines": lines,
        "_subscription": {"metadata": {}} | given.get("subscription_data", {}),
    })  # fmt: skip


def check_session(book: Book, given: Json) -> None:
    if given["mode"] != "subscription":
        raise Refusal("Paper Stripe knows no other mode than subscription.", param="mode")
    for name in ("line_items", "success_url"):
        if not given.get(name):
            raise Refusal(f"Missing required param: {name}.", param=name, code="parameter_missing")
    if "customer" in given and "customer_email" in given:
        raise Refusal("You may only specify one of these parameters: customer, customer_email.", param="customer")
    expires = given.get("expires_at", book.now() + DAY)
    if expires < book.now() + HALF_HOUR:
        said = "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation."
        raise Refusal(said, param="expires_at")
    if expires > book.now() + DAY:
        said = "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation."
        raise Refusal(said, param="expires_at")


def session_line(book: Book, given: Json, where: str) -> Json:
    if ("price" in given) == ("price_data" in given):
        raise Refusal(f"You must specify either `price` or `price_data` for {where}.", param=where)
    if "quantity" not in given:
        raise Refusal(f"Quantity is required. Add `quantity` to `{where}`", param=where)
    if "price" in given:
        price = book.get("price", given["price"], param=f"{where}[price]")
        if not price["active"]:
            said = "The price specified is inactive. This field only accepts active prices."
            raise Refusal(said, param=f"{where}[price]")
    else:
        inline, at = given["price_data"], f"{where}[price_data]"
        if "recurring" not in inline:
            raise Refusal(NOT_RECURRING, param=f"{at}[recurring]")
        price = new_price(book, inline, product=product_of(book, inline, at, active=False), active=False)
    if price["recurring"] is None:
        raise Refusal(NOT_RECURRING, param="line_items")
    amount = price["unit_amount"] * given["quantity"]
    name = book.objects["product"][price["product"]]["name"]
    return {
        "id": f"li_{secrets.token_hex(12)}", "object": "item", "price": public(price), "quantity": given["quantity"],
        "amount_total": amount, "amount_subtotal": amount, "amount_discount": 0, "amount_tax": 0,
        "currency": price["currency"], "description": name,
    }  # fmt: skip


@route("POST", "checkout/sessions/ID/expire")
def expire_session(book: Book, given: Json, name: str) -> Json:
    session = book.get("checkout.session", name)
    if session["status"] != "open":
        said = 'Only Checkout Sessions with a status in ["open"] can be expired. '
        raise Refusal(f"{said}This Checkout Session has a status of `{session['status']}`.", executed=True)
    expire(book, session)
    return session


@route(
    "POST", "billing_portal/sessions", {"customer": TEXT, "return_url": URL, "locale": Text(10)}, needs=("customer",)
)
def create_portal(book: Book, given: Json, _: str) -> Json:
    customer = book.get("customer", given["customer"], param="customer")
    token = secrets.token_urlsafe(24)
    made = book.add("billing_portal.session", {
        "customer": customer["id"], "return_url": given.get("return_url"), "url": f"{book.base}/portal/{token}",
        "configuration": "bpc_paper", "locale": None, "on_behalf_of": None, "flow": None, "_token": token,
    })  # fmt: skip
    del made["metadata"]
    return made
