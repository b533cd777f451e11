"""What stands on a host and no row accounts for: shown, in nobody's way, not destroyed while there is doubt."""

from __future__ import annotations

from datetime import timedelta

import pytest

from farm import clock, doorbell, errors, lifecycle, vault
from farm.agent import protocol
from farm.agent.protocol import Connection, Observation, Order, Process, Verb
from farm.lifecycle import orphans
from farm.models import BrokerAccount, Host, HostEvent, Instance, Orphan, Watch
from farm.states import Kind, Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, fill_vault, instance

pytestmark = pytest.mark.django_db

UNKNOWN = 4_711
A_DAY = timedelta(hours=24, minutes=1)


@pytest.fixture
def answering():
    return AnsweringHost(HostFactory.create())


def flat(**changes):
    return {"at": clock.now().timestamp(), "positions": 0, "orders": 0} | changes


def line(answering, **changes):
    facts = {
        "instance": UNKNOWN, "folder": "user_9", "present": True, "process": Process.RUNNING, "kind": "live",
        "connection": Connection.CONNECTED, "server": "Broker-Live", "login": 77, "epoch": answering.host.epoch,
        "generation": 5,
    }  # fmt: skip
    return Observation(**(facts | changes))


def only():
    return Orphan.objects.get(gone_at__isnull=True)


def order_for(orphan):
    letter = lifecycle.claim_orphan(orphan.pk)
    return Order.parse(letter.envelope["body"]) if letter else None


def after_a_day(answering, *lines, **changes):
    """First seen a day ago, and seen again just now."""
    answering.survey(*lines, **changes)
    Orphan.objects.update(first_seen_at=clock.now() - A_DAY)


# --- seen -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["running", "lost", "destroying", "stopped"])
def test_what_has_a_row_on_its_host_is_no_orphan(answering, status):
    row = answering.obey(instance())
    Instance.objects.filter(pk=row.pk).update(status=status)
    answering.survey(answering.line(row, generation=row.generation - 1))
    assert not Orphan.objects.exists()


def test_what_was_just_destroyed_is_none_though_a_late_survey_shows_it(answering):
    row = answering.obey(instance())
    late = answering.line(row)
    lifecycle.end(row.pk, why="test", who="test")
    answering.obey(row)
    answering.survey(late)
    assert not Orphan.objects.exists()


def test_a_clone_that_was_made_while_the_survey_was_is_none(answering):
    row = answering.obey(instance())
    answering.survey(answering.line(row), strangers=[row.folder])
    assert not Orphan.objects.exists()


def test_what_a_host_merely_remembers_is_none(answering):
    answering.survey(line(answering, present=False, process=Process.STOPPED))
    assert not Orphan.objects.exists()


def test_what_no_row_accounts_for_is_kept_with_what_it_seems_to_run(answering):
    answering.survey(line(answering, heartbeat=flat(positions=2)), strangers=["Copy of user_3"])
    known, stranger = Orphan.objects.order_by("instance_number")
    if known.instance_number is None:  # the databases do not agree on where NULL goes
        known, stranger = stranger, known
    assert (known.instance_number, known.generation, known.server_key, known.login) == (UNKNOWN, 5, "broker-live", 77)
    assert (known.facts["kind"], known.facts["positions"]) == ("live", 2)
    assert (stranger.folder, stranger.instance_number) == ("Copy of user_3", None)
    assert HostEvent.objects.filter(what="orphan", host=answering.host).count() == 2


def test_what_a_row_calls_destroyed_for_long_and_is_still_there_is_one(answering):
    fill_vault()
    row = answering.obey(instance())
    lifecycle.end(row.pk, why="test", who="test")
    answering.obey(row)
    with clock.moved(timedelta(minutes=2)):
        answering.survey(answering.line(row))
    assert (only().instance_number, only().server_key) == (row.pk, "metaquotes-demo")


def test_what_has_its_row_on_another_host_is_one_and_the_row_is_left_alone(answering):
    other = AnsweringHost(HostFactory.create(slots=30))
    row = other.obey(instance())
    assert row.host == other.host
    answering.survey(answering.line(row, process=Process.STOPPED))
    row.refresh_from_db()
    assert (only().host, row.status) == (answering.host, Status.RUNNING)


