"""A host is emptied: nobody loses anything by it, nothing goes in a wave, and what cannot go says why."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from farm import clock, doorbell, errors, keepsakes, lifecycle
from farm.agent.protocol import Outcome, Reason, Refusal
from farm.lifecycle import draining
from farm.models import Host, HostEvent, Instance, Ticket, Watch
from farm.states import Goal, Kind, Status
from tests.factories import AnsweringHost, HostFactory, fill_vault, instance
from tests.farm import invariants
from tests.farm.test_living import fresh, go_live, hold, proof, to_start

pytestmark = pytest.mark.django_db


@pytest.fixture
def emptied():
    """The host that is drained; at first the one with the most room."""
    return AnsweringHost(HostFactory.create(slots=30))


@pytest.fixture
def other(emptied):
    return AnsweringHost(HostFactory.create(slots=20))


@pytest.fixture
def demo(emptied, other):
    return emptied.obey(instance())


@pytest.fixture
def live(emptied, demo):
    return go_live(emptied, demo)


def drain(host, **options):
    lifecycle.drain(host.host.pk, forced=options.get("forced", False), who="staff:1")


def beat(**changes):
    return proof()["heartbeat"] | {"positions": 0, "orders": 0} | changes


def says(host, row, **changes):
    """A survey in which the live terminal's EA says what is open."""
    host.survey(host.line(fresh(row), **proof(heartbeat=beat(**changes))))


def successor(row):
    return Instance.objects.filter(replaces=row).order_by("pk").last()


def why(row):
    return {left.row.pk: left.why for left in lifecycle.left_on(Host.objects.get(pk=row.host_id))}[row.pk]


def heard(*hosts):
    Host.objects.filter(pk__in=[host.host.pk for host in hosts]).update(surveyed_at=clock.now())


# --- what is refused and what stays -----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"state": Host.State.RETIRED}, {"lost_at": clock.now()}], ids=["retired", "lost"])
def test_a_host_cannot_be_drained_that_is(emptied, changes):
    Host.objects.update(**changes)
    with pytest.raises(errors.Refused):
        drain(emptied)


def test_a_drain_that_was_not_begun_cannot_be_undone(emptied):
    with pytest.raises(errors.Refused):
        lifecycle.undo_drain(emptied.host.pk, who="staff:1")


def test_nothing_is_moved_off_a_host_that_is_not_drained(demo, live):
    assert lifecycle.drain_on() == 0
    assert not Instance.objects.filter(replaces=live).exists()


def test_without_a_slot_elsewhere_nobody_loses_theirs(emptied, other, demo):
    Host.objects.filter(pk=other.host.pk).update(slots=0)
    drain(emptied)
    assert lifecycle.drain_on() == 0
    assert fresh(demo).status == Status.RUNNING
    assert [left.why for left in lifecycle.blockers(emptied.host)] == ["no other host has a slot"]


def test_nothing_is_moved_off_a_silent_host(emptied, demo):
    drain(emptied)
    Host.objects.filter(pk=emptied.host.pk).update(surveyed_at=clock.now() - timedelta(minutes=1))
    assert lifecycle.drain_on() == 0
    assert [left.why for left in lifecycle.blockers(Host.objects.get(pk=emptied.host.pk))] == ["its machine is silent"]


def test_nothing_is_moved_while_the_brake_is_on(emptied, demo):
    Watch.objects.create(pk=1, brake_why="the database was restored")
    drain(emptied)
    assert lifecycle.drain_on() == 0
    assert [left.why for left in lifecycle.blockers(emptied.host)] == ["the brake is on"]


@pytest.mark.parametrize(
    "said",
    [{"positions": 1}, {"orders": 1}, {"positions": None}, {"orders": None}, {"positions": "0"}, {"at": 1.0}],
    ids=str,
)
def test_a_live_one_stays_while_something_is_or_may_be_open(emptied, live, said):
    says(emptied, live, **said)
    drain(emptied)
    assert lifecycle.drain_on() == 0
    assert "open" in why(live)
    assert fresh(live).status == Status.RUNNING


def test_what_was_said_a_while_ago_counts_as_not_known(emptied, other, live):
    says(emptied, live)
    drain(emptied)
    with clock.moved(timedelta(seconds=61)):
        heard(emptied, other)
        assert lifecycle.drain_on() == 0
        assert why(live) == "whether it has anything open is not known"


