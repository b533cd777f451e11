"""The waiting list: fair, honest about its pace, and a slot held for whoever is not there."""

from __future__ import annotations

from datetime import timedelta

import django
import pytest

django.setup()

from farm import clock, errors, lifecycle  # noqa: E402
from farm.lifecycle import line  # noqa: E402
from farm.models import BrokerAccount, Host, Instance, Port, Seat, Transition  # noqa: E402
from farm.states import Connection, Goal, Kind, Status  # noqa: E402
from tests.factories import AnsweringHost, HostFactory, UserFactory, fill_vault, instance  # noqa: E402

pytestmark = pytest.mark.django_db

AWAY = timedelta(minutes=5)
HOUR = timedelta(hours=1)


@pytest.fixture
def full():
    """A host of one slot, taken; whoever asks then waits."""
    host = HostFactory.create(slots=1)
    return AnsweringHost(host), instance()


def leave(answering, row):
    """The one who has the slot goes, and the slot is free."""
    lifecycle.end(row.pk, why="test", who="test")
    return answering.obey(row)


def heard(host):
    Host.objects.filter(pk=host.pk).update(surveyed_at=clock.now())


def offered(full):
    answering, first = full
    row = instance()
    leave(answering, first)
    with clock.moved(AWAY):
        heard(answering.host)
        lifecycle.admit()
    row.refresh_from_db()
    return row


def test_who_is_there_starts_at_once(full):
    answering, first = full
    row = instance()
    leave(answering, first)
    assert lifecycle.admit() == 1
    row.refresh_from_db()
    assert (row.status, row.held_until) == (Status.REQUESTED, None)


def test_who_is_not_there_has_the_slot_held(full, settings):
    row = offered(full)
    assert row.status == Status.WAITING
    assert row.host is not None
    assert row.held_until - row.transitions.latest("pk").at == timedelta(minutes=settings.OFFER_MINUTES)
    assert lifecycle.waiting_position(row) is None
    assert Port.objects.filter(instance=row).count() == 1
    assert row.transitions.latest("pk").who == "line"


def test_looking_at_the_page_counts_as_being_there(full):
    answering, first = full
    row = instance()
    leave(answering, first)
    with clock.moved(AWAY):
        heard(answering.host)
        lifecycle.watch(row.pk)
        lifecycle.admit()
    row.refresh_from_db()
    assert row.status == Status.REQUESTED


def test_being_there_is_written_at_most_every_twenty_seconds(full, django_assert_num_queries):
    row = instance()
    with clock.moved(timedelta(seconds=19)):
        lifecycle.watch(row.pk)
    before = row.watched_at
    row.refresh_from_db()
    assert row.watched_at == before
    with clock.moved(timedelta(seconds=21)):
        lifecycle.watch(row.pk)
    row.refresh_from_db()
    assert row.watched_at > before


def test_an_accepted_slot_is_gone_on_with(full):
    row = offered(full)
    lifecycle.accept(row.pk, who="customer:1")
    row.refresh_from_db()
    assert (row.status, row.held_until) == (Status.REQUESTED, None)
    assert full[0].obey(row).status == Status.RUNNING


def test_accepting_twice_is_accepting_once(full):
    row = offered(full)
    lifecycle.accept(row.pk, who="customer:1")
    lifecycle.accept(row.pk, who="customer:1")
    assert Transition.objects.filter(instance=row, became=Status.REQUESTED).count() == 1


def test_a_slot_that_is_not_accepted_goes_to_the_next_in_line(full, settings):
    row, second = offered(full), instance()
    settings.OFFER_MINUTES = 60
    with clock.moved(AWAY + HOUR - timedelta(seconds=30)):
        assert lifecycle.withdraw_expired() == []
    with clock.moved(AWAY + HOUR + timedelta(seconds=30)):
        heard(full[0].host)
        lifecycle.watch(second.pk)
        assert lifecycle.withdraw_expired() == [row.pk]
        assert lifecycle.withdraw_expired() == []
        lifecycle.admit()
    row.refresh_from_db()
    second.refresh_from_db()
    assert (row.status, row.goal) == (Status.DESTROYED, Goal.DESTROYED)
    assert second.status == Status.REQUESTED
    assert Host.objects.get().taken == 1


def test_accepting_too_late_says_where_the_slot_went(full):
    row = offered(full)
    with clock.moved(AWAY + HOUR + timedelta(seconds=30)):
        lifecycle.withdraw_expired()
        with pytest.raises(errors.Refused, match="next in line"):
            lifecycle.accept(row.pk, who="customer:1")


def test_nothing_can_be_accepted_that_is_not_held(full):
    with pytest.raises(errors.Refused, match="No slot is held"):
        lifecycle.accept(instance().pk, who="customer:1")


def test_a_host_that_went_silent_meanwhile_costs_nobody_their_place(full, settings):
    row, second = offered(full), instance()
    with clock.moved(AWAY + timedelta(minutes=10)):
        lifecycle.accept(row.pk, who="customer:1")
        row.refresh_from_db()
        assert (row.status, row.host_id, row.held_until) == (Status.WAITING, None, None)
        assert (lifecycle.waiting_position(row), lifecycle.waiting_position(second)) == (1, 2)
    assert Host.objects.get().taken == 0


def test_one_who_was_withdrawn_may_stand_in_line_again(full):
    row = offered(full)
    with clock.moved(AWAY + HOUR + timedelta(seconds=30)):
        lifecycle.withdraw_expired()
        again = instance(row.customer)
    assert again.pk != row.pk
    assert again.status == Status.WAITING


