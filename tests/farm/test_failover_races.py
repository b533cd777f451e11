"""A loss and whatever else happens at that very moment, on PostgreSQL: one of them, never both."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection

from farm import clock, doorbell, leases, lifecycle
from farm.agent.protocol import Verb
from farm.lifecycle import failing_over
from farm.models import Host, HostEvent, Instance, Seat, Transition
from farm.states import Goal, Kind, Status
from tests.factories import AnsweringHost, HostFactory, instance
from tests.farm import invariants
from tests.farm.test_failover import FENCE, SUSPECT, leased, look, request_of
from tests.farm.test_living import fresh, go_live, paid
from tests.farm.test_races import both_ways, elsewhere, overlap
from tests.waiting import until

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, settings):
    monkeypatch.setattr(doorbell, "ring", lambda *args, **kwargs: True)
    settings.LEASE_SECONDS, settings.DRIFT_SECONDS = 120, 15
    settings.SURVEY_FRESH_SECONDS, settings.MOVE_SECONDS = SUSPECT, 60
    with clock.moved(timedelta()):
        yield


@pytest.fixture
def dark():
    host = AnsweringHost(leased(HostFactory.create(slots=30)))
    for _ in range(3):
        leased(HostFactory.create())
    return host


@pytest.fixture
def live(dark):
    row = go_live(dark, dark.obey(instance()))
    clock.move(timedelta(seconds=FENCE + 1))
    Host.objects.exclude(pk=dark.host.pk).update(surveyed_at=clock.now())
    return row


def give_up(dark):
    return failing_over.give_up(Host.objects.get(pk=dark.host.pk), why="silent", who="watch")


def rescue(dark):
    return failing_over.rescue(Host.objects.get(pk=dark.host.pk), who="watch")


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def somebody_waits():
    with connection.cursor() as cursor:
        cursor.execute(WAITING)
        return cursor.fetchone()[0] > 0


class Paused:
    """Does ``act`` on a connection of its own, and stops just after the host's row was written, before the commit."""

    def __init__(self, act):
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.act = act

    def __call__(self, execute, sql, params, many, context):
        answer = execute(sql, params, many, context)
        if sql.startswith('UPDATE "farm_host"'):
            self.reached.set()
            assert self.go_on.wait(20)
        return answer

    def run(self):
        with connection.execute_wrapper(self):
            return elsewhere(self.act)


def test_a_lease_that_is_granted_first_saves_the_host(dark, live):
    read = Host.objects.get(pk=dark.host.pk)
    granting = Paused(lambda: leases.grant([request_of(dark)]))
    with ThreadPoolExecutor(2) as threads:
        grant = threads.submit(granting.run)
        assert granting.reached.wait(20)
        loss = threads.submit(elsewhere, lambda: failing_over.give_up(read, why="silent", who="watch"))
        until(somebody_waits)
        granting.go_on.set()
        assert len(grant.result(timeout=20).letters) == 1
        assert loss.result(timeout=20) is False
    assert fresh(live).status == Status.RUNNING


def test_a_loss_that_comes_first_leaves_nothing_to_grant(dark, live):
    lost, granted = overlap(lambda: give_up(dark), lambda: leases.grant([request_of(dark)]))
    assert (lost, granted.letters) == (True, [])
    assert leases.grant([request_of(dark)]).letters == []


@both_ways("loss", "survey")
def test_a_survey_at_the_moment_of_the_loss_saves_the_host_only_if_it_was_first(dark, live, order):
    read = Host.objects.get(pk=dark.host.pk)
    acts = {
        "loss": lambda: failing_over.give_up(read, why="silent", who="watch"),
        "survey": lambda: dark.survey(dark.line(live)),
    }
    answers = dict(zip(order, overlap(*(acts[name] for name in order)), strict=True))
    assert answers["loss"] is (order[0] == "loss")


def test_of_two_that_watch_at_once_one_does(dark, live):
    look()
    clock.move(timedelta(seconds=5))
    overlap(lifecycle.watch_hosts, lifecycle.watch_hosts)
    assert HostEvent.objects.filter(what="lost").count() <= 1


def test_two_that_rescue_at_once_bring_each_up_once(dark, live):
    assert give_up(dark)
    first, second = overlap(lambda: rescue(dark), lambda: rescue(dark))
    assert (first, second) == (1, 0)
    assert Instance.objects.filter(kind=Kind.LIVE, goal=Goal.RUNNING).count() == 1
    assert Transition.objects.filter(instance=live, became=Status.LOST).count() == 1
    invariants.check()


@both_ways("move", "record")
def test_what_is_just_being_made_either_moves_or_is_given_its_account(dark, order):
    row = paid(dark.obey(instance()))
    told = dark.claim(fresh(row))
    assert told.verb is Verb.CLONE
    clock.move(timedelta(seconds=SUSPECT + 1))
    Host.objects.exclude(pk=dark.host.pk).update(surveyed_at=clock.now())
    host = Host.objects.get(pk=dark.host.pk)
    acts = {
        "move": lambda: failing_over.move_off(host, now=clock.now(), who="watch"),
        "record": lambda: dark.answer(told),
    }
    answers = dict(zip(order, overlap(*(acts[name] for name in order)), strict=True))
    moved = order[0] == "move"
    assert (answers["move"], answers["record"]) == (1, False) if moved else (0, True)
    assert fresh(row).status == (Status.LOST if moved else Status.INJECTING)
    assert Seat.objects.get(login=7_000_001).instance_id == (row.pk + 1 if moved else row.pk)
    invariants.check()


@both_ways("rescue", "end")
def test_an_end_at_the_moment_of_the_loss_leaves_no_terminal(dark, live, order):
    assert give_up(dark)
    acts = {"rescue": lambda: rescue(dark), "end": lambda: lifecycle.end(live.pk, why="left", who="customer:1")}
    overlap(*(acts[name] for name in order))
    running = Instance.objects.filter(kind=Kind.LIVE, goal=Goal.RUNNING)
    # Who ends the one that is lost already has ended that one: its successor is another.
    assert running.count() == (1 if order[0] == "rescue" else 0)
    invariants.check()


def test_a_signup_at_the_moment_of_the_loss_does_not_land_on_the_host(dark):
    clock.move(timedelta(seconds=FENCE + 1))
    Host.objects.exclude(pk=dark.host.pk).update(surveyed_at=clock.now())
    _, row = overlap(lambda: give_up(dark), instance)
    assert row.host_id != dark.host.pk
    invariants.check()
