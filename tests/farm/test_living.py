"""Going live: held, paid, proven, and only then is the demo destroyed. And never two of one account."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from farm import clock, errors, lifecycle, vault
from farm.agent.protocol import Connection, Outcome, Process, Reason, Refusal, Verb
from farm.lifecycle import living
from farm.models import BrokerAccount, Host, Instance, Port, RefusedLogin, Seat
from farm.states import Goal, Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance

pytestmark = pytest.mark.django_db

LIVE = "PaperBroker-Live"


@pytest.fixture
def answering():
    return AnsweringHost(HostFactory.create())


@pytest.fixture
def demo(answering):
    return answering.obey(instance())


def account(owner, login=7_000_001, password="Right-1aA", server=LIVE):
    return BrokerAccount.objects.create(
        owner=owner,
        server=server,
        login=login,
        password=vault.encrypted(password),
        fingerprint=vault.fingerprint(server, login, password),
    )


def hold(demo, **about):
    return lifecycle.hold(
        customer_id=demo.customer_id,
        account=account(demo.customer, **about),
        replaces=demo,
        until=clock.now() + timedelta(minutes=31),
        who=f"customer:{demo.customer_id}",
    )


def paid(demo, **about):
    row = hold(demo, **about)
    lifecycle.activate(row.pk, who="payment")
    return row


def proof(**changes):
    beat = {"at": clock.now().timestamp(), "login": 7_000_001, "server": LIVE, "trade_allowed": True}
    return {"synchronized": True, "trading": True, "heartbeat": beat} | changes


def to_start(answering, row):
    """Bring a paid row up to its start order, and return that."""
    while (order := answering.claim(row)).verb is not Verb.START:
        answering.answer(order)
    return order


def go_live(answering, demo, **about):
    row = paid(demo, **about)
    beat = proof()["heartbeat"] | ({"login": about["login"]} if "login" in about else {})
    answering.answer(to_start(answering, row), **proof(heartbeat=beat))
    answering.obey(demo)
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    return row


def fresh(row):
    return Instance.objects.get(pk=row.pk)


# --- the hold -------------------------------------------------------------------------------------------------------


def test_without_a_slot_there_is_no_hold_and_nothing_is_left_of_it(answering, demo):
    Host.objects.update(slots=1)
    with pytest.raises(errors.NoFreePort), transaction.atomic():
        hold(demo)
    assert Instance.objects.count() == 1


def test_a_customer_has_one_hold_at_a_time(answering, demo):
    hold(demo)
    with pytest.raises(IntegrityError), transaction.atomic():
        hold(demo)


def test_a_hold_keeps_its_slot_and_port_and_gives_no_order(answering, demo):
    row = hold(demo)
    assert fresh(row).port_number is not None
    assert Host.objects.get().taken == 2
    assert answering.claim(row) is None


def test_a_held_slot_is_not_a_place_in_line(answering, demo):
    row = hold(demo)
    assert lifecycle.waiting_position(fresh(row)) is None
    assert instance().status == Status.REQUESTED


def test_a_hold_that_is_given_back_frees_slot_and_port_and_forgets_the_password(answering, demo):
    row = hold(demo)
    assert lifecycle.release_hold(row.pk, why="not paid", who="portal")
    assert (fresh(row).status, Host.objects.get().taken) == (Status.DESTROYED, 1)
    assert not BrokerAccount.objects.filter(owner=demo.customer).exists()


def test_a_hold_that_was_paid_is_not_given_back(answering, demo):
    row = paid(demo)
    assert not lifecycle.release_hold(row.pk, why="not paid", who="portal")


def test_a_payment_that_comes_after_the_hold_was_given_back_is_refused(answering, demo):
    row = hold(demo)
    lifecycle.release_hold(row.pk, why="not paid", who="portal")
    with pytest.raises(errors.Refused):
        lifecycle.activate(row.pk, who="payment")


def test_a_payment_told_twice_starts_it_once(answering, demo):
    row = paid(demo)
    lines = row.transitions.count()
    lifecycle.activate(row.pk, who="payment")
    assert row.transitions.count() == lines


def test_only_a_hold_whose_time_is_over_is_asked_about(answering, demo):
    row = hold(demo)
    assert lifecycle.expired_holds(10) == []
    with clock.moved(timedelta(minutes=32)):
        assert lifecycle.expired_holds(10) == [row.pk]


def test_paid_with_its_host_gone_and_no_other_one_stands_first_in_line(answering, demo, settings):
    row = hold(demo)
    with clock.moved(timedelta(seconds=settings.SURVEY_FRESH_SECONDS + 1)):
        instance()
        lifecycle.activate(row.pk, who="payment")
        assert (fresh(row).status, lifecycle.waiting_position(fresh(row))) == (Status.WAITING, 1)
        HostFactory.create()
        lifecycle.admit()
        assert fresh(row).status == Status.REQUESTED


# --- the proof ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lacking",
    [
        {"connection": Connection.CONNECTING},
        {"synchronized": False},
        {"trading": None},
        {"heartbeat": None},
        {"heartbeat": {"at": 0.0, "login": 7_000_001, "server": LIVE, "trade_allowed": True}},
        {"heartbeat": {"at": 9e9, "login": 7_000_002, "server": LIVE, "trade_allowed": True}},
        {"heartbeat": {"at": 9e9, "login": 7_000_001, "server": "Other", "trade_allowed": True}},
        {"heartbeat": {"at": 9e9, "login": 7_000_001, "server": LIVE, "trade_allowed": False}},
    ],
    ids=lambda lacking: next(iter(lacking)),
)
def test_without_the_whole_proof_it_is_not_live_and_the_demo_stays(answering, demo, lacking):
    row = paid(demo)
    answering.answer(to_start(answering, row), **proof(**lacking))
    assert (fresh(row).status, fresh(demo).status) == (Status.STARTING, Status.RUNNING)


def test_with_the_whole_proof_it_is_live_and_then_the_demo_goes(answering, demo):
    row = paid(demo)
    answering.answer(to_start(answering, row), **proof())
    assert (fresh(row).status, fresh(row).proven_at is not None) == (Status.RUNNING, True)
    assert fresh(demo).goal == Goal.DESTROYED
    assert answering.obey(demo).status == Status.DESTROYED
    assert Host.objects.get().taken == 1


def test_a_proof_that_comes_with_a_survey_counts_as_well(answering, demo):
    row = paid(demo)
    answering.answer(to_start(answering, row), **proof(heartbeat=None))
    answering.survey(answering.line(fresh(row), **proof()))
    assert (fresh(row).status, fresh(demo).goal) == (Status.RUNNING, Goal.DESTROYED)


def test_where_no_ea_is_used_the_journal_alone_is_proof(answering, demo, settings):
    settings.PROOF_NEEDS_HEARTBEAT = False
    row = paid(demo)
    answering.answer(to_start(answering, row), **proof(heartbeat=None))
    assert fresh(row).status == Status.RUNNING


def test_a_demo_that_is_just_being_moved_by_somebody_else_goes_all_the_same(answering, demo):
    row = paid(demo)
    order = to_start(answering, row)
    lifecycle.restart(demo.pk, who="customer:1")
    answering.answer(order, **proof())
    assert answering.obey(demo).status == Status.DESTROYED


def test_a_demo_with_an_upgrade_under_way_is_not_recycled(answering, demo):
    hold(demo)
    later = clock.now() + timedelta(hours=1)
    assert lifecycle.recycle([demo.pk], why="idle", who="recycle_idle", idle_before=later) == []


# --- when the broker says no ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [Refusal.CREDENTIALS, Refusal.INVESTOR, Refusal.TRADING_DISABLED, Refusal.SERVER_UNKNOWN,
     Refusal.SERVER_UNREACHABLE, Refusal.NO_ANSWER],
)  # fmt: skip
def test_a_refused_login_destroys_the_new_clone_and_leaves_the_demo_running(answering, demo, refusal):
    row = paid(demo)
    connection = Connection.CONNECTED if refusal is Refusal.INVESTOR else Connection.REFUSED
    answering.answer(to_start(answering, row), connection=connection, refusal=refusal, trading=False)
    assert answering.obey(row).status == Status.DESTROYED
    assert fresh(row).refusal == refusal
    assert (fresh(demo).status, fresh(demo).goal, Host.objects.get().taken) == (Status.RUNNING, Goal.RUNNING, 1)
    assert not BrokerAccount.objects.filter(owner=demo.customer).exists()
    assert not Seat.objects.filter(instance__isnull=False).exists()


def test_a_wrong_password_is_remembered_by_a_keyed_hash_and_an_unknown_server_is_not(answering, demo):
    for refusal, remembered in ((Refusal.SERVER_UNKNOWN, False), (Refusal.CREDENTIALS, True)):
        row = paid(demo)
        answering.answer(to_start(answering, row), connection=Connection.REFUSED, refusal=refusal)
        answering.obey(row)
        assert vault.was_refused(vault.fingerprint(LIVE, 7_000_001, "Right-1aA")) is remembered
    assert not vault.was_refused(vault.fingerprint(LIVE, 7_000_001, "Other-1aA"))
    assert "Right" not in str(RefusedLogin.objects.values())


def test_a_terminal_that_proves_nothing_in_time_has_had_no_answer(answering, demo, settings):
    row = paid(demo)
    answering.answer(to_start(answering, row), **proof(connection=Connection.CONNECTING))
    with clock.moved(timedelta(seconds=settings.READY_SECONDS + 1)):
        assert answering.claim(row) is None
        answering.obey(row)
    assert (fresh(row).status, fresh(row).refusal) == (Status.DESTROYED, Refusal.NO_ANSWER)


def test_a_host_that_is_silent_is_not_blamed_on_the_broker(answering, demo, settings):
    row = paid(demo)
    to_start(answering, row)
    with clock.moved(timedelta(seconds=settings.READY_SECONDS + 1)):
        assert answering.claim(row).verb is Verb.START
    assert fresh(row).refusal == ""


def test_a_host_that_cannot_make_the_clone_is_asked_again_and_the_demo_stays(answering, demo, settings):
    row = paid(demo)
    answering.answer(answering.claim(row), Outcome.FAILED, Reason.DISK_FULL)
    assert (fresh(row).status, fresh(demo).status) == (Status.FAILED, Status.RUNNING)


def test_a_broker_that_refuses_many_of_ours_is_given_a_pause(answering, demo, settings):
    settings.BROKER_PAUSE_REFUSALS = 2
    for number in range(2):
        RefusedLogin.objects.create(fingerprint=str(number), server_key=vault.server_key(LIVE), refusal="credentials")
    row = paid(demo)
    answering.answer(answering.claim(row))
    assert answering.claim(row) is None
    with clock.moved(timedelta(seconds=settings.BROKER_PAUSE_SECONDS + 1)):
        assert answering.claim(row).verb is Verb.INJECT


# --- one live copy ----------------------------------------------------------------------------------------------------


def test_a_second_customer_with_the_same_account_is_refused_and_the_first_goes_on(answering, demo):
    first = go_live(answering, demo)
    second = answering.obey(instance())
    row = paid(second)
    assert (fresh(row).status, fresh(row).refusal) == (Status.DESTROYED, Refusal.SEAT_TAKEN)
    assert (fresh(first).status, fresh(second).status) == (Status.RUNNING, Status.RUNNING)


@pytest.mark.parametrize("server", ["paperbroker-live", " PaperBroker-Live"])
def test_another_spelling_of_the_server_is_the_same_seat(answering, demo, server):
    go_live(answering, demo)
    row = paid(answering.obey(instance()), server=server)
    assert fresh(row).refusal == Refusal.SEAT_TAKEN


def test_a_failed_holder_keeps_its_seat(answering, demo):
    first = go_live(answering, demo)
    answering.survey(answering.line(first, process=Process.STOPPED, reason=Reason.CRASH_LOOP))
    assert fresh(first).status == Status.FAILED
    assert fresh(paid(answering.obey(instance()))).refusal == Refusal.SEAT_TAKEN


def test_a_new_password_stops_the_old_terminal_before_the_new_one_gets_the_seat(answering, demo):
    old = go_live(answering, demo)
    row = paid(old, password="New-1aA-x")
    assert (fresh(old).status, fresh(row).status) == (Status.STOPPING, Status.WAITING)
    assert Seat.objects.get(login=7_000_001).instance == old
    answering.answer(answering.claim(old))
    assert (fresh(old).status, fresh(row).status) == (Status.STOPPED, Status.REQUESTED)
    assert Seat.objects.get(login=7_000_001).instance == row
    answering.answer(to_start(answering, row), **proof())
    assert answering.obey(old).status == Status.DESTROYED
    assert fresh(row).status == Status.RUNNING


def test_a_new_password_that_is_refused_gives_the_seat_back_and_starts_the_old_one_again(answering, demo):
    old = go_live(answering, demo)
    row = paid(old, password="Wrong-1aA")
    answering.answer(answering.claim(old))
    answering.answer(to_start(answering, row), connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS)
    assert fresh(old).status == Status.STOPPED
    answering.obey(row)
    assert Seat.objects.get(login=7_000_001).instance == old
    assert answering.obey(old).status == Status.RUNNING
    assert fresh(old).goal == Goal.RUNNING


def test_another_account_is_proven_before_the_old_one_goes(answering, demo):
    old = go_live(answering, demo)
    row = paid(old, login=7_000_002)
    assert (fresh(old).status, fresh(row).status) == (Status.RUNNING, Status.REQUESTED)
    beat = proof()["heartbeat"] | {"login": 7_000_002}
    answering.answer(to_start(answering, row), **proof(heartbeat=beat))
    assert answering.obey(old).status == Status.DESTROYED


def test_a_stopped_terminal_keeps_clone_and_seat_and_starts_again(answering, demo):
    row = go_live(answering, demo)
    lifecycle.stop(row.pk, why="not paid", who="portal")
    assert answering.obey(row).status == Status.STOPPED
    assert Port.objects.filter(instance=row).exists()
    lifecycle.resume(row.pk, why="paid", who="portal")
    assert answering.obey(row).status == Status.RUNNING


# --- what changes while one waits for the other -----------------------------------------------------------------------


@pytest.fixture
def waiting_for_a_stop(answering, demo):
    """A live terminal that is being stopped, and its paid successor on the same account."""
    old = go_live(answering, demo)
    return old, paid(old, password="New-1aA-x")


@pytest.mark.parametrize("process", [Process.RUNNING, Process.UNKNOWN])
def test_no_seat_moves_while_the_old_process_is_not_seen_gone(answering, waiting_for_a_stop, process):
    old, row = waiting_for_a_stop
    with pytest.raises(errors.Untrusted):
        answering.answer(answering.claim(old), process=process)
    assert (fresh(old).status, fresh(row).status) == (Status.STOPPING, Status.WAITING)
    assert Seat.objects.get(login=7_000_001).instance == old


def test_a_paid_successor_that_waits_is_not_given_back_as_a_hold(waiting_for_a_stop):
    _, row = waiting_for_a_stop
    assert not lifecycle.release_hold(row.pk, why="not paid", who="payment")
    assert fresh(row).status == Status.WAITING


def test_if_the_old_one_is_ended_instead_its_successor_goes_on(answering, waiting_for_a_stop):
    old, row = waiting_for_a_stop
    lifecycle.end(old.pk, why="left", who="customer:1")
    assert answering.obey(old).status == Status.DESTROYED
    assert fresh(row).status == Status.REQUESTED
    assert Seat.objects.get(login=7_000_001).instance == row


def test_if_the_successor_is_ended_meanwhile_the_old_one_runs_again(answering, waiting_for_a_stop):
    old, row = waiting_for_a_stop
    taken = Host.objects.get().taken
    lifecycle.end(row.pk, why="changed their mind", who="customer:1")
    assert (fresh(row).status, Host.objects.get().taken) == (Status.DESTROYED, taken - 1)
    assert answering.obey(old).status == Status.RUNNING
    assert fresh(old).goal == Goal.RUNNING


def test_a_hold_that_is_given_back_does_not_start_what_was_stopped_for_want_of_payment(answering, demo):
    old = go_live(answering, demo)
    lifecycle.stop(old.pk, why="not paid", who="payment")
    answering.obey(old)
    lifecycle.release_hold(hold(old, password="New-1aA-x").pk, why="not paid", who="payment")
    assert (fresh(old).status, fresh(old).goal) == (Status.STOPPED, Goal.STOPPED)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_one_that_is_still_on_its_way_up_makes_way_as_well(answering, demo, steps):
    old = paid(demo)
    for _ in range(steps):
        answering.answer(answering.claim(old))
    row = paid(old, password="New-1aA-x")
    assert fresh(old).status == Status.STOPPING
    assert answering.obey(old).status == Status.STOPPED
    assert fresh(row).status == Status.REQUESTED


def test_one_that_is_on_its_way_out_is_waited_for(answering, demo):
    old = go_live(answering, demo)
    row = hold(old, password="New-1aA-x")
    lifecycle.end(old.pk, why="left", who="customer:1")
    lifecycle.activate(row.pk, who="payment")
    assert fresh(row).status == Status.WAITING
    answering.obey(old)
    assert fresh(row).status == Status.REQUESTED


def test_a_stop_of_what_is_being_restarted_leaves_it_stopped(answering, demo):
    row = go_live(answering, demo)
    lifecycle.restart(row.pk, who="customer:1")
    lifecycle.stop(row.pk, why="not paid", who="payment")
    assert answering.obey(row).status == Status.STOPPED


def test_a_start_of_which_nothing_was_seen_proves_nothing(answering, demo):
    row = paid(demo)
    order = to_start(answering, row)
    with pytest.raises(errors.Untrusted):
        answering.answer(order, nothing_seen=True)
    assert (fresh(row).status, fresh(demo).goal) == (Status.STARTING, Goal.RUNNING)


def test_a_proof_whose_second_half_fails_is_none(answering, demo, monkeypatch):
    row = paid(demo)
    order = to_start(answering, row)
    monkeypatch.setattr(living, "_end", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answering.answer(order, **proof())
    answering.survey(answering.line(fresh(row), **proof()))
    assert (fresh(row).status, fresh(demo).status) == (Status.STARTING, Status.RUNNING)
    assert Host.objects.get().survey_sent_at is not None


def test_a_payment_told_again_after_its_account_was_found_taken_is_not_a_payment_without_a_slot(answering, demo):
    go_live(answering, demo)
    row = paid(answering.obey(instance()))
    assert lifecycle.activate(row.pk, who="payment").refusal == Refusal.SEAT_TAKEN


def test_what_failed_before_does_not_count_against_the_way_out(answering, demo):
    row = paid(demo)
    order = to_start(answering, row)
    Instance.objects.filter(pk=row.pk).update(attempts=7)
    answering.answer(order, connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS)
    answering.answer(answering.claim(row), Outcome.FAILED, Reason.FILES_IN_USE)
    assert fresh(row).next_at is not None


def test_two_accounts_of_one_customer_are_two_seats(answering, demo):
    go_live(answering, demo)
    other = answering.obey(instance(UserFactory.create()))
    row = paid(other, login=7_000_002)
    assert fresh(row).status == Status.REQUESTED
