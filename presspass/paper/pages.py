"""What a person sees: the pay page and the billing portal, without scripts."""

from __future__ import annotations

import html
from datetime import UTC, datetime

from presspass.paper.billing import collect, complete, money, open_invoice, total
from presspass.paper.book import Book
from presspass.paper.keeping import update_subscription
from presspass.paper.parameters import HALF_HOUR, Json

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1a; --paper: #fbfaf7; --soft: #5c5a55; --line: #d9d6cf;
  --accent: #14532d }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ecebe7; --paper: #171715; --soft: #a9a69f; --line: #3a3935; --accent: #86d3a2 } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.5 system-ui, sans-serif }
main { max-width: 34rem; margin: 0 auto; padding: 2.5rem 1.25rem }
h1 { font-size: 1.5rem; margin: 0 0 1rem } h2 { font-size: 1.125rem; margin: 2rem 0 .5rem }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1.25rem;
  font-variant-numeric: tabular-nums; margin: 1rem 0 }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
.note { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .9rem; color: var(--soft) }
.alert { border-left: .25rem solid var(--ink); padding: .4rem .9rem; font-weight: 600 }
form { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0 } label { flex-basis: 100% }
input { font: inherit; width: 100%; box-sizing: border-box; padding: .45rem; margin-top: .25rem }
button { font: inherit; padding: .5rem 1.1rem; border: 1px solid var(--soft); border-radius: .4rem; background: none;
  color: var(--ink); cursor: pointer }
button.main { background: var(--accent); border-color: var(--accent); color: var(--paper); font-weight: 600 }
a { color: var(--accent) } :focus-visible { outline: .2rem solid var(--accent); outline-offset: .15rem }
"""


NOTE = "<p class=note>No real money moves. This page stands in for Stripe’s, on this machine only.</p>"


def page(title: str, body: str) -> bytes:
    head = (
        f"<meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'><title>{title}</title>"
    )
    whole = f"<!doctype html><html lang=en><head>{head}<link rel=icon href='data:,'><style>{STYLE}</style></head>"
    return f"{whole}<body><main><h1>{title}</h1>{body}</main></body></html>".encode()


def facts(**rows: str) -> str:
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in rows.items()) + "</dl>"


def cost(items: list[Json]) -> str:
    recurring = items[0]["price"]["recurring"]
    many = recurring["interval_count"]
    every = f"a {recurring['interval']}" if many == 1 else f"every {many} {recurring['interval']}s"
    return f"{money(total(items), items[0]['price']['currency'])} {every}"


def date(moment: int) -> str:
    then = datetime.fromtimestamp(moment, UTC)
    return f"{then.day} {then:%B %Y, %H:%M} UTC"


def pay_page(book: Book, session: Json, *, declined: bool) -> bytes:
    plan = ", ".join(one["description"] for one in session["_lines"])
    if session["status"] != "open":
        complete = session["status"] == "complete"
        said = "This subscription is started." if complete else "This page has expired. Nothing was charged."
        there = (success_url(session) if complete else session["cancel_url"]) or ""
        back = f"<p><a href='{html.escape(there)}'>Go back</a></p>" if there else ""
        return page("Paper payment", f"<p>{said}</p>{back}{NOTE}")
    customer = book.objects["customer"].get(session["customer"] or "", {})
    email = session["customer_email"] or customer.get("email")
    known = facts(Plan=plan, Amount=cost(session["_lines"]), **({"For": email} if email else {}))
    asked = "" if email else "<label>E-mail<input name=email type=email required autocomplete=email></label>"
    alert = "<p class=alert role=alert>The card was declined. Nothing was charged. You can try again.</p>"
    cancel = "<button name=do value=cancel formnovalidate>Cancel and go back</button>" if session["cancel_url"] else ""
    form = (
        f"<form method=post>{asked}<button class=main name=do value=pay>Pay</button>"
        f"<button name=do value=decline formnovalidate>Decline the card</button>{cancel}</form>"
    )
    until = f"<p>This page is open until {date(session['expires_at'])}.</p>"
    return page("Paper payment", f"{NOTE}{alert if declined else ''}{known}{form}{until}")


def success_url(session: Json) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def press_pay(book: Book, session: Json, form: dict[str, str]) -> str:
    """Do what the pressed button says; where the browser goes next."""
    here = f"/pay/{session['id']}"
    if form.get("do") == "cancel":
        return session["cancel_url"] or here
    if form.get("do") == "decline":
        return f"{here}?declined=1"
    if form.get("do") != "pay" or session["status"] == "expired":
        return here
    complete(book, session, email=form.get("email", "paper@example.com"))
    return success_url(session)


def portal_page(book: Book, portal: Json) -> bytes:
    customer = book.objects["customer"][portal["customer"]]
    body = NOTE
    for subscription in book.objects["subscription"].values():
        if subscription["customer"] != customer["id"] or subscription["status"] == "canceled":
            continue
        leaving, items = subscription["cancel_at_period_end"], subscription["items"]["data"]
        plan = ", ".join(book.objects["product"][item["price"]["product"]]["name"] for item in items)
        shown = {"Amount": cost(items), "State": subscription["status"].replace("_", " ")}
        shown["Ends" if leaving else "Renews"] = date(subscription["current_period_end"])
        verb, says = ("keep", "Keep the subscription") if leaving else ("leave", "Cancel at period end")
        button = f"<button name=do value='{verb} {subscription['id']}'>{says}</button>"
        body += f"<h2>{html.escape(plan)}</h2>{facts(**shown)}<form method=post>{button}</form>"
    good = customer["_card_good"]
    card = "It is good: payments succeed." if good else "It is declined: payments fail."
    swap = "Use a card that is declined" if good else "Use a good card"
    body += f"<h2>Card</h2><p>{card}</p><form method=post><button name=do value=card>{swap}</button></form>"
    if portal["return_url"]:
        body += f"<p><a href='{html.escape(portal['return_url'])}'>Go back</a></p>"
    return page("Paper billing", body)


def portal_of(book: Book, token: str) -> Json | None:
    """The billing portal that this link opens, for an hour."""
    for one in book.objects["billing_portal.session"].values():
        if one["_token"] == token and one["created"] > book.now() - 2 * HALF_HOUR:
            return one
    return None


def press_portal(book: Book, portal: Json, pressed: str) -> None:
    customer = book.objects["customer"][portal["customer"]]
    theirs = [one for one in book.objects["subscription"].values() if one["customer"] == customer["id"]]
    if pressed == "card":
        customer["_card_good"] = not customer["_card_good"]
        book.dirty = True
        for subscription in theirs:
            invoice = open_invoice(book, subscription)
            if customer["_card_good"] and invoice and subscription["status"] in ("past_due", "unpaid"):
                collect(book, invoice, good=True)
        return
    verb, _, name = pressed.partition(" ")
    if verb in ("leave", "keep") and name in {one["id"] for one in theirs if one["status"] != "canceled"}:
        update_subscription(book, {"cancel_at_period_end": verb == "leave"}, name)
