"""Anything that may happen on the way to a live terminal, in any order; what must hold holds after each step."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from farm import clock, vault
from farm.agent.protocol import Connection, Refusal, Verb
from farm.models import Host, Instance
from farm.states import Goal, Kind, Status
from presspass.billing import looking, staff
from presspass.models import Checkout, Plan, Refund, StripeEvent, Subscription
from tests.billing.shop import LOGIN, Shop, adds_up
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance

pytestmark = pytest.mark.django_db(transaction=False)

BROKER = {LOGIN: "Right-1aA", LOGIN + 1: "Other-1aA"}
"""Which passwords the broker takes."""
PAPER: list = []


class GoingLive(RuleBasedStateMachine):
    """Two customers, one of them after the other's account; a host, a Stripe, and workers that die."""

    shops: list[Shop]

    @initialize(live=st.booleans())
    def open(self, live: bool) -> None:
        PAPER[0].ask("reset")
        self.began = clock.moved(timedelta())
        self.began.__enter__()
        self.atom = transaction.atomic()
        self.atom.__enter__()
        Plan.objects.get_or_create(key="nibbler", defaults={"name": "Nibbler", "cents": 3900})
        host = AnsweringHost(HostFactory.create(slots=5, servers=["PaperBroker-Live"]))
        heard: set[str] = set()
        self.shops = [
            Shop(PAPER[0], UserFactory.create(email_verified_at=clock.now()), host, heard=heard) for _ in range(2)
        ]
        self.said: list[dict] = []
        self.orders: list = []
        self.proven: set[int] = set()
        for shop in self.shops:
            host.obey(instance(shop.customer))
        if live:
            self.buy(0, LOGIN, right=True)
            self.host_obeys(steps=5, twice=False)

    def teardown(self) -> None:
        if hasattr(self, "atom"):
            transaction.set_rollback(True)
            self.atom.__exit__(None, None, None)
            self.began.__exit__(None, None, None)

    # --- the customers ---

    @rule(which=st.integers(0, 1), login=st.sampled_from(sorted(BROKER)), right=st.booleans())
    def hand_in_a_login(self, which: int, login: int, right: bool) -> None:
        password = BROKER[login] if right else "Wrong-1aA"
        self.shops[which].fill(login=str(login), password=password)

    @rule(which=st.integers(0, 1))
    def pay(self, which: int) -> None:
        opened = Checkout.objects.filter(customer=self.shops[which].customer).exclude(stripe_session="").last()
        at_stripe = {one["id"]: one["status"] for one in PAPER[0].list("checkout/sessions")}
        if opened is None or at_stripe[opened.stripe_session] != "open":
            return
        PAPER[0].ask(f"sessions/{opened.stripe_session}/pay")

    @rule(which=st.integers(0, 1), login=st.sampled_from(sorted(BROKER)), right=st.booleans())
    def buy(self, which: int, login: int, right: bool) -> None:
        """The usual way as one step, so that what comes after it is reached often."""
        self.hand_in_a_login(which, login, right)
        self.pay(which)
        self.hear(seed=0, times=1, some=False)
        self.host_obeys(steps=2, twice=False)

    @rule(which=st.integers(0, 1), where=st.sampled_from(["/go-live/cancel/", "/go-live/money-back/", "/go-live/pay/"]))
    def press(self, which: int, where: str) -> None:
        self.shops[which].browser.post(where)

    # --- Stripe ---

    @rule(seed=st.integers(0, 3), times=st.integers(1, 2), some=st.booleans())
    def hear(self, seed: int, times: int, some: bool) -> None:
        """Events arrive in any order, more than once, or only some of them."""
        events = self.shops[0].told()
        random.Random(seed).shuffle(events)
        events = events[: len(events) // 2] if some else events
        self.said += events
        for event in events * times:
            assert self.shops[0].post(event) == 200
        self.shops[0].work()

    @precondition(lambda self: self.said)
    @rule()
    def hear_an_old_one_again(self) -> None:
        self.shops[0].post(self.said[0])
        StripeEvent.objects.update(handled_at=None, attempts=0)  # and a worker died before it said that it had done it
        self.shops[0].work()

    @rule(which=st.integers(0, 1), good=st.booleans())
    def bill(self, which: int, good: bool) -> None:
        bought = Subscription.objects.filter(customer=self.shops[which].customer).last()
        known = {one["id"]: one["status"] for one in PAPER[0].list("subscriptions")}
        if bought is None or known.get(bought.stripe_subscription, "canceled") == "canceled":
            return
        PAPER[0].ask(f"subscriptions/{bought.stripe_subscription}/renew", outcome="paid" if good else "failed")

    @rule(which=st.integers(0, 1))
    def leave(self, which: int) -> None:
        bought = Subscription.objects.filter(customer=self.shops[which].customer, ended_at__isnull=True).last()
        known = {one["id"]: one["status"] for one in PAPER[0].list("subscriptions")}
        if bought is None or known.get(bought.stripe_subscription, "canceled") == "canceled":
            return
        PAPER[0].ask(f"subscriptions/{bought.stripe_subscription}/give_up")

    @rule(which=st.integers(0, 1))
    def staff_refund(self, which: int) -> None:
        bought = Subscription.objects.filter(customer=self.shops[which].customer, ended_at__isnull=True).last()
        if bought is not None:
            staff.refund_subscription(bought, who="staff:1")
            self.shops[0].work()

    # --- the farm ---

    @rule(steps=st.sampled_from([1, 2, 5]), twice=st.booleans())
    def host_obeys(self, steps: int, twice: bool) -> None:
        """The host does some steps of everything, as the broker allows; an answer may come twice."""
        for _ in range(steps):
            self.one_step(twice=twice)

    def one_step(self, *, twice: bool) -> None:
        for row in Instance.objects.exclude(status=Status.DESTROYED):
            order = self.shops[0].answering.claim(row) if row.next_at is not None else None
            if order is None:
                continue
            self.orders.append(order)
            row.refresh_from_db()
            for _ in range(1 + twice):
                self.shops[0].answering.answer(order, **self.seen(row, order))

    def seen(self, row: Instance, order: object) -> dict:
        if order.verb is not Verb.START or row.kind != Kind.LIVE or row.account is None:
            return {}
        if vault.password_of(row.account) != BROKER[row.account.login]:
            return {"connection": Connection.REFUSED, "refusal": Refusal.CREDENTIALS}
        beat = {"login": row.account.login, "server": row.account.server, "trade_allowed": True}
        return {"synchronized": True, "trading": True, "heartbeat": beat | {"at": clock.now().timestamp()}}

    @precondition(lambda self: self.orders)
    @rule()
    def an_old_answer_comes_late(self) -> None:
        self.shops[0].answering.answer(self.orders[0])

    @rule(hours=st.sampled_from([1, 24 * 4, 24 * 8]))
    def time_goes_by(self, hours: int) -> None:
        self.shops[0].later(hours=hours)
        looking.look()
        self.shops[0].work()

    # --- what must hold ---

    @invariant()
    def slots_ports_and_accounts_add_up(self) -> None:
        if hasattr(self, "shops"):
            adds_up()

    @invariant()
    def no_demo_goes_before_its_live_one_is_proven(self) -> None:
        for row in Instance.objects.filter(kind=Kind.PRESS_PASS, goal=Goal.DESTROYED):
            assert row.replaced_by.filter(proven_at__isnull=False).exists()

    @invariant()
    def whoever_has_paid_has_a_terminal_or_a_way_on(self) -> None:
        for shop in getattr(self, "shops", []):
            alive = Subscription.objects.filter(customer=shop.customer, ended_at__isnull=True)
            assert alive.count() <= 1
            for bought in alive.filter(status="active", stopped_at__isnull=True):
                live = Instance.objects.filter(customer=shop.customer, kind=Kind.LIVE).exclude(goal=Goal.DESTROYED)
                answer = shop.browser.get("/go-live/")
                asks = answer.status_code == 200 and b'name="password"' in answer.content
                going = Refund.objects.filter(stripe_subscription=bought.stripe_subscription).exists()
                assert live.exists() or asks or going
            open_here = Checkout.objects.filter(customer=shop.customer, status="open")
            for checkout in open_here:
                assert checkout.instance.status == Status.WAITING
            holds = Instance.objects.filter(customer=shop.customer, status=Status.WAITING, held_until__isnull=False)
            assert holds.count() == open_here.count()

    @invariant()
    def no_host_is_overfull(self) -> None:
        assert not [host for host in Host.objects.all() if host.taken > host.slots]


def test_going_live_in_any_order(paper):
    PAPER[:] = [paper]
    bounded = settings(
        max_examples=10,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=False,
        database=None,
        phases=(Phase.generate,),  # a failure is told as it was met: making it smaller takes minutes here
    )
    run_state_machine_as_test(GoingLive, settings=bounded)