def test_a_demo_keeps_its_demo_account_rather_than_be_moved_without(emptied, other):
    fill_vault(1)
    demo = emptied.obey(instance())
    drain(emptied)
    assert lifecycle.drain_on() == 0
    assert why(demo) == "no demo account is free for it"
    drain(emptied, forced=True)
    assert lifecycle.drain_on() == 1
    assert successor(demo).account is None


def test_one_whose_customer_is_just_paying_stays(emptied, demo):
    hold(demo)
    drain(emptied)
    assert lifecycle.drain_on() == 0
    assert why(demo) == "its successor is on its way"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": Status.FAILED, "next_at": None}, "before staff"),
        ({"status": Status.FAILED, "next_at": clock.now()}, "tried again"),
        ({"status": Status.STARTING}, "coming up"),
        ({"status": Status.STOPPED, "goal": Goal.STOPPED}, "just stopped"),
        ({"status": Status.STOPPED, "goal": Goal.STOPPED, "kind": Kind.LIVE}, "has paid"),
        ({"status": Status.DESTROYING, "goal": Goal.DESTROYED}, "on its way out"),
        ({"status": Status.FAILED, "goal": Goal.DESTROYED, "next_at": None}, "could not be destroyed"),
        ({"kind": Kind.LIVE}, "without an account"),
    ],
)
def test_what_keeps_another_one_is_said(emptied, demo, changes, words):
    Instance.objects.filter(pk=demo.pk).update(**changes)
    drain(emptied)
    assert lifecycle.drain_on() == 0
    assert words in why(demo)


# --- moved ------------------------------------------------------------------------------------------------------------


def test_a_demo_goes_to_another_host_with_what_is_left_of_its_days(emptied, other, demo):
    ends_at = clock.now() + timedelta(days=2)
    Instance.objects.filter(pk=demo.pk).update(ends_at=ends_at)
    drain(emptied)
    assert lifecycle.drain_on() == 1
    new = successor(demo)
    assert (fresh(demo).status, fresh(demo).goal) == (Status.DESTROYING, Goal.DESTROYED)
    assert (new.host, new.ends_at, new.status) == (other.host, ends_at, Status.REQUESTED)
    assert demo.transitions.get(became=Status.DESTROYING).why == draining.WHY
    emptied.obey(demo)
    assert other.obey(new).status == Status.RUNNING
    assert lifecycle.current(demo.customer_id) == new
    invariants.check()


def test_its_days_count_from_its_first_start_also_if_nobody_has_reckoned_them_yet(emptied, demo, settings):
    Instance.objects.filter(pk=demo.pk).update(ends_at=None)
    drain(emptied)
    lifecycle.drain_on()
    assert successor(demo).ends_at == demo.first_running_at + timedelta(days=settings.PRESS_PASS_DAYS)


@pytest.fixture
def _keepsakes(settings):
    settings.KEEPSAKE_WAIT_SECONDS = 10


@pytest.mark.usefixtures("_keepsakes")
def test_a_demo_is_asked_for_its_keepsake_first_and_goes_when_that_came(emptied, demo, monkeypatch):
    rung = []
    monkeypatch.setattr(doorbell, "ring", lambda *args, **kwargs: rung.append(args) or True)
    drain(emptied)
    lifecycle.drain_on()
    assert rung == [(doorbell.KEEP, demo.pk)]
    assert fresh(demo).status == Status.RUNNING
    lifecycle.ask_for_keepsake(demo.pk)
    lifecycle.drain_on()
    assert fresh(demo).status == Status.RUNNING
    Ticket.objects.update(used_at=clock.now())
    lifecycle.drain_on()
    assert fresh(demo).status == Status.DESTROYING
    assert [one for one in rung if one[0] == doorbell.KEEP] == [(doorbell.KEEP, demo.pk)]


@pytest.mark.usefixtures("_keepsakes")
def test_nobody_is_asked_for_a_keepsake_while_there_is_no_slot_elsewhere(emptied, other, demo, monkeypatch):
    rung = []
    monkeypatch.setattr(doorbell, "ring", lambda *args, **kwargs: rung.append(args) or True)
    Host.objects.filter(pk=other.host.pk).update(slots=0)
    drain(emptied)
    lifecycle.drain_on()
    assert rung == []