def test_it_is_one_row_while_it_stands_there_and_another_when_it_comes_again(answering):
    answering.survey(line(answering))
    answering.survey(line(answering))
    first = only()
    answering.survey()
    first.refresh_from_db()
    assert first.gone_at is not None
    answering.survey(line(answering))
    assert only().pk != first.pk


def test_what_opens_a_position_is_noted_at_once_and_a_younger_heartbeat_after_a_while(answering):
    answering.survey(line(answering, heartbeat=flat()))
    answering.survey(line(answering, heartbeat=flat(at=clock.now().timestamp() + 1)))
    before = only().facts["beat_at"]
    answering.survey(line(answering, heartbeat=flat(positions=1)))
    assert only().facts["positions"] == 1
    with clock.moved(timedelta(seconds=20)):
        answering.survey(line(answering, heartbeat=flat(positions=1)))
    assert only().facts["beat_at"] > before


def test_a_survey_with_orphans_costs_as_many_statements_for_many_as_for_one(answering, django_assert_num_queries):
    answering.survey(line(answering))
    with django_assert_num_queries(7):  # with one for what the numbers stand for elsewhere
        answering.survey(line(answering))
    lines = [line(answering, instance=UNKNOWN + number, folder=f"user_{number}") for number in range(9)]
    answering.survey(*lines)
    with django_assert_num_queries(7):
        answering.survey(*lines)


# --- nobody else is given its account ---------------------------------------------------------------------------------


@pytest.fixture
def account():
    customer = UserFactory.create()
    return BrokerAccount.objects.create(server="BROKER-Live", login=77, password="x", owner=customer)


def test_a_live_terminal_does_not_get_the_account_that_an_orphan_may_run(answering, account):
    answering.survey(line(answering))
    row = lifecycle.go_on(customer_id=account.owner_id, account=account, replaces=None, who="test")
    assert (row.status, row.refusal) == (Status.DESTROYED, "seat taken")


def test_it_does_when_the_orphan_is_gone(answering, account):
    answering.survey(line(answering))
    answering.survey()
    row = lifecycle.go_on(customer_id=account.owner_id, account=account, replaces=None, who="test")
    assert row.status == Status.REQUESTED


def test_who_has_the_seat_already_keeps_it(answering, account):
    row = lifecycle.go_on(customer_id=account.owner_id, account=account, replaces=None, who="test")
    answering.survey(line(answering), answering.line(row))
    assert vault.take_seat(account, row)


def test_a_demo_account_that_an_orphan_may_run_is_given_to_nobody(answering):
    fill_vault(2)
    first = BrokerAccount.objects.order_by("pk").first()
    answering.survey(line(answering, server=first.server, login=first.login))
    assert instance().account != first


# --- destroyed --------------------------------------------------------------------------------------------------------


def test_one_that_was_first_seen_a_while_ago_is_left_alone(answering):
    answering.survey(line(answering, heartbeat=flat()))
    Orphan.objects.update(first_seen_at=clock.now() - timedelta(hours=23))
    assert lifecycle.sweep_orphans() == []
    assert order_for(only()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"heartbeat": {"positions": 0, "orders": 0}},
        {"heartbeat": {"at": 1.0, "positions": 0, "orders": 0}},
        {"heartbeat": {"at": clock.now().timestamp() + 9e9, "orders": 0}},
        {"heartbeat": {"at": clock.now().timestamp() + 9e9, "positions": 1, "orders": 0}},
        {"heartbeat": {"at": clock.now().timestamp() + 9e9, "positions": 0, "orders": 1}},
        {"process": Process.UNKNOWN},
        {"process": Process.STOPPED, "connection": Connection.UNKNOWN},
    ],
    ids=["no heartbeat", "one of no time", "an old one", "no word on positions", "a position", "an order",
         "process not known", "not running"],
)  # fmt: skip
def test_one_that_may_have_something_open_is_left_alone_for_ever(answering, changes):
    after_a_day(answering, line(answering, **changes))
    assert lifecycle.sweep_orphans() == []
    assert order_for(only()) is None


def test_one_that_its_host_does_not_know_is_left_alone_for_ever(answering):
    after_a_day(answering, strangers=["user_9", protocol.unreadable_state(8)])
    assert lifecycle.sweep_orphans() == []
    for orphan in Orphan.objects.all():
        with pytest.raises(errors.Refused):
            lifecycle.destroy_orphan(orphan.pk, who="staff:1")


