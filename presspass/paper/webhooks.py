"""Signed webhooks, sent until the receiver says 2xx."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import random
import time
from urllib.parse import urlsplit

from presspass.paper.book import Book
from presspass.paper.parameters import Json, Refusal

RETRY_MOST_SECONDS = 60.0


def signature(secret: str, payload: bytes) -> str:
    # By the true clock: the receiver compares with its own, and knows nothing of the one that a knob moves.
    moment = int(time.time())
    mac = hmac.new(secret.encode(), f"{moment}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={moment},v1={mac}"


def post(url: str, payload: bytes, signed: str) -> int | None:
    """The answer's status; None when there was none."""
    there = urlsplit(url)
    kind = http.client.HTTPSConnection if there.scheme == "https" else http.client.HTTPConnection
    line = kind(there.hostname or "", there.port, timeout=20)
    headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signed,
               "User-Agent": "Stripe/1.0 (paper)", "Connection": "close"}  # fmt: skip
    try:
        line.request("POST", (there.path or "/") + (f"?{there.query}" if there.query else ""), payload, headers)
        return line.getresponse().status
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        line.close()


def take(book: Book) -> Json | None:
    """The next letter that is due, now on its way; None if there is none."""
    if book.knobs.hold:
        return None
    due = [one for one in book.waiting if one["due"] <= time.time() and one["id"] not in book.flying]
    if not due:
        return None
    first: Json = min(due, key=lambda one: float(one["due"]))
    book.flying.add(first["id"])
    return first


def deliver(book: Book, letter: Json) -> Json | None:
    """Send one letter that is marked as flying; it leaves the queue with a 2xx, and waits longer with anything else."""
    with book.lock:
        event = book.objects["event"].get(letter["event"])
        url = book.knobs.webhook
        if event is None:  # forgotten meanwhile
            book.flying.discard(letter["id"])
            return None
        payload = json.dumps(event, indent=2).encode()
    status = post(url, payload, signature(book.secret, payload))
    with book.lock:
        book.flying.discard(letter["id"])
        letter["attempt"] += 1
        book.dirty = True
        good = status is not None and 200 <= status < 300
        if good:
            book.waiting = [one for one in book.waiting if one["id"] != letter["id"]]
            event["pending_webhooks"] = int(any(one["event"] == event["id"] for one in book.waiting))
        else:
            pause = min(2.0 ** (letter["attempt"] - 1), RETRY_MOST_SECONDS)
            letter["due"] = time.time() + pause * book.knobs.retry_scale
        book.lock.notify_all()
        return book.note(event, attempt=letter["attempt"], outcome="delivered" if good else "failed", status=status)


def carry(book: Book) -> None:
    """A courier's life."""
    while True:
        with book.lock:
            letter = take(book)
            if letter is None:
                book.lock.wait(0.1)
                continue
        deliver(book, letter)


def release(book: Book, given: Json) -> Json:
    """Send what waits now, one after another, in this order, whether or not it is held."""
    order, chosen = given.get("order", "given"), given.get("events")
    if order not in ("given", "reversed", "shuffled"):
        raise Refusal("order is given, reversed or shuffled", param="order")
    with book.lock:
        letters = [one for one in book.waiting if one["id"] not in book.flying]
        if chosen is not None:
            letters = [one for name in chosen for one in letters if one["event"] == name]
        book.flying |= {one["id"] for one in letters}
    if order == "reversed":
        letters.reverse()
    elif order == "shuffled":
        random.shuffle(letters)
    return {"deliveries": [done for done in (deliver(book, one) for one in letters) if done]}
