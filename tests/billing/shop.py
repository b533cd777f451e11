"""A customer, a host that answers, and the paper Stripe: what the tests of going live do with them."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.test import Client
from django.urls import reverse

from farm import clock
from farm.agent.protocol import Connection, Refusal, Verb
from farm.models import Host, Instance, Seat
from farm.states import Goal, Kind, Status
from presspass.billing import events, looking, refunds
from presspass.lifecycle import notice_news
from presspass.models import Checkout, Refund, StripeEvent, Subscription, User
from tests.factories import AnsweringHost

KEY, SECRET = "sk_test_of_billing", "whsec_of_billing"
SERVER, LOGIN, PASSWORD = "PaperBroker-Live", 7_000_001, "Right-1aA"
GO_LIVE, WEBHOOK, TERMINAL = reverse("presspass:go_live"), reverse("presspass:stripe_webhook"), "/terminal/"


@dataclass
class Paper:
    url: str

    def ask(self, path: str, **given: Any) -> dict[str, Any]:
        return self._said("POST", f"/_paper/{path}", json.dumps(given))

    def list(self, path: str) -> list[dict[str, Any]]:
        """All of a list, oldest first."""
        rows: list[dict[str, Any]] = []
        more, after = True, ""
        while more:
            page = self._said("GET", f"/v1/{path}?limit=100" + (f"&starting_after={after}" if after else ""))
            rows += page["data"]
            more, after = page["has_more"], rows[-1]["id"] if rows else ""
        return rows[::-1]

    def _said(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        line = http.client.HTTPConnection("127.0.0.1", urlsplit(self.url).port, timeout=20)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        line.request(method, path, body, headers)
        answer = line.getresponse()
        said: dict[str, Any] = json.loads(answer.read())
        line.close()
        assert answer.status == 200, said
        return said


def signed(payload: bytes, *, secret: str = SECRET, at: float | None = None) -> str:
    moment = int(time.time() if at is None else at)
    mac = hmac.new(secret.encode(), f"{moment}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={moment},v1={mac}"


@dataclass
class Shop:
    paper: Paper
    customer: User
    answering: AnsweringHost
    heard: set[str] = field(default_factory=set)
    browser: Client = field(default_factory=Client)

    def __post_init__(self) -> None:
        self.browser.force_login(self.customer)

    # --- the customer ---

    def fill(self, **about: Any) -> Any:
        typed = {"plan": "nibbler", "server": SERVER, "login": str(LOGIN), "password": PASSWORD}
        return self.browser.post(GO_LIVE, typed | about)

    def page(self, path: str = TERMINAL) -> str:
        return self.browser.get(path).content.decode()

    def checkout(self) -> Checkout:
        return Checkout.objects.filter(customer=self.customer).latest("pk")

    def subscription(self) -> Subscription:
        return Subscription.objects.filter(customer=self.customer).latest("pk")

    def pay(self, **how: Any) -> Checkout:
        checkout = self.checkout()
        self.paper.ask(f"sessions/{checkout.stripe_session}/pay", **how)
        return checkout

    def buy(self, **about: Any) -> Instance:
        """All the way to a paid row."""
        self.fill(**about)
        self.pay()
        self.hear()
        return self.live()

    def go_live(self, **about: Any) -> Instance:
        return self.prove(self.buy(**about))

    # --- Stripe ---

    def told(self) -> list[dict[str, Any]]:
        """What Stripe has to tell and did not tell yet."""
        return [event for event in self.paper.list("events") if event["id"] not in self.heard]

    def post(self, event: dict[str, Any], **how: Any) -> int:
        payload = json.dumps(event).encode()
        self.heard.add(event["id"])
        answer = Client().post(
            WEBHOOK, payload, content_type="application/json", headers={"Stripe-Signature": signed(payload, **how)}
        )
        return int(answer.status_code)

    def hear(self, order: Any = list) -> None:
        for event in order(self.told()):
            assert self.post(event) == 200
            self.work()

    def work(self) -> None:
        """What the workers do when they are rung for."""
        for pk in StripeEvent.objects.filter(handled_at__isnull=True).order_by("pk").values_list("pk", flat=True):
            events.settle(pk)
        for pk in Refund.objects.filter(done_at__isnull=True).values_list("pk", flat=True):
            refunds.give(pk)

    def later(self, **span: float) -> None:
        """Time goes by, here and at Stripe; hosts go on speaking."""
        by = timedelta(**span)
        clock.move(by)
        self.paper.ask("advance", seconds=int(by.total_seconds()))
        Host.objects.update(surveyed_at=clock.now())

    def look(self) -> None:
        looking.look()
        self.work()

    def news(self) -> list[str]:
        """The mails that the customer is to get, by kind, oldest first."""
        notice_news()
        return list(self.customer.notices.order_by("pk").values_list("kind", flat=True))

    # --- the farm ---

    def live(self) -> Instance:
        return Instance.objects.filter(customer=self.customer, kind=Kind.LIVE).latest("pk")

    def demo(self) -> Instance:
        return Instance.objects.filter(customer=self.customer, kind=Kind.PRESS_PASS).latest("pk")

    def to_start(self, row: Instance) -> Any:
        while (order := self.answering.claim(row)).verb is not Verb.START:
            self.answering.answer(order)
        return order

    def prove(self, row: Instance) -> Instance:
        order = self.to_start(row)
        row.refresh_from_db()
        beat = {
            "at": clock.now().timestamp(),
            "login": row.account.login,
            "server": row.account.server,
            "trade_allowed": True,
        }
        self.answering.answer(order, synchronized=True, trading=True, heartbeat=beat)
        self.settle()
        row.refresh_from_db()
        return row

    def refuse(self, row: Instance, refusal: Refusal = Refusal.CREDENTIALS) -> Instance:
        order = self.to_start(row)
        self.answering.answer(order, connection=Connection.REFUSED, refusal=refusal)
        self.settle()
        row.refresh_from_db()
        return row

    def settle(self) -> None:
        """The host does all that it is told of whatever has a step due, but starts of unproven live ones."""
        busy = True
        while busy:
            busy = False
            for row in Instance.objects.filter(customer=self.customer).exclude(status=Status.DESTROYED):
                unproven = row.kind == Kind.LIVE and row.proven_at is None and row.status == Status.STARTING
                if row.next_at is not None and not unproven and (order := self.answering.claim(row)) is not None:
                    self.answering.answer(order)
                    busy = True


def adds_up() -> None:
    """Slots, ports and seats agree with the instances, whatever happened."""
    for host in Host.objects.all():
        held = host.ports.filter(instance__isnull=False)
        assert host.taken == held.count()
        assert not held.filter(instance__status=Status.DESTROYED).exists()
    for row in Instance.objects.exclude(status__in=[Status.WAITING, Status.DESTROYED]):
        assert row.port_number is not None
    for seat in Seat.objects.filter(instance__isnull=False):
        assert seat.instance.status != Status.DESTROYED
    running = Instance.objects.filter(status__in=[Status.STARTING, Status.RUNNING], account__isnull=False)
    accounts = [(row.account.server.casefold(), row.account.login) for row in running.filter(goal=Goal.RUNNING)]
    assert len(accounts) == len(set(accounts))
