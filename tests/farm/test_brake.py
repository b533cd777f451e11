"""The watch over the hosts, and the brake: what is dark all at once, or may be our own blindness, moves nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from farm import clock, doorbell, errors, fencing, leases, lifecycle
from farm.lifecycle import watching
from farm.models import Host, HostEvent, Instance, Watch
from farm.states import Status
from tests.factories import AnsweringHost, HostFactory, instance

pytestmark = pytest.mark.django_db

GRACE = 60


@pytest.fixture(autouse=True)
def _rules(settings):
    settings.WATCH_SECONDS, settings.BRAKE_GRACE_SECONDS = 20, GRACE
    settings.BRAKE_HOSTS, settings.BRAKE_WINDOW_SECONDS = 3, 300
    with clock.moved(timedelta()):
        yield


@pytest.fixture
def hosts():
    return [leased(HostFactory.create()) for _ in range(10)]


@pytest.fixture
def good(hosts):
    """The portal has been watching for long, and all was well."""
    run(2 * GRACE)
    assert not brake()


def leased(host):
    Host.objects.filter(pk=host.pk).update(
        policy="fenced", said_policy="fenced", fenced_until=clock.now() + timedelta(seconds=1), stop_seconds=5
    )
    return host


def speak(*silent):
    Host.objects.exclude(pk__in=[host.pk for host in silent]).update(surveyed_at=clock.now())


def run(seconds, *silent):
    """Time passes, in which all but the silent ones speak, and the portal looks as often as it should."""
    for _ in range(int(seconds / 20)):
        clock.move(timedelta(seconds=20))
        speak(*silent)
        lifecycle.watch_hosts()


def brake():
    return Watch.objects.get(pk=1).brake_why


def lost():
    return set(Host.objects.filter(lost_at__isnull=False))


# --- several at once --------------------------------------------------------------------------------------------------


def test_one_host_of_many_is_given_up(hosts, good):
    run(300, hosts[0])
    assert (lost(), brake()) == ({hosts[0]}, "")


def test_several_at_once_are_not_however_long_that_lasts(hosts, good):
    run(1200, *hosts[:3])
    assert (lost(), brake()) == (set(), "3 of 10 hosts went silent at about the same time")


def test_more_than_a_third_are_several():
    two = [leased(HostFactory.create()) for _ in range(5)][:2]
    run(120)
    run(300, *two)
    assert (lost(), bool(brake())) == (set(), True)


def test_the_only_host_there_is_is_not_given_up_by_itself():
    host = leased(HostFactory.create())
    run(120)
    run(300, host)
    assert (lost(), bool(brake())) == (set(), True)


def test_one_after_the_other_with_long_between_are_given_up_each(hosts, good):
    run(400, hosts[0])
    run(400, *hosts[:2])
    run(400, *hosts[:3])
    assert (lost(), brake()) == (set(hosts[:3]), "")


def test_it_does_not_let_go_while_one_of_those_that_pulled_it_is_still_dark(hosts, good):
    run(100, *hosts[:3])
    run(1200, hosts[0])
    assert (lost(), bool(brake())) == (set(), True)


def test_when_all_are_heard_again_it_lets_go_after_the_grace_and_not_before(hosts, good):
    run(100, *hosts[:3])
    run(GRACE)
    assert brake()
    run(20)
    assert not brake()
    run(300, hosts[0])
    assert lost() == {hosts[0]}


def test_nothing_is_moved_off_a_silent_host_under_the_brake(hosts, good):
    row = instance()
    host = Instance.objects.get(pk=row.pk).host
    run(100, host, *[other for other in hosts if other != host][:2])
    assert Instance.objects.get(pk=row.pk).status == Status.REQUESTED


# --- our own trouble --------------------------------------------------------------------------------------------------


def test_a_portal_that_just_started_gives_nobody_up_before_the_grace(hosts):
    clock.move(timedelta(seconds=300))
    speak(hosts[0])
    lifecycle.watch_hosts()
    assert brake() == "the portal has just begun to watch"
    run(GRACE - 20, hosts[0])
    assert lost() == set()
    run(60, hosts[0])
    assert lost() == {hosts[0]}


def test_a_portal_that_did_not_watch_gives_nobody_up_before_the_grace(hosts, good):
    clock.move(timedelta(seconds=300))
    speak(hosts[0])
    lifecycle.watch_hosts()
    assert "not watching for 300 s" in brake()
    assert lost() == set()


def test_after_an_outage_of_our_own_hosts_that_are_not_heard_at_once_are_not_all_given_up(hosts, good):
    """The portal was off for an hour, and when it is back nothing takes in surveys."""
    clock.move(timedelta(hours=1))
    lifecycle.watch_hosts()
    run(1200, *hosts)
    assert (lost(), brake()) == (set(), "10 of 10 hosts went silent at about the same time")


def test_a_broker_that_does_not_answer_is_our_trouble(hosts, good, monkeypatch):
    monkeypatch.setattr(doorbell, "answers", lambda: False)
    run(300, hosts[0])
    assert (lost(), brake()) == (set(), "the message broker does not answer")


def test_a_clock_that_was_set_is_our_trouble_and_moves_the_fences_along(hosts, good, monkeypatch):
    before = Host.objects.get(pk=hosts[0].pk).fenced_until
    ahead = clock.since_boot
    clock.move(timedelta(seconds=600))
    monkeypatch.setattr(clock, "since_boot", lambda: ahead() - 590)
    speak(hosts[0])
    lifecycle.watch_hosts()
    assert "clock was set by +590 s" in brake()
    moved = Host.objects.get(pk=hosts[0].pk).fenced_until - before
    assert abs(moved.total_seconds() - 590) < 1
    assert lost() == set()


def test_a_clock_that_was_set_back_is_our_trouble(hosts, good):
    clock.move(timedelta(seconds=-600))
    lifecycle.watch_hosts()
    assert "clock was set by -600 s" in brake()


def test_another_machine_that_looks_is_not_taken_for_a_clock_that_was_set(hosts, good):
    Watch.objects.update(looked_boot="another", looked_since_boot=5.0)
    run(20)
    assert not brake()


def test_a_clock_far_from_the_databases_is_our_trouble(hosts, good, monkeypatch):
    monkeypatch.setattr(leases, "clocks", lambda: (clock.now(), clock.now() - timedelta(seconds=3)))
    run(300, hosts[0])
    assert (lost(), brake()) == (set(), "the portal's clock and the database's are 3 s apart")


# --- people -----------------------------------------------------------------------------------------------------------


def test_pulled_by_hand_only_a_person_lets_go(hosts, good):
    lifecycle.pull_brake("maintenance", who="staff:1")
    run(600)
    assert brake() == "maintenance"
    lifecycle.release_brake(who="staff:1")
    assert brake() == ""


def test_a_person_who_lets_go_takes_the_silent_hosts_for_what_they_are(hosts, good):
    run(300, *hosts[:3])
    lifecycle.release_brake(who="staff:1")
    run(40, *hosts[:3])
    assert (lost(), brake()) == (set(hosts[:3]), "")


def test_further_hosts_that_fall_silent_after_that_pull_it_again(hosts, good):
    run(100, *hosts[:3])
    lifecycle.release_brake(who="staff:1")
    run(60, *hosts[:6])
    assert "3 of" in brake()


def test_letting_go_of_a_brake_that_is_not_on_is_refused(hosts, good):
    with pytest.raises(errors.Refused):
        lifecycle.release_brake(who="staff:1")


def test_it_is_noted_who_pulled_it_and_who_let_go_with_the_reason(hosts, good):
    HostEvent.objects.all().delete()
    lifecycle.pull_brake("maintenance", who="staff:1")
    lifecycle.release_brake(who="staff:2")
    found = HostEvent.objects.filter(host=None).order_by("pk").values_list("what", "why", "who")
    assert list(found) == [("brake on", "maintenance", "staff:1"), ("brake off", "maintenance", "staff:2")]


# --- the look itself --------------------------------------------------------------------------------------------------


def test_each_silence_is_noted_once_and_its_end_once(hosts, good):
    Host.objects.update(fenced_until=None)
    run(100, hosts[0])
    for _ in range(2):
        AnsweringHost(hosts[0]).survey()
        run(20)
    events = HostEvent.objects.filter(host=hosts[0]).order_by("pk").values_list("what", flat=True)
    assert list(events) == ["silent", "back"]


def test_looks_that_piled_up_are_one(hosts, good):
    looked_at = Watch.objects.get(pk=1).looked_at
    clock.move(timedelta(seconds=9))
    lifecycle.watch_hosts()
    assert Watch.objects.get(pk=1).looked_at == looked_at


def test_with_all_hosts_well_a_look_costs_the_same_whatever_they_hold(hosts, good):
    def cost():
        with CaptureQueriesContext(
            connection,
        ) as asked:
            run(20)
        return len([query for query in asked if "SAVEPOINT" not in query["sql"]])

    few = cost()
    for host in hosts:
        HostFactory.create()
        AnsweringHost(host).obey(instance())
    assert cost() == few
    assert not [sql for sql in _asked(lambda: run(20)) if "farm_instance" in sql and "lost_at" not in sql]


def _asked(act):
    with CaptureQueriesContext(connection) as asked:
        act()
    return [query["sql"] for query in asked]


def test_a_host_that_cannot_be_dealt_with_keeps_no_other_waiting(hosts, good, monkeypatch, caplog):
    give_up = watching.failing_over.give_up
    monkeypatch.setattr(
        watching.failing_over, "give_up", lambda host, **how: 1 / 0 if host == hosts[0] else give_up(host, **how)
    )
    run(400, hosts[0])
    run(400, hosts[0], hosts[1])
    assert lost() == {hosts[1]}
    assert "could not be dealt with" in caplog.text


# --- the rules, without a database ------------------------------------------------------------------------------------


def test_a_host_whose_silence_is_old_does_not_pull_the_brake_with_a_new_one():
    rules = fencing.Rules(lease=120, suspect=30, move=60, drift=15, grace=60, brake_hosts=2, brake_window=300)
    now = clock.now()

    def facts(number, silent):
        return fencing.HostFacts(
            id=number, fenced=True, surveyed_at=now - timedelta(seconds=silent), fenced_until=now, stop_seconds=5
        )

    outlook = fencing.Outlook(now=now, hosts=[facts(1, 4000), facts(2, 40), *(facts(n, 0) for n in range(3, 9))])
    assert not fencing.braked(fencing.Brake(), outlook, rules).is_on