def test_nothing_is_destroyed_on_a_host_that_is_silent(answering):
    after_a_day(answering, line(answering, heartbeat=flat()))
    Host.objects.update(surveyed_at=clock.now() - timedelta(minutes=1))
    assert lifecycle.sweep_orphans() == []


def test_nothing_is_destroyed_by_itself_while_the_brake_is_on(answering):
    after_a_day(answering, line(answering, heartbeat=flat()))
    Watch.objects.create(pk=1, brake_why="the database was restored")
    assert lifecycle.sweep_orphans() == []


def test_a_number_that_this_hosts_own_row_has_is_never_ordered_away(answering):
    row = answering.obey(instance())
    after_a_day(answering, answering.line(row, folder="user_9", heartbeat=flat()))
    assert only().instance_number is None
    assert lifecycle.sweep_orphans() == []


def test_nor_one_that_the_row_got_after_it_was_seen(answering):
    row = answering.obey(instance())
    after_a_day(answering, line(answering, heartbeat=flat()))
    Orphan.objects.update(instance_number=row.pk)
    assert order_for(only()) is None


@pytest.mark.parametrize("changes", [{"heartbeat": True}, {"connection": Connection.NO_ACCOUNT}])
def test_one_with_surely_nothing_open_is_destroyed_after_a_day_by_an_order_newer_than_its_last(answering, changes):
    changes = {**changes, "heartbeat": flat()} if "heartbeat" in changes else changes
    after_a_day(answering, line(answering, **changes))
    assert lifecycle.sweep_orphans() == [only().pk]
    order = order_for(only())
    assert (order.verb, order.host, order.instance, order.folder, order.age) == (
        Verb.DESTROY, answering.host.name, UNKNOWN, "user_9", (1, 6)
    )  # fmt: skip


def test_the_order_is_given_once_and_after_a_while_again(answering):
    after_a_day(answering, line(answering, connection=Connection.NO_ACCOUNT))
    assert order_for(only()) is not None
    assert order_for(only()) is None
    with clock.moved(timedelta(minutes=6)):
        answering.survey(line(answering, connection=Connection.NO_ACCOUNT))
        assert lifecycle.sweep_orphans() == [only().pk]


def test_its_answer_is_no_forgery_and_changes_nothing(answering, caplog):
    other = AnsweringHost(HostFactory.create(slots=30))
    row = other.obey(instance())
    after_a_day(answering, answering.line(row, connection=Connection.NO_ACCOUNT))
    assert answering.answer(order_for(only())) is False
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    with pytest.raises(errors.Untrusted):
        AnsweringHost(HostFactory.create()).answer(Order.parse(orphans.orders.farewell(only()).envelope["body"]))


def test_staff_have_it_destroyed_at_once_whatever_it_has_open(
    answering, monkeypatch, django_capture_on_commit_callbacks
):
    rung = []
    monkeypatch.setattr(doorbell, "ring", lambda *args, **kwargs: rung.append(args) or True)
    answering.survey(line(answering, heartbeat=flat(positions=3)))
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.destroy_orphan(only().pk, who="staff:3")
    assert rung == [(doorbell.DESTROY_ORPHAN, only().pk)]
    assert order_for(only()).verb == Verb.DESTROY
    assert HostEvent.objects.filter(what="orphan", who="staff:3").count() == 1


def test_what_staff_asked_for_is_not_forgotten_if_the_ring_was_lost(answering):
    answering.survey(line(answering))
    lifecycle.destroy_orphan(only().pk, who="staff:3")
    assert lifecycle.sweep_orphans() == [only().pk]


def test_one_that_is_gone_is_not_destroyed(answering):
    answering.survey(line(answering))
    orphan = only()
    answering.survey()
    with pytest.raises(errors.Refused):
        lifecycle.destroy_orphan(orphan.pk, who="staff:3")


def test_a_destroyed_row_that_comes_back_to_life_is_ended_by_the_same_way(answering):
    row = answering.obey(instance(kind=Kind.LIVE))
    lifecycle.end(row.pk, why="test", who="test")
    answering.obey(row)
    with clock.moved(A_DAY):
        answering.survey(answering.line(row, connection=Connection.NO_ACCOUNT))
        lifecycle.destroy_orphan(only().pk, who="staff:3")
        order = order_for(only())
        assert order.generation == row.generation + 1
        assert answering.answer(order) is False