def test_nobody_jumps_the_line_by_asking_twice(full):
    row = instance()
    with pytest.raises(errors.Refused):
        instance(row.customer)
    assert lifecycle.waiting_position(row) == 1


def test_a_demo_account_that_was_held_for_nothing_is_free_at_once(full):
    answering, first = full
    row = instance()
    leave(answering, first)
    fill_vault(1)
    with clock.moved(AWAY):
        heard(answering.host)
        lifecycle.admit()
    row.refresh_from_db()
    assert row.account is not None
    with clock.moved(AWAY + 2 * HOUR):
        lifecycle.withdraw_expired()
    seat = Seat.objects.get()
    assert (seat.instance, seat.rested_until) == (None, None)


def test_a_customer_may_have_a_slot_offered_and_another_one_held_for_a_payment(full):
    from_offer = offered(full)
    HostFactory.create()
    live = Instance.objects.create(
        customer=from_offer.customer, kind=Kind.LIVE, status=Status.WAITING, folder="x", held_until=clock.now() + HOUR
    )
    assert live.pk


def test_a_live_terminal_in_line_is_served_whether_or_not_somebody_looks(full):
    answering, first = full
    customer = UserFactory.create()
    row = Instance.objects.create(customer=customer, kind=Kind.LIVE, status=Status.WAITING, folder="user_1")
    leave(answering, first)
    lifecycle.admit()
    row.refresh_from_db()
    assert row.status == Status.REQUESTED


def test_who_needs_no_demo_account_is_not_held_up_by_one_that_waits_for_it(full, settings):
    settings.DEMO_ACCOUNTS = "wait"
    answering, first = full
    waits = instance()
    customer = UserFactory.create()
    live = Instance.objects.create(customer=customer, kind=Kind.LIVE, status=Status.WAITING, folder="user_9")
    account = BrokerAccount.objects.create(server="Real", login=5, password="x", owner=customer)
    Instance.objects.filter(pk=live.pk).update(account=account)
    leave(answering, first)
    assert line.foreseen() == [(live.pk, False)]
    assert lifecycle.admit() == 1
    live.refresh_from_db()
    waits.refresh_from_db()
    assert (live.status, waits.status, waits.host) == (Status.REQUESTED, Status.WAITING, None)


def test_the_pace_is_not_known_while_nobody_left():
    assert lifecycle.expected_wait(1) is None


def test_the_pace_is_that_of_the_last_day(full):
    answering, first = full
    leave(answering, first)
    assert lifecycle.expected_wait(2) == timedelta(hours=48)
    with clock.moved(timedelta(hours=25)):
        assert lifecycle.expected_wait(2) is None


def test_who_left_the_line_freed_no_slot(full):
    row = instance()
    lifecycle.end(row.pk, why="test", who="test")
    assert lifecycle.expected_wait(1) is None


# --- demo accounts that a broker refuses ------------------------------------------------------------------------------


@pytest.fixture
def refused():
    """A running Press Pass whose demo account the broker refuses."""
    fill_vault(1)
    answering = AnsweringHost(HostFactory.create())
    row = answering.obey(instance())
    Instance.objects.filter(pk=row.pk).update(connection=Connection.REFUSED, refusal="credentials")
    return answering, row


def test_a_refused_demo_account_is_retired_and_the_terminal_gets_another(refused):
    answering, row = refused
    old = row.account
    fill_vault(3)
    assert lifecycle.replace_refused() == [row.pk]
    old.refresh_from_db()
    assert old.retired_at is not None
    row = answering.obey(row)
    assert (row.status, row.goal) == (Status.STOPPED, Goal.STOPPED)
    assert lifecycle.replace_refused() == [row.pk]
    row.refresh_from_db()
    assert (row.status, row.goal, row.refusal) == (Status.INJECTING, Goal.RUNNING, "")
    assert row.account != old
    assert answering.obey(row).status == Status.RUNNING
    assert Seat.objects.get(instance=row).vault_account == row.account


def test_without_another_account_the_refused_one_is_retired_and_the_terminal_left(refused):
    row = refused[1]
    assert lifecycle.replace_refused() == []
    row.account.refresh_from_db()
    row.refresh_from_db()
    assert row.account.retired_at is not None
    assert row.status == Status.RUNNING


def test_if_the_last_account_is_taken_meanwhile_it_goes_on_without(refused):
    answering, row = refused
    fill_vault(2)
    lifecycle.replace_refused()
    row = answering.obey(row)
    instance()
    lifecycle.replace_refused()
    row.refresh_from_db()
    assert (row.status, row.account, row.connection) == (Status.STARTING, None, Connection.NO_ACCOUNT)


def test_a_broker_that_refuses_everything_does_not_empty_the_vault(refused, settings):
    settings.BROKER_PAUSE_REFUSALS = 0
    assert lifecycle.replace_refused() == []
    refused[1].account.refresh_from_db()
    assert refused[1].account.retired_at is None


@pytest.mark.parametrize("refusal", ["server unreachable", "no answer", "server unknown"])
def test_a_refusal_that_may_pass_by_itself_retires_nothing(refused, refusal):
    Instance.objects.update(refusal=refusal)
    lifecycle.replace_refused()
    refused[1].account.refresh_from_db()
    assert refused[1].account.retired_at is None


def test_a_demo_account_rests_after_a_terminal_that_used_it(refused, settings):
    answering, row = refused
    leave(answering, row)
    assert instance().account is None
    with clock.moved(timedelta(hours=settings.REST_HOURS, seconds=1)):
        heard(answering.host)
        assert instance().account is not None
