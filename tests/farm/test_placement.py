"""Which host gets the next terminal, and which never."""

from __future__ import annotations

from datetime import timedelta

import pytest

from farm import clock, lifecycle, placement
from farm.models import BrokerAccount, Host
from farm.states import Kind, Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance

pytestmark = pytest.mark.django_db


def idle(load_1m=0.1, cpus=4):
    return {"cpus": cpus, "load_1m": load_1m, "cpu_percent": 3.0}


def live(server="Broker-Live", login=7_000_001):
    customer = UserFactory.create()
    account = BrokerAccount.objects.create(server=server, login=login, password="x", owner=customer)
    return lifecycle.go_on(customer_id=customer.pk, account=account, replaces=None, who="test")


@pytest.mark.parametrize(
    "changes",
    [
        {"surveyed_at": None},
        {"surveyed_at": clock.now() - timedelta(hours=1)},
        {"state": Host.State.DRAINING},
        {"state": Host.State.RETIRED},
        {"lost_at": clock.now()},
        {"master_ok": False},
        {"taken": 20},
    ],
    ids=["never heard", "suspect", "draining", "retired", "lost", "unfit master", "full"],
)
def test_no_new_terminal_comes_to_a_host_that_is(changes):
    host = HostFactory.create()
    Host.objects.update(**changes)
    assert placement.candidates() == []
    assert "taken" in changes or not placement.is_fresh(Host.objects.get(pk=host.pk))
    row = instance()
    assert (row.status, row.host) == (Status.WAITING, None)


def test_a_slot_that_is_held_on_a_host_given_up_meanwhile_is_not_used():
    first = HostFactory.create()
    customer = UserFactory.create()
    account = BrokerAccount.objects.create(server="Broker-Live", login=1, password="x", owner=customer)
    held = lifecycle.hold(customer_id=customer.pk, account=account, replaces=None, until=clock.now(), who="test")
    assert held.host == first
    Host.objects.update(lost_at=clock.now())
    other = HostFactory.create()
    assert lifecycle.activate(held.pk, who="test").host == other


def test_the_most_free_slots_come_first_whatever_else_speaks_for_another_host():
    fuller = HostFactory.create(slots=19, load=idle(0.0))
    emptier = HostFactory.create(slots=20, load=idle(4.0))
    assert placement.candidates() == [emptier, fuller]


def test_the_logins_of_one_broker_are_spread_over_hosts_with_as_many_free_slots():
    first, second = (HostFactory.create(load=idle()) for _ in range(2))
    assert live(login=1).host == first
    # Another broker's terminal, so that both have as many free slots again.
    Host.objects.filter(pk=second.pk).update(taken=1)
    assert live(server="BROKER-live ", login=2).host == second
    Host.objects.filter(pk=first.pk).update(taken=2)
    assert live(server="Another-Live", login=3).host == first


def test_one_with_more_free_slots_gets_the_next_login_of_a_broker_that_it_has_already():
    emptier, fuller = HostFactory.create(slots=30), HostFactory.create(slots=20)
    assert [live(login=1).host, live(login=2).host] == [emptier, emptier]
    assert placement.candidates(server_key="broker-live") == [emptier, fuller]


def test_a_terminal_that_is_gone_counts_for_no_spread_any_more():
    first, second = (HostFactory.create(load=idle()) for _ in range(2))
    row = live(login=1)
    answering = AnsweringHost(first)
    lifecycle.end(row.pk, why="test", who="test")
    answering.obey(row)
    live(server="Another-Live", login=3)
    Host.objects.filter(pk=second.pk).update(taken=1)
    assert live(login=2).host == first


def test_of_equally_free_ones_the_least_loaded_core_decides():
    busy = HostFactory.create(load=idle(load_1m=4.0, cpus=4))
    big = HostFactory.create(load=idle(load_1m=4.0, cpus=16))
    windows = HostFactory.create(load={"cpus": 4, "cpu_percent": 50.0})
    dumb = HostFactory.create(load={"cpus": 0, "load_1m": "low"})
    assert placement.candidates() == [big, windows, busy, dumb]


def test_what_is_asked_is_the_same_on_a_farm_of_two_hosts_as_on_one_of_fifty(django_assert_num_queries):
    for number in (2, 48):
        for _ in range(number):
            HostFactory.create()
        with django_assert_num_queries(2):
            assert len(placement.candidates(server_key="broker")) <= placement.CANDIDATES


def test_a_full_first_choice_is_passed_over_and_a_full_farm_is_said_to_be_full(monkeypatch):
    best, other = HostFactory.create(slots=1), HostFactory.create(slots=1)
    both = [best, other]
    monkeypatch.setattr(placement, "candidates", lambda **_: both)
    assert {instance().host, instance(kind=Kind.LIVE).host} == {best, other}
    assert instance().status == Status.WAITING