@pytest.mark.usefixtures("_keepsakes")
def test_a_keepsake_that_does_not_come_is_waited_for_and_then_gone_without(emptied, other, demo):
    drain(emptied)
    lifecycle.ask_for_keepsake(demo.pk)
    with clock.moved(timedelta(seconds=11)):
        heard(emptied, other)
        lifecycle.drain_on()
    assert fresh(demo).status == Status.DESTROYING


def test_a_ticket_of_long_ago_says_nothing_of_a_keepsake_of_now(demo):
    keepsakes.issue(demo, Ticket.Direction.PUT)
    with clock.moved(timedelta(hours=1)):
        assert keepsakes.asked_at(demo.pk) is None


def test_a_live_one_is_stopped_its_seat_goes_on_and_the_new_one_is_proven_before_the_old_goes(emptied, other, live):
    says(emptied, live)
    drain(emptied)
    assert lifecycle.drain_on() == 1
    new = successor(live)
    assert (new.status, new.host, new.account, fresh(live).status) == (
        Status.WAITING, other.host, live.account, Status.STOPPING,
    )  # fmt: skip
    assert other.claim(new) is None
    emptied.answer(emptied.claim(live))
    assert (fresh(live).status, fresh(new).seat.instance_id) == (Status.STOPPED, new.pk)
    other.answer(to_start(other, new), **proof())
    assert (fresh(new).status, fresh(live).goal) == (Status.RUNNING, Goal.DESTROYED)
    assert live.transitions.get(became=Status.STOPPING).why == draining.WHY
    emptied.obey(live)
    invariants.check()
    assert invariants.stuck() == []


def test_with_force_also_one_with_open_positions_is_moved(emptied, live):
    says(emptied, live, positions=2)
    drain(emptied, forced=True)
    assert lifecycle.drain_on() == 1
    assert fresh(live).status == Status.STOPPING


def test_one_that_is_not_let_in_elsewhere_runs_again_where_it_was_and_is_left_there_for_a_while(emptied, other, live):
    says(emptied, live)
    drain(emptied)
    lifecycle.drain_on()
    new = successor(live)
    emptied.answer(emptied.claim(live))
    other.answer(to_start(other, new), connection="refused", refusal=Refusal.OTHER)
    other.obey(new)
    assert emptied.obey(live).status == Status.RUNNING
    says(emptied, live)
    assert lifecycle.drain_on() == 0
    assert "not let in" in why(live)
    with clock.moved(draining.LEFT_ALONE + timedelta(seconds=1)):
        heard(emptied, other)
        says(emptied, live)
        assert lifecycle.drain_on() == 1
    invariants.check()


# --- paced ------------------------------------------------------------------------------------------------------------


def test_demos_go_first_and_never_more_at_once_than_is_set(emptied, other, live, settings):
    settings.DRAIN_AT_ONCE = 2
    demos = [emptied.obey(instance()) for _ in range(3)]
    says(emptied, live)
    drain(emptied)
    assert lifecycle.drain_on() == 2
    assert [fresh(row).status for row in demos] == [Status.DESTROYING, Status.DESTROYING, Status.RUNNING]
    assert lifecycle.drain_on() == 0
    other.obey(successor(demos[0]))
    assert lifecycle.drain_on() == 1
    assert lifecycle.drain_on() == 0
    for row in demos[1:]:
        other.obey(successor(row))
    assert fresh(live).status == Status.RUNNING
    assert lifecycle.drain_on() == 1
    assert fresh(live).status == Status.STOPPING


def test_a_successor_that_stands_before_staff_keeps_the_others_from_nothing(emptied, other, demo, settings):
    settings.DRAIN_AT_ONCE = 1
    second = emptied.obey(instance())
    drain(emptied)
    lifecycle.drain_on()
    new = successor(demo)
    other.answer(other.claim(new), Outcome.REFUSED, Reason.STALE)
    assert fresh(new).status == Status.FAILED
    assert lifecycle.drain_on() == 1
    assert fresh(second).status == Status.DESTROYING


def test_one_that_cannot_go_is_in_nobodys_way(emptied, demo, settings):
    settings.DRAIN_AT_ONCE = 1
    second = emptied.obey(instance())
    Instance.objects.filter(pk=demo.pk).update(status=Status.FAILED, next_at=None)
    drain(emptied)
    assert lifecycle.drain_on() == 1
    assert fresh(second).status == Status.DESTROYING


