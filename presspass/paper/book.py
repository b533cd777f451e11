"""Everything that this Stripe knows, its events, and how an object is shown."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import secrets
import string
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from presspass.paper.parameters import DAY, Json, Refusal, no_such

API_VERSION = "2026-10-28.endive"
PREFIXES = {
    "product": "prod_", "price": "price_", "customer": "cus_", "checkout.session": "cs_test_", "subscription": "sub_",
    "subscription_item": "si_", "invoice": "in_", "invoice_payment": "inpay_", "line_item": "il_", "refund": "re_",
    "payment_intent": "pi_", "charge": "ch_", "dispute": "du_", "billing_portal.session": "bps_", "event": "evt_",
}  # fmt: skip
PATHS = {
    "product": "products", "price": "prices", "customer": "customers", "checkout.session": "checkout/sessions",
    "subscription": "subscriptions", "invoice": "invoices", "invoice_payment": "invoice_payments", "refund": "refunds",
    "payment_intent": "payment_intents", "charge": "charges", "dispute": "disputes", "event": "events",
}  # fmt: skip
EXPANDABLE = {"charge", "customer", "invoice", "latest_charge", "latest_invoice", "payment_intent", "product"}
EXPANDABLE |= {"subscription"}


@dataclass
class Knobs:
    """How it misbehaves; set over HTTP."""

    duplicate: int = 1  # how often each event is sent
    delay_seconds: float = 0.0  # before it is sent
    shuffle: bool = False  # each is sent at any moment within the delay (at least a quarter of a second)
    hold: bool = False  # nothing is sent until this is off, or by release
    drop_next: int = 0  # so many events are never sent; they can still be listed
    cut_next: int = 0  # so many API requests are carried out and the line is cut before the answer
    down: bool = False  # the API answers 503
    slow_seconds: float = 0.0  # the API works first and answers so much later
    retry_scale: float = 1.0  # of the pauses 1, 2, 4, 8 ... 60 s before a webhook is tried again
    types: list[str] | None = None  # the endpoint's events; None: all
    webhook: str = ""  # where events go

    def turn(self, wanted: Any) -> None:
        """Set some, all or none: a wrong one changes nothing."""
        known = {one.name: getattr(Knobs(), one.name) for one in dataclasses.fields(self)}
        if not isinstance(wanted, dict):
            raise Refusal("Knobs are a JSON object.")
        for name, value in wanted.items():
            sample = known.get(name, ...)
            if sample is None:
                fits = value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))
            else:
                fits = type(value) is type(sample) or (type(sample), type(value)) == (float, int)
            if sample is ... or not fits or (isinstance(value, int | float) and value < 0):
                raise Refusal(f"No such knob, or not its kind of value: {name}", param=name)
        for name, value in wanted.items():
            setattr(self, name, value)


@dataclass
class Book:
    """Everything that this Stripe knows. Whoever reads or writes it holds ``lock``."""

    path: Path
    secret: str
    key: str = ""
    base: str = ""
    knobs: Knobs = field(default_factory=Knobs)
    objects: dict[str, dict[str, Json]] = field(default_factory=lambda: {kind: {} for kind in PREFIXES})
    answers: dict[str, Json] = field(default_factory=dict)  # by idempotency key
    waiting: list[Json] = field(default_factory=list)  # webhooks still to be sent
    offset: int = 0  # of the clock, moved by a knob
    lock: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    saving: threading.Lock = field(default_factory=threading.Lock)  # one at a time, the last one at the end too
    flying: set[str] = field(default_factory=set)
    deliveries: deque[Json] = field(default_factory=lambda: deque(maxlen=5000))
    request: Json = field(default_factory=lambda: {"id": None, "idempotency_key": None})
    dirty: bool = False

    def now(self) -> int:
        return int(time.time()) + self.offset

    def load(self) -> None:
        if not self.path.exists():
            return
        kept = json.loads(self.path.read_text("utf-8"))
        self.objects |= kept["objects"]
        self.answers, self.waiting, self.offset = kept["answers"], kept["waiting"], kept["offset"]

    def save(self) -> None:
        """Whole and at once: a reader of the file never sees half of it."""
        with self.saving:
            with self.lock:
                if not self.dirty:
                    return
                self.dirty = False
                yesterday = self.now() - DAY
                self.answers = {key: kept for key, kept in self.answers.items() if kept["at"] > yesterday}
                state = {"objects": self.objects, "answers": self.answers, "waiting": self.waiting}
                text = json.dumps(state | {"offset": self.offset}, separators=(",", ":"))
            beside = self.path.with_name(self.path.name + ".tmp")
            try:
                beside.write_text(text, "utf-8")
                beside.replace(self.path)
            except OSError:
                self.dirty = True
                raise

    def forget(self) -> None:
        self.objects = {kind: {} for kind in PREFIXES}
        self.answers, self.waiting, self.offset, self.dirty = {}, [], 0, True
        self.deliveries.clear()
        self.knobs = Knobs(webhook=self.knobs.webhook)

    def add(self, kind: str, values: Json, *, name: str = "") -> Json:
        letters = string.ascii_letters + string.digits
        name = name or PREFIXES[kind] + "".join(secrets.choice(letters) for _ in range(24))
        made = {"id": name, "object": kind, "created": self.now(), "livemode": False, "metadata": {}} | values
        self.objects[kind][name] = made
        self.dirty = True
        return made

    def get(self, kind: str, name: str, *, param: str = "id") -> Json:
        if name not in self.objects[kind]:
            raise no_such(kind, name, param=param)
        return self.objects[kind][name]

    def tell(self, kind: str, about: Json, *, previous: Json | None = None) -> None:
        """Store an event with the object as it is now, and put it on its way."""
        data: Json = {"object": copy.deepcopy(public(about))}
        if previous is not None:
            data["previous_attributes"] = copy.deepcopy(previous)
        sent = bool(self.knobs.webhook) and (self.knobs.types is None or kind in self.knobs.types)
        event = self.add(
            "event", {"type": kind, "api_version": API_VERSION, "data": data, "request": dict(self.request)}
        )
        del event["metadata"]
        event["pending_webhooks"] = int(sent)
        if sent and self.knobs.drop_next:
            self.knobs.drop_next -= 1
            event["pending_webhooks"] = 0
            self.note(event, attempt=0, outcome="dropped")
        elif sent:
            self.waiting += [self.letter(event) for _ in range(self.knobs.duplicate)]
            self.lock.notify_all()

    def letter(self, event: Json) -> Json:
        delay = self.knobs.delay_seconds
        if self.knobs.shuffle:
            delay = random.uniform(0, max(delay, 0.25))
        return {"id": secrets.token_hex(8), "event": event["id"], "attempt": 0, "due": time.time() + delay}

    def note(self, event: Json, *, attempt: int, outcome: str, status: int | None = None) -> Json:
        line = {"event": event["id"], "type": event["type"], "attempt": attempt, "outcome": outcome,
                "status": status, "at": time.time()}  # fmt: skip
        self.deliveries.append(line)
        return line

    def change(self, about: Json, **values: Any) -> None:
        """Change an object and tell of it, with what it was before; nothing is told when nothing changed."""
        previous = {name: about.get(name) for name, value in values.items() if about.get(name) != value}
        about.update(values)
        self.dirty = True
        if previous:
            kind = {"subscription": "customer.subscription"}.get(about["object"], about["object"])
            self.tell(f"{kind}.updated", about, previous=previous)


def public(about: Json) -> Json:
    return {name: value for name, value in about.items() if not name.startswith("_")}


def listed(rows: list[Json], *, url: str, more: bool = False) -> Json:
    return {"object": "list", "data": rows, "has_more": more, "url": url}


def rendered(book: Book, about: Json, expand: Iterable[str] = ()) -> Json:
    """The object as it is answered: no private fields, and what was asked for in place of its id."""
    shown = copy.deepcopy(public(about))
    if shown["object"] == "checkout.session" and shown["status"] != "open":
        shown["url"] = None
    elif shown["object"] == "checkout.session":
        shown["url"] = f"{book.base}/pay/{shown['id']}"  # the port may be another than when it was made
    for way in expand:
        unfold(book, shown, way.split("."), way)
    return shown


def unfold(book: Book, here: Any, way: list[str], whole: str) -> None:
    if isinstance(here, list):
        for one in here:
            unfold(book, one, way, whole)
        return
    if not way or here is None:
        return
    name, *rest = way
    if len(whole.split(".")) > 4 or not isinstance(here, dict) or (name not in here and not included(book, here, name)):
        raise Refusal(f"This property cannot be expanded ({whole}).", param="expand")
    value = here[name]
    if isinstance(value, str):
        kind = next((kind for kind, prefix in PREFIXES.items() if value.startswith(prefix)), None)
        if name not in EXPANDABLE or kind is None:
            raise Refusal(f"This property cannot be expanded ({whole}).", param="expand")
        here[name] = rendered(book, book.get(kind, value))
    unfold(book, here[name], rest, whole)


def included(book: Book, here: Json, name: str) -> bool:
    """Fill in what an object has only when it is asked for, as Stripe does; False if there is no such thing."""
    wanted = (here.get("object"), name)
    if wanted == ("checkout.session", "line_items"):
        rows = book.objects["checkout.session"][here["id"]]["_lines"]
        here[name] = listed(copy.deepcopy(rows), url=f"/v1/checkout/sessions/{here['id']}/line_items")
    elif wanted == ("invoice", "payments"):
        here[name] = listed(filed(book, "invoice_payment", "invoice", here["id"]), url="/v1/invoice_payments")
    elif wanted == ("charge", "refunds"):
        here[name] = listed(filed(book, "refund", "charge", here["id"]), url=f"/v1/charges/{here['id']}/refunds")
    else:
        return False
    return True


def filed(book: Book, kind: str, name: str, value: str) -> list[Json]:
    return [rendered(book, one) for one in reversed(list(book.objects[kind].values())) if one[name] == value]
