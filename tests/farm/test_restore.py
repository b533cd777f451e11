"""A database put back from an hour ago: nothing is restarted, nothing is lost, nothing runs twice."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.management import call_command

from farm import clock, fencing, leases, lifecycle
from farm.agent.protocol import Connection, Process, Verb
from farm.models import Host, HostEvent, Instance, Orphan, Watch
from farm.states import Goal, Reason, Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance
from tests.farm import invariants
from tests.farm.test_failover import FENCE, leased, look
from tests.farm.test_living import fresh, go_live, paid, proof, to_start

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _rules(settings):
    settings.LEASE_SECONDS, settings.DRIFT_SECONDS, settings.SURVEY_FRESH_SECONDS = 120, 15, 30
    with clock.moved(timedelta()):
        yield


@pytest.fixture
def host():
    host = AnsweringHost(leased(HostFactory.create()))
    for _ in range(3):
        leased(HostFactory.create())
    return host


@pytest.fixture
def live(host):
    """Live, as it was an hour ago."""
    demo = host.obey(instance())
    Host.objects.exclude(pk=host.host.pk).update(state=Host.State.DRAINING)
    row = go_live(host, demo)
    Host.objects.update(state=Host.State.ONLINE)
    return row


def restore(**how):
    clock.move(timedelta(hours=1))
    lifecycle.after_restore(**{"leases_were_held": False, "who": "staff:1"} | how)


def test_nothing_that_runs_is_restarted_and_what_the_hosts_say_counts_again(host, live):
    line = host.line(live, connection=Connection.LOST)
    lines = live.transitions.count()
    restore()
    look()
    host.survey(line)
    lifecycle.sweep()
    assert (fresh(live).status, fresh(live).connection, fresh(live).transitions.count()) == (
        Status.RUNNING,
        Connection.LOST,
        lines,
    )
    assert lifecycle.claim(live.pk) is None
    assert not Orphan.objects.exists()


def test_nobody_is_given_up_though_all_were_silent_for_an_hour(host, live):
    restore()
    for _ in range(100):
        clock.move(timedelta(seconds=10))
        lifecycle.watch_hosts()
    assert not Host.objects.filter(lost_at__isnull=False).exists()
    assert fresh(live).status == Status.RUNNING


def test_every_order_is_newer_than_any_from_before_also_after_a_second_restore_from_an_older_backup(host, live):
    old = (host.host.epoch, 10_000)
    restore()
    first = Host.objects.get(pk=host.host.pk).epoch
    Host.objects.update(epoch=1)
    restore()
    assert Host.objects.get(pk=host.host.pk).epoch > first > old[0]
    host.host.refresh_from_db()
    lifecycle.restart(live.pk, who="customer:1")
    assert host.claim(fresh(live)).age > old


def test_a_terminal_is_ordered_about_as_before_when_it_has_taken_the_new_epoch(host, live):
    restore()
    host.host.refresh_from_db()
    lifecycle.stop(live.pk, why="not paid", who="payment")
    assert host.obey(fresh(live)).status == Status.STOPPED


def test_leases_that_were_granted_in_the_lacking_time_may_still_run(host, live):
    Host.objects.update(fenced_until=clock.now() - timedelta(hours=5))
    restore()
    for row in Host.objects.all():
        facts = leases.facts(row)
        ends = fencing.fence_ends(facts.fenced_until, stop_seconds=facts.stop_seconds, drift=15)
        assert ends >= clock.now() + timedelta(seconds=FENCE - 1)


def test_leases_that_were_held_may_run_for_hours(host, settings):
    restore(leases_were_held=True)
    most = timedelta(hours=settings.HOLD_LEASES_MOST_HOURS)
    assert Host.objects.get(pk=host.host.pk).fenced_until >= clock.now() + most - timedelta(seconds=1)


def test_a_fence_that_is_later_already_stays(host):
    later = clock.now() + timedelta(hours=9)
    Host.objects.filter(pk=host.host.pk).update(fenced_until=later)
    restore()
    assert Host.objects.get(pk=host.host.pk).fenced_until == later


def test_a_static_host_has_no_fence_after_it_either(host):
    Host.objects.filter(pk=host.host.pk).update(policy="static", fenced_until=None)
    restore()
    assert Host.objects.get(pk=host.host.pk).fenced_until is None


def test_until_somebody_lets_go_no_live_account_is_logged_in_anywhere(host):
    row = paid(host.obey(instance()))
    there = AnsweringHost(fresh(row).host)
    there.answer(there.claim(fresh(row)))
    assert fresh(row).status == Status.INJECTING
    restore()
    there.host.refresh_from_db()
    assert there.claim(fresh(row)) is None
    lifecycle.release_brake(who="staff:1")
    clock.move(timedelta(minutes=5))
    assert there.claim(fresh(row)).verb is Verb.INJECT


def test_one_that_was_starting_is_neither_started_nor_refused_for_want_of_an_answer(host):
    row = paid(host.obey(instance()))
    there = AnsweringHost(fresh(row).host)
    there.answer(to_start(there, row), **proof(heartbeat=None))
    assert fresh(row).status == Status.STARTING
    restore()
    assert there.claim(fresh(row)) is None
    assert fresh(row).status == Status.STARTING
    there.survey(there.line(fresh(row), **proof()))
    assert fresh(row).status == Status.RUNNING


def test_a_press_pass_is_started_meanwhile(host):
    row = instance()
    restore()
    Host.objects.update(surveyed_at=clock.now())
    there = AnsweringHost(fresh(row).host)
    assert there.obey(fresh(row)).status == Status.RUNNING


def test_the_word_that_it_was_looked_at_is_letting_go_of_the_brake(host):
    restore()
    assert Watch.objects.get().restored_at is not None
    lifecycle.release_brake(who="staff:1")
    assert Watch.objects.get().restored_at is None


def test_even_after_that_an_account_that_something_unknown_may_run_is_not_logged_in(host, live):
    """In the lacking time it was moved to another host, where its new clone runs on: an orphan."""
    Instance.objects.filter(pk=live.pk).update(status=Status.STARTING, next_at=clock.now(), claimed_until=None)
    restore()
    lifecycle.release_brake(who="staff:1")
    Orphan.objects.create(
        host=Host.objects.exclude(pk=host.host.pk).first(), folder="user_1-9", server_key="paperbroker-live",
        login=live.account.login,
    )  # fmt: skip
    assert host.claim(fresh(live)) is None
    Orphan.objects.update(gone_at=clock.now())
    clock.move(timedelta(minutes=5))
    host.host.refresh_from_db()
    assert host.claim(fresh(live)).verb is Verb.START


def test_what_was_stopped_in_the_lacking_time_stands_before_staff_and_is_not_started(host, live):
    line = host.line(live, generation=live.generation + 2, process=Process.STOPPED)
    restore()
    look()
    host.survey(line)
    lifecycle.sweep()
    assert (fresh(live).status, fresh(live).reason, fresh(live).goal) == (
        Status.FAILED,
        Reason.FORGOTTEN,
        Goal.RUNNING,
    )
    assert host.claim(fresh(live)) is None


def test_what_was_restarted_in_the_lacking_time_is_known_to_run(host, live):
    line = host.line(live, generation=live.generation + 2, connection=Connection.LOST)
    restore()
    host.survey(line)
    assert (fresh(live).status, fresh(live).connection) == (Status.RUNNING, Connection.LOST)


def test_numbers_that_were_given_in_the_lacking_time_are_not_given_again(host):
    last, customer = instance(), UserFactory.create()
    restore()
    assert instance().pk > last.pk + 1000
    assert UserFactory.create().pk > customer.pk + 1000


def test_done_twice_it_is_as_done_once(host, live):
    restore()
    lifecycle.after_restore(leases_were_held=False, who="staff:1")
    host.survey(host.line(live))
    assert fresh(live).status == Status.RUNNING
    invariants.check()


def test_the_command_says_what_it_did_and_who_did_it():
    HostFactory.create()
    said = io.StringIO()
    call_command("after_restore", "--who", "ann", stdout=said)
    assert "Hosts with a new epoch: 1." in said.getvalue()
    assert HostEvent.objects.get(what="restored").who == "staff:ann"