def test_two_sweeps_at_the_same_moment_move_nothing_twice(emptied, demo, monkeypatch, settings):
    settings.DRAIN_AT_ONCE = 9
    drain(emptied)
    seen = lifecycle.left_on(emptied.host)
    assert lifecycle.drain_on() == 1
    monkeypatch.setattr(draining, "left_on", lambda host: seen)
    assert lifecycle.drain_on() == 0
    assert Instance.objects.filter(replaces=demo).count() == 1


def test_what_opens_a_position_between_the_look_and_the_move_stays(emptied, live, monkeypatch):
    says(emptied, live)
    drain(emptied)
    seen = lifecycle.left_on(Host.objects.get(pk=emptied.host.pk))
    assert [left.why for left in seen] == [""]
    says(emptied, live, positions=1)
    monkeypatch.setattr(draining, "left_on", lambda host: seen)
    assert lifecycle.drain_on() == 0
    assert (fresh(live).status, successor(live)) == (Status.RUNNING, None)


def test_a_host_that_raises_keeps_no_other_from_being_drained(emptied, other, demo, monkeypatch, caplog):
    bad = HostFactory.create()
    Host.objects.filter(pk=bad.pk).update(state=Host.State.DRAINING)
    left_on = draining.left_on
    monkeypatch.setattr(draining, "left_on", lambda host: 1 / 0 if host.pk == bad.pk else left_on(host))
    drain(emptied)
    assert lifecycle.drain_on() == 1
    assert "could not be drained" in caplog.text


# --- undone, and done -------------------------------------------------------------------------------------------------


def test_undone_the_rest_stays_and_the_host_is_used_again(emptied, other, demo, settings):
    settings.DRAIN_AT_ONCE = 1
    second = emptied.obey(instance())
    drain(emptied)
    lifecycle.drain_on()
    lifecycle.undo_drain(emptied.host.pk, who="staff:1")
    other.obey(successor(demo))
    emptied.obey(demo)
    assert lifecycle.drain_on() == 0
    assert fresh(second).status == Status.RUNNING
    assert instance().host == emptied.host


def test_an_empty_host_is_noted_as_drained_once_for_each_time(emptied, other, demo):
    drain(emptied)
    lifecycle.drain_on()
    other.obey(successor(demo))
    emptied.obey(demo)
    for _ in range(3):
        lifecycle.drain_on()
    lifecycle.undo_drain(emptied.host.pk, who="staff:1")
    drain(emptied)
    lifecycle.drain_on()
    journal = HostEvent.objects.filter(host=emptied.host).order_by("pk").values_list("what", flat=True)
    assert list(journal) == ["draining", "drained", "in use again", "draining", "drained"]


def test_asked_for_twice_it_is_noted_once_and_force_may_come_later(emptied):
    drain(emptied)
    drain(emptied)
    drain(emptied, forced=True)
    assert HostEvent.objects.filter(what="draining").count() == 2
    assert Host.objects.get(pk=emptied.host.pk).drain_forced


def test_a_farm_without_a_draining_host_pays_one_statement(demo, django_assert_num_queries):
    with django_assert_num_queries(1):
        lifecycle.drain_on()


def test_looking_over_a_host_costs_the_same_for_many(emptied, demo, django_assert_num_queries):
    for number in (0, 9):
        for _ in range(number):
            emptied.obey(instance())
        with django_assert_num_queries(4):
            lifecycle.left_on(emptied.host)


# --- the command ------------------------------------------------------------------------------------------------------


def said(*args):
    out = StringIO()
    call_command("drain", *args, stdout=out)
    return out.getvalue()


def test_the_command_knows_no_host_of_that_name():
    with pytest.raises(CommandError, match="no host nowhere"):
        call_command("drain", "nowhere")


def test_the_command_drains_says_what_keeps_what_and_undoes_it(emptied, live):
    name = emptied.host.name
    says(emptied, live, positions=2)
    assert "online; 1 terminals" in said(name, "--status")
    assert "open: 2 positions, 0 orders" in said(name, "--who", "ada")
    assert HostEvent.objects.get(what="draining").who == "staff:ada"
    assert "also what has something open" in said(name, "--force")
    assert "online" in said(name, "--undo")
    with pytest.raises(CommandError, match="not being drained"):
        said(name, "--undo")


def test_the_command_says_when_nothing_is_left(emptied):
    assert "Nothing is left" in said(emptied.host.name)
