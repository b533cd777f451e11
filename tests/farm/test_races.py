"""Two at once on PostgreSQL: the second waits for what it needs and acts on what the first one left."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from farm import clock, doorbell, errors, hosts, lifecycle
from farm.agent.protocol import Connection, Process, Verb
from farm.models import Host, Instance, Seat
from farm.states import Goal, Kind, Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance
from tests.farm import invariants
from tests.farm.test_living import account, fresh, go_live, hold, proof, to_start
from tests.waiting import until

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    monkeypatch.setattr(doorbell, "ring", lambda *args, **kwargs: True)


@pytest.fixture
def answering():
    return AnsweringHost(HostFactory.create())


@pytest.fixture
def demo(answering):
    return answering.obey(instance())


def elsewhere(act):
    """Do it on a connection of its own; a typed error is an answer."""
    try:
        return act()
    except errors.FarmError as error:
        return error
    finally:
        connection.close()


def is_blocked():
    with connection.cursor() as cursor:
        cursor.execute(BLOCKED)
        return cursor.fetchone()[0] > 0


def overlap(first, second):
    """``second`` comes when ``first`` is done and not yet committed; what both answered."""
    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            answer = first()
            later = other.submit(elsewhere, second)
            until(lambda: later.done() or is_blocked())
        return answer, later.result(timeout=20)


def both_ways(one, other):
    return pytest.mark.parametrize("order", [(one, other), (other, one)], ids=[f"{one} first", f"{other} first"])


def test_of_two_claims_one_gets_the_order(answering):
    row = instance()
    letters = overlap(lambda: lifecycle.claim(row.pk), lambda: lifecycle.claim(row.pk))
    assert [letter is not None for letter in letters] == [True, False]
    assert fresh(row).generation == letters[0].generation


def test_of_two_who_serve_the_line_each_slot_is_given_once(caplog):
    rows = [instance() for _ in range(3)]
    HostFactory.create(slots=2)
    admitted = overlap(lifecycle.admit, lifecycle.admit)
    assert sum(admitted) == 2
    assert [fresh(row).host_id is not None for row in rows] == [True, True, False]
    assert "could not be placed" not in caplog.text
    invariants.check()


def test_of_two_recycles_each_takes_what_the_other_did_not(answering):
    rows = [answering.obey(instance()).pk for _ in range(3)]
    idle = {"why": "idle", "who": "recycle_idle", "idle_before": clock.now() + timedelta(hours=1)}
    first, second = overlap(lambda: lifecycle.recycle(rows[:2], **idle), lambda: lifecycle.recycle(rows, **idle))
    assert (first, second) == (rows[:2], rows[2:])


@both_ways("end", "record")
def test_an_end_wins_against_an_answer_that_comes_with_it(answering, order):
    row = instance()
    told = answering.claim(row)
    acts = {
        "end": lambda: lifecycle.end(row.pk, why="left", who="customer:1"),
        "record": lambda: answering.answer(told),
    }
    assert not [answer for answer in overlap(*(acts[name] for name in order)) if isinstance(answer, Exception)]
    assert (fresh(row).status, fresh(row).goal) == (Status.DESTROYING, Goal.DESTROYED)
    assert answering.obey(row).status == Status.DESTROYED
    invariants.check()


@pytest.mark.parametrize("same_account", [False, True])
@both_ways("activate", "release")
def test_a_hold_is_either_paid_or_given_back(answering, demo, order, same_account):
    row = hold(go_live(answering, demo) if same_account else demo)
    acts = {
        "activate": lambda: lifecycle.activate(row.pk, who="payment"),
        "release": lambda: lifecycle.release_hold(row.pk, why="not paid", who="payment"),
    }
    answers = dict(zip(order, overlap(*(acts[name] for name in order)), strict=True))
    paid = not isinstance(answers["activate"], errors.Refused)
    assert answers["release"] is not paid
    assert (fresh(row).status == Status.DESTROYED) is not paid
    assert paid is (order[0] == "activate")
    invariants.check()


@pytest.mark.parametrize("host_is", ["there", "silent"])
def test_a_payment_told_twice_at_once_starts_it_once(answering, demo, settings, host_is):
    row = hold(demo)
    if host_is == "silent":
        Host.objects.update(surveyed_at=clock.now() - timedelta(hours=1))
        HostFactory.create()
    answers = overlap(*[lambda: lifecycle.activate(row.pk, who="payment")] * 2)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert row.transitions.filter(became=Status.REQUESTED).count() == 1
    invariants.check()


def test_of_two_customers_who_pay_for_one_account_one_gets_it(answering):
    rows = [hold(answering.obey(instance())) for _ in range(2)]
    overlap(*(lambda row=row: lifecycle.activate(row.pk, who="payment") for row in rows))
    assert [fresh(row).status for row in rows] == [Status.REQUESTED, Status.DESTROYED]
    assert Seat.objects.get(login=7_000_001).instance == rows[0]
    invariants.check()


@both_ways("resume", "activate")
def test_a_stopped_terminal_that_is_started_again_and_its_successor_never_both_have_the_account(answering, demo, order):
    old = go_live(answering, demo)
    lifecycle.stop(old.pk, why="not paid", who="payment")
    answering.obey(old)
    row = hold(old, password="New-1aA")
    acts = {
        "resume": lambda: lifecycle.resume(old.pk, why="paid", who="payment"),
        "activate": lambda: lifecycle.activate(row.pk, who="payment"),
    }
    overlap(*(acts[name] for name in order))
    now = {"resume": (Status.STOPPING, Status.WAITING), "activate": (Status.STOPPED, Status.REQUESTED)}[order[0]]
    assert (fresh(old).status, fresh(row).status) == now
    invariants.check()
    answering.obey(old)
    assert Seat.objects.get(login=7_000_001).instance == fresh(row)
    assert (fresh(old).status, fresh(row).status) == (Status.STOPPED, Status.REQUESTED)


@both_ways("stopped", "paid")
def test_a_payment_that_comes_with_the_old_ones_stop_goes_on(answering, demo, order):
    old = go_live(answering, demo)
    row = hold(old, password="New-1aA")
    lifecycle.stop(old.pk, why="not paid", who="payment")
    told = answering.claim(old)
    acts = {
        "stopped": lambda: answering.answer(told),
        "paid": lambda: lifecycle.activate(row.pk, who="payment"),
    }
    overlap(*(acts[name] for name in order))
    assert (fresh(old).status, fresh(row).status) == (Status.STOPPED, Status.REQUESTED)
    invariants.check()


@both_ways("proven", "stopped")
def test_a_proof_and_a_survey_of_the_old_one_wait_for_each_other(answering, demo, order):
    row = hold(demo)
    lifecycle.activate(row.pk, who="payment")
    told = to_start(answering, row)
    acts = {
        "proven": lambda: answering.answer(told, **proof()),
        "stopped": lambda: answering.survey(answering.line(demo, process=Process.STOPPED)),
    }
    overlap(*(acts[name] for name in order))
    assert (fresh(row).status, fresh(demo).goal) == (Status.RUNNING, Goal.DESTROYED)


def test_a_survey_does_not_take_back_the_activity_that_was_noted_meanwhile(answering, demo):
    Instance.objects.update(activity_at=clock.now() - timedelta(days=2))
    overlap(
        lambda: lifecycle.touch(demo.customer_id),
        lambda: answering.survey(answering.line(demo, connection=Connection.LOST)),
    )
    assert fresh(demo).connection == Connection.LOST
    assert clock.now() - fresh(demo).activity_at < timedelta(minutes=1)


@both_ways("older", "newer")
def test_of_two_surveys_at_once_the_newer_one_holds(answering, demo, order):
    said = {"older": Connection.LOST, "newer": Connection.REFUSED}
    at = clock.now().timestamp()
    acts = {
        name: lambda name=name: answering.survey(
            answering.line(demo, connection=said[name]),
            sent_at=at + (name == "newer"),
            since_boot=at + (name == "newer"),
        )
        for name in said
    }
    overlap(*(acts[name] for name in order))
    assert fresh(demo).connection == Connection.REFUSED


@both_ways("hold", "recycle")
def test_a_demo_is_not_recycled_under_a_hold(answering, demo, order):
    idle = {"why": "idle", "who": "recycle_idle", "idle_before": clock.now() + timedelta(hours=1)}
    acts = {"hold": lambda: hold(fresh(demo)), "recycle": lambda: lifecycle.recycle([demo.pk], **idle)}
    answers = dict(zip(order, overlap(*(acts[name] for name in order)), strict=True))
    assert answers["recycle"] == ([] if order[0] == "hold" else [demo.pk])


def test_enrolling_a_host_again_keeps_the_slots_that_are_taken_meanwhile(answering):
    host = answering.host
    again = hosts.Enrolment(
        name=host.name, slots=30, port_first=9000, port_last=9099, verify_key=host.verify_key, seal_key=host.seal_key
    )
    overlap(instance, lambda: hosts.enrol(again))
    host.refresh_from_db()
    assert (host.taken, host.slots) == (1, 30)


# --- everything at once ---------------------------------------------------------------------------------------------


class Visitor:
    """One thread's share of a busy farm: whatever anybody may do, at random, on rows that all of them share."""

    def __init__(self, seed, ends_at):
        self.random = random.Random(seed)
        self.ends_at = ends_at
        self.deadlocks = []

    def row(self, **which):
        rows = Instance.objects.filter(**which).exclude(status=Status.DESTROYED)
        return rows.order_by("?").first()

    def sign_up(self):
        if Instance.objects.exclude(status=Status.DESTROYED).count() < 30:
            instance(UserFactory.create(email=f"{self.random.getrandbits(60)}@example.org"))

    def answer(self):
        row = self.row(next_at__isnull=False, host__isnull=False)
        if row is not None:
            host = AnsweringHost(row.host)
            for _ in range(4):
                order = host.claim(row)
                if order is not None:
                    host.answer(order, **(proof() if row.kind == Kind.LIVE and order.verb is Verb.START else {}))

    def survey(self):
        host = AnsweringHost(Host.objects.order_by("?").first())
        rows = host.host.instances.exclude(status__in=[Status.WAITING, Status.DESTROYED])
        said = [Connection.LOST, Connection.CONNECTED]
        lines = [host.line(row, connection=self.random.choice(said)) for row in rows]
        self.random.shuffle(lines)
        host.survey(*lines)

    def go_live(self):
        demo = self.row(status=Status.RUNNING)
        if demo is not None:
            with transaction.atomic():
                login = self.random.randint(1, 8)
                held = lifecycle.hold(
                    customer_id=demo.customer_id,
                    account=account(demo.customer, login=login),
                    replaces=demo,
                    until=clock.now(),
                    who="test",
                )
            act = self.random.choice([lifecycle.activate, lifecycle.release_hold])
            act(held.pk, who="test", **({"why": "test"} if act is lifecycle.release_hold else {}))

    def ask(self):
        row = self.row()
        if row is not None:
            name = self.random.choice(["end", "restart", "stop", "resume", "retry"])
            reason = {} if name in {"restart", "retry"} else {"why": "test"}
            getattr(lifecycle, name)(row.pk, who="test", **reason)

    def tend(self):
        lifecycle.sweep()
        lifecycle.admit()

    def recycle(self):
        rows = list(Instance.objects.values_list("pk", flat=True).order_by("?")[:3])
        lifecycle.recycle(rows, why="idle", who="test", idle_before=clock.now() - timedelta(seconds=1))

    def run(self):
        acts = [self.sign_up, self.answer, self.answer, self.answer, self.survey, self.survey, self.go_live, self.ask,
                self.tend, self.recycle]  # fmt: skip
        try:
            while time.monotonic() < self.ends_at:
                self.act(self.random.choice(acts))
        finally:
            connection.close()

    def act(self, act):
        try:
            act()
        except (errors.Refused, errors.ClaimLost, IntegrityError):
            pass  # e.g. two holds of one customer at once
        except OperationalError as error:
            self.deadlocks.append(f"{act.__name__}: {error}")


@pytest.mark.parametrize("seconds", [6])
def test_however_busy_the_farm_is_nobody_deadlocks_and_everything_adds_up(seconds, caplog):
    for _ in range(2):
        HostFactory.create(slots=10)
    visitors = [Visitor(seed, time.monotonic() + seconds) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(visitor.run) for visitor in visitors]:
            done.result(timeout=60)
    assert [error for visitor in visitors for error in visitor.deadlocks] == []
    invariants.check()
    assert invariants.stuck() == []
    assert [line for line in caplog.records if line.exc_info] == []
