"""Claim, act, record: the way of an instance, and each of the ways it can go wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from nacl.signing import SigningKey

from farm import clock, doorbell, errors, lifecycle, orders
from farm.agent import protocol
from farm.agent.protocol import Connection, Outcome, Process, Reason
from farm.lifecycle import line, moving
from farm.models import Instance, Port, Seat, Transition
from farm.states import Goal, Status
from tests.factories import HOST_SEAL_KEY, AnsweringHost, HostFactory, UserFactory, fill_vault, instance

pytestmark = pytest.mark.django_db

WAY_UP = ["waiting", "requested", "cloning", "starting", "running"]


@pytest.fixture
def host():
    return HostFactory.create()


@pytest.fixture
def answering(host):
    return AnsweringHost(host)


def steps(row):
    return [line.became for line in row.transitions.order_by("pk")]


def bring_to(status, answering):
    """A fresh instance whose next order is the one that ``status`` stands for."""
    if status is Status.INJECTING:
        fill_vault(1)
    row = instance()
    ways = {
        Status.CLONING: 0, Status.INJECTING: 1, Status.STARTING: 2 if status is Status.INJECTING else 1,
        Status.STOPPING: 2, Status.DESTROYING: 2,
    }  # fmt: skip
    for _ in range(ways[status]):
        answering.answer(answering.claim(row))
    row.refresh_from_db()
    if status is Status.STOPPING:
        lifecycle.restart(row.pk, who="customer:1")
    if status is Status.DESTROYING:
        lifecycle.end(row.pk, why="test", who="customer:1")
    row.refresh_from_db()
    return row


IN_MOTION = [Status.CLONING, Status.INJECTING, Status.STARTING, Status.STOPPING, Status.DESTROYING]


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_second_press_pass_is_refused(host):
    row = instance()
    with pytest.raises(errors.Refused):
        instance(row.customer)


def test_the_database_itself_refuses_a_second_press_pass(host):
    row = instance()
    with pytest.raises(IntegrityError), transaction.atomic():
        Instance.objects.create(customer=row.customer, folder="user_x", status=Status.WAITING)


def test_a_move_that_is_not_in_the_table_is_refused(host):
    row = instance()
    with pytest.raises(errors.IllegalMove):
        moving.move(row, Status.RUNNING, why="", who="")


def test_only_a_running_terminal_is_restarted(host):
    row = instance()
    with pytest.raises(errors.Refused):
        lifecycle.restart(row.pk, who="customer:1")


def test_only_a_failed_terminal_is_tried_again(host):
    row = instance()
    with pytest.raises(errors.Refused):
        lifecycle.retry(row.pk, who="staff:1")


@pytest.mark.parametrize("status", IN_MOTION)
def test_a_second_claim_is_refused(status, answering):
    row = bring_to(status, answering)
    assert answering.claim(row) is not None
    assert answering.claim(row) is None


@pytest.mark.parametrize("status", IN_MOTION)
def test_a_report_signed_by_another_key_is_refused(status, answering):
    row = bring_to(status, answering)
    order = answering.claim(row)
    forger = AnsweringHost(answering.host, SigningKey(b"f" * 32))
    with pytest.raises(errors.Untrusted):
        forger.answer(order)
    assert Instance.objects.get(pk=row.pk).status == status


@pytest.mark.parametrize("status", IN_MOTION)
def test_a_report_about_another_hosts_instance_is_refused(status, answering):
    row = bring_to(status, answering)
    order = answering.claim(row)
    with pytest.raises(errors.Untrusted):
        AnsweringHost(HostFactory.create()).answer(order)
    assert Instance.objects.get(pk=row.pk).status == status


def test_a_report_about_a_row_that_is_gone_is_refused(answering):
    row = instance()
    order = answering.claim(row)
    Transition.objects.filter(instance=row).delete()
    Port.objects.filter(instance=row).update(instance=None)
    row.delete()
    with pytest.raises(errors.Untrusted):
        answering.answer(order)


# --- the seven failures, for every order ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", IN_MOTION)
def test_an_answer_delivered_twice_counts_once(status, answering):
    row = bring_to(status, answering)
    order = answering.claim(row)
    assert answering.answer(order)
    before = (Instance.objects.get(pk=row.pk).status, steps(row))
    assert not answering.answer(order)
    assert (Instance.objects.get(pk=row.pk).status, steps(row)) == before


@pytest.mark.parametrize("status", IN_MOTION)
def test_an_order_whose_answer_never_came_is_given_again(status, answering, settings):
    row = bring_to(status, answering)
    first = answering.claim(row)
    with clock.moved(timedelta(seconds=settings.READY_SECONDS + 1)):
        again = answering.claim(row)
        assert (again.verb, again.generation) == (first.verb, first.generation + 1)
        assert answering.answer(again)


@pytest.mark.parametrize("status", IN_MOTION)
def test_the_late_answer_of_an_expired_claim_is_ignored(status, answering, settings):
    row = bring_to(status, answering)
    first = answering.claim(row)
    with clock.moved(timedelta(seconds=settings.READY_SECONDS + 1)):
        answering.claim(row)
        assert not answering.answer(first)
        assert Instance.objects.get(pk=row.pk).status == status


@pytest.mark.parametrize("status", IN_MOTION)
def test_an_order_that_nobody_ever_answers_ends_before_staff(status, answering, settings):
    row = bring_to(status, answering)
    with clock.moved(timedelta()):
        for _ in range(settings.RETRY_ATTEMPTS + 1):
            answering.claim(row)
            clock.move(timedelta(seconds=settings.READY_SECONDS + 1))
    row.refresh_from_db()
    assert (row.status, row.reason, row.next_at) == (Status.FAILED, Reason.TOO_SLOW, None)


@pytest.mark.parametrize("status", IN_MOTION)
def test_a_failure_is_tried_again_later_towards_the_same_goal(status, answering, settings):
    row = bring_to(status, answering)
    goal = row.goal
    answering.answer(answering.claim(row), Outcome.FAILED, Reason.FILES_IN_USE)
    row.refresh_from_db()
    assert (row.status, row.reason, row.attempts) == (Status.FAILED, Reason.FILES_IN_USE, 1)
    assert row.next_at is not None
    with clock.moved(timedelta(seconds=settings.RETRY_FIRST_SECONDS + 1)):
        lifecycle.sweep()
        row = answering.obey(row)
    wanted = Status.DESTROYED if goal == Goal.DESTROYED else Status.RUNNING
    assert (row.status, row.goal, row.attempts, row.reason) == (wanted, goal, 0, "")


@pytest.mark.parametrize("status", IN_MOTION)
def test_a_failure_that_cannot_pass_by_itself_stands_before_staff(status, answering):
    row = bring_to(status, answering)
    answering.answer(answering.claim(row), Outcome.REFUSED, Reason.STALE)
    row.refresh_from_db()
    assert (row.status, row.reason, row.next_at) == (Status.FAILED, Reason.STALE, None)
    assert row.at_rest


@pytest.mark.parametrize("status", IN_MOTION)
def test_a_broker_that_takes_no_order_ends_the_claim_soon(status, answering, settings):
    row = bring_to(status, answering)
    lifecycle.put_back(lifecycle.claim(row.pk))
    row.refresh_from_db()
    assert row.claimed_until is None
    assert row.next_at <= clock.now() + timedelta(seconds=settings.RETRY_FIRST_SECONDS)
    assert answering.answer(answering.claim(row))


@pytest.mark.parametrize("status", IN_MOTION)
def test_an_instance_ended_while_its_order_is_out_is_destroyed(status, answering):
    row = bring_to(status, answering)
    order = answering.claim(row)
    lifecycle.end(row.pk, why="left", who="customer:1")
    if status is not Status.DESTROYING:
        assert not answering.answer(order)
    else:
        answering.answer(order)
    assert answering.obey(row).status == Status.DESTROYED


@pytest.mark.parametrize("status", IN_MOTION)
def test_a_row_that_moved_between_read_and_write_is_left_alone(status, answering):
    row = bring_to(status, answering)
    stale = Instance.objects.get(pk=row.pk)
    answering.claim(row)
    lines = row.transitions.count()
    with pytest.raises(errors.ClaimLost):
        moving.move(stale, Status.FAILED, why="", who="")
    assert row.transitions.count() == lines


# --- the way --------------------------------------------------------------------------------------------------------


def test_a_press_pass_without_account_comes_up(answering):
    row = answering.obey(instance())
    assert steps(row) == WAY_UP
    assert (row.status, row.at_rest, row.first_running_at is not None) == (Status.RUNNING, True, True)


def test_a_press_pass_with_a_demo_account_is_injected_first(answering):
    fill_vault()
    row = answering.obey(instance())
    assert steps(row) == ["waiting", "requested", "cloning", "injecting", "starting", "running"]
    assert row.connection == Connection.CONNECTED
    assert Seat.objects.get(instance=row).login == row.account.login


def test_the_password_travels_sealed_for_one_host_and_order_and_in_the_inject_order_only(answering):
    fill_vault()
    row = instance()
    while (order := answering.claim(row)) is not None:
        assert (order.sealed != "") == (order.verb is protocol.Verb.INJECT)
        assert "Secret-" not in order.body()
        if order.sealed:
            assert protocol.unseal(order, [HOST_SEAL_KEY]).password.startswith("Secret-")
        answering.answer(order)


def test_a_restart_stops_and_starts_the_same_instance(answering):
    row = answering.obey(instance())
    port = row.port_number
    lifecycle.restart(row.pk, who="customer:1")
    row = answering.obey(row)
    assert steps(row)[len(WAY_UP) :] == ["stopping", "starting", "running"]
    assert row.port_number == port


def test_an_ended_instance_gives_back_its_slot_port_and_account(answering):
    fill_vault()
    row = answering.obey(instance())
    lifecycle.end(row.pk, why="left", who="customer:1")
    row = answering.obey(row)
    answering.host.refresh_from_db()
    assert (row.status, row.port_number, answering.host.taken) == (Status.DESTROYED, None, 0)
    assert not Seat.objects.filter(instance=row).exists()


def test_a_terminal_whose_process_still_stands_is_not_taken_for_destroyed(answering):
    row = answering.obey(instance())
    lifecycle.end(row.pk, why="left", who="customer:1")
    with pytest.raises(errors.Untrusted):
        answering.answer(answering.claim(row), process=Process.RUNNING)
    row.refresh_from_db()
    assert (row.status, row.port_number is not None) == (Status.DESTROYING, True)


def test_ending_what_has_ended_is_success(answering):
    row = answering.obey(instance())
    lifecycle.end(row.pk, why="left", who="customer:1")
    answering.obey(row)
    lifecycle.end(row.pk, why="left", who="customer:1")


def test_a_customers_second_clone_has_a_folder_of_its_own(answering):
    first = answering.obey(instance())
    lifecycle.end(first.pk, why="left", who="customer:1")
    answering.obey(first)
    second = instance(first.customer)
    assert [first.folder, second.folder] == [f"user_{first.customer_id}", f"user_{first.customer_id}-2"]


def test_a_refused_login_is_a_running_terminal_with_a_refused_connection(answering):
    fill_vault()
    row = instance()
    for _ in range(2):
        answering.answer(answering.claim(row))
    answering.answer(
        answering.claim(row),
        connection=Connection.REFUSED,
        refusal=protocol.Refusal.CREDENTIALS,
        refusal_text="Invalid account",
    )
    row.refresh_from_db()
    assert (row.status, row.connection, row.refusal) == (Status.RUNNING, Connection.REFUSED, "credentials")


def test_a_port_taken_by_a_stranger_is_set_aside_for_the_next_one(answering):
    row = instance()
    taken = row.port_number
    answering.answer(answering.claim(row), Outcome.FAILED, Reason.PORT_TAKEN)
    row = Instance.objects.get(pk=row.pk)
    assert row.port_number not in {None, taken}
    assert Port.objects.get(host=answering.host, number=taken).quarantined_at is not None


def test_an_order_that_cannot_be_written_is_a_failure_that_staff_see_in_the_end(answering, settings, caplog):
    row = bring_to(Status.INJECTING, answering)
    settings.FIELD_KEYS = []
    with clock.moved(timedelta()):
        for _ in range(settings.RETRY_ATTEMPTS):
            type(answering.host).objects.update(surveyed_at=clock.now())
            lifecycle.sweep()
            row = answering.obey(row)
            clock.move(timedelta(seconds=settings.RETRY_MOST_SECONDS + 1))
    assert "could not be written" in caplog.text
    assert (row.status, row.reason, row.next_at) == (Status.FAILED, Reason.UNEXPECTED, None)
    assert "KeysMissing" in row.reason_detail


def test_an_order_that_somebody_else_moved_on_while_it_was_written_is_no_failure(answering, monkeypatch):
    row = instance()
    monkeypatch.setattr(orders, "letter", lambda *args, **kwargs: (_ for _ in ()).throw(errors.ClaimLost()))
    assert lifecycle.claim(row.pk) is None
    row.refresh_from_db()
    assert (row.status, row.attempts) == (Status.REQUESTED, 0)


@pytest.mark.parametrize("ask", ["end", "stop"])
def test_what_failed_on_the_way_up_does_not_count_on_the_way_down(answering, ask):
    row = answering.obey(instance())
    Instance.objects.filter(pk=row.pk).update(attempts=7)
    getattr(lifecycle, ask)(row.pk, why="left", who="customer:1")
    answering.answer(answering.claim(row), Outcome.FAILED, Reason.FILES_IN_USE)
    row.refresh_from_db()
    assert (row.attempts, row.next_at is not None) == (1, True)


def test_what_failed_on_a_silent_host_is_not_tried_again_before_it_speaks(answering, settings):
    row = instance()
    answering.answer(answering.claim(row), Outcome.FAILED, Reason.FILES_IN_USE)
    with clock.moved(timedelta(seconds=settings.SURVEY_FRESH_SECONDS + 1)):
        lifecycle.sweep()
        row.refresh_from_db()
        assert row.status == Status.FAILED
        answering.survey()
        lifecycle.sweep()
        row.refresh_from_db()
        assert row.status == Status.REQUESTED


def test_a_move_that_needs_an_order_makes_every_earlier_answer_void(answering):
    row = answering.obey(instance())
    before = row.generation
    lifecycle.restart(row.pk, who="customer:1")
    row.refresh_from_db()
    assert row.generation == before + 1


def test_an_answer_from_before_a_restored_database_is_ignored(answering):
    row = instance()
    order = answering.claim(row)
    type(answering.host).objects.update(epoch=2)
    assert not answering.answer(order)


def test_an_order_that_was_put_back_late_does_not_end_a_newer_claim(answering, settings):
    row = instance()
    late = lifecycle.claim(row.pk)
    with clock.moved(timedelta(seconds=settings.READY_SECONDS + 1)):
        answering.claim(row)
        lifecycle.put_back(late)
        row.refresh_from_db()
        assert row.claimed_until is not None


def test_a_batch_makes_no_move_that_is_not_in_the_table(answering):
    row = answering.obey(instance())
    with pytest.raises(errors.IllegalMove):
        moving.move_many([row], Status.REQUESTED, why="", who="")


def test_a_port_that_a_stranger_has_is_kept_where_there_is_no_other(host):
    host.ports.exclude(number=9000).delete()
    answering = AnsweringHost(host)
    row = instance()
    answering.answer(answering.claim(row), Outcome.FAILED, Reason.PORT_TAKEN)
    row = Instance.objects.get(pk=row.pk)
    assert (row.status, row.port_number) == (Status.FAILED, 9000)
    assert Port.objects.get(number=9000).quarantined_at is None


# --- the line -------------------------------------------------------------------------------------------------------


def test_without_a_free_slot_one_waits_in_line_and_is_told_the_position():
    HostFactory.create(slots=1)
    instance()
    second, third = instance(), instance()
    assert [lifecycle.waiting_position(row) for row in (second, third)] == [1, 2]


def test_the_line_is_served_in_order_when_a_slot_frees():
    answering = AnsweringHost(HostFactory.create(slots=1))
    first, second, third = instance(), instance(), instance()
    lifecycle.end(first.pk, why="left", who="customer:1")
    answering.obey(first)
    assert lifecycle.admit() == 1
    assert [Instance.objects.get(pk=r.pk).status for r in (second, third)] == [Status.REQUESTED, Status.WAITING]


def test_a_newcomer_does_not_jump_the_line_when_a_slot_is_free(host):
    host.slots = 1
    host.save()
    first, _second = instance(), instance()
    host.slots = 2
    host.save()
    third = instance()
    assert (first.status, third.status) == (Status.REQUESTED, Status.WAITING)


def test_leaving_the_line_needs_no_host():
    row = instance()
    lifecycle.end(row.pk, why="left", who="customer:1")
    row.refresh_from_db()
    assert row.status == Status.DESTROYED


def test_one_in_line_who_cannot_be_placed_does_not_stop_the_others(monkeypatch, caplog):
    rows = [instance() for _ in range(3)]
    HostFactory.create()
    place = line.place
    monkeypatch.setattr(line, "place", lambda row, who: 1 / 0 if row.pk == rows[1].pk else place(row, who=who))
    assert lifecycle.admit() == 2
    assert "could not be placed" in caplog.text


def test_a_host_that_has_gone_quiet_gets_no_new_terminal(host, settings):
    with clock.moved(timedelta(seconds=settings.SURVEY_FRESH_SECONDS + 1)):
        assert instance().status == Status.WAITING


def test_with_an_empty_vault_one_waits_if_the_farm_is_set_so(host, settings):
    settings.DEMO_ACCOUNTS = "wait"
    row = instance()
    host.refresh_from_db()
    assert (row.status, host.taken, Port.objects.filter(instance=row).exists()) == (Status.WAITING, 0, False)
    fill_vault()
    assert lifecycle.admit() == 1


def test_two_customers_never_share_a_demo_account(host):
    fill_vault(3)
    rows = [instance() for _ in range(3)]
    assert len({row.account_id for row in rows}) == 3


def test_slots_and_ports_add_up(answering):
    rows = [answering.obey(instance()) for _ in range(5)]
    for row in rows[:2]:
        lifecycle.end(row.pk, why="left", who="customer:1")
        answering.obey(row)
    answering.host.refresh_from_db()
    assert answering.host.taken == Port.objects.filter(instance__isnull=False).count() == 3


# --- the sweep ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rings(monkeypatch):
    heard = []
    monkeypatch.setattr(doorbell, "ring", lambda task, *args, queue=None: heard.append((task, *args)) or True)
    return heard


def test_the_sweep_rings_for_what_no_message_reached(host, rings):
    row = instance()
    rings.clear()
    assert lifecycle.sweep() == 1
    assert rings == [("farm.dispatch", row.pk)]


def test_the_sweep_does_not_ring_twice_at_once(host, rings):
    instance()
    lifecycle.sweep()
    assert lifecycle.sweep() == 0


def test_the_sweep_rings_again_if_that_ring_was_lost(host, rings, settings):
    instance()
    lifecycle.sweep()
    with clock.moved(timedelta(seconds=settings.RING_AGAIN_SECONDS)):
        type(host).objects.update(surveyed_at=clock.now())
        assert lifecycle.sweep() == 1


def test_the_sweep_is_silent_for_a_host_that_is(host, rings, settings):
    instance()
    with clock.moved(timedelta(seconds=settings.SURVEY_FRESH_SECONDS + 1)):
        assert lifecycle.sweep() == 0


def test_the_sweep_leaves_what_is_at_rest(answering, rings):
    answering.obey(instance())
    assert lifecycle.sweep() == 0


def test_the_sweep_asks_no_more_of_the_database_when_more_is_at_rest(answering, rings, django_assert_num_queries):
    for _ in range(10):
        answering.obey(instance())
    with django_assert_num_queries(4):  # failed rows; savepoint, due rows, release
        lifecycle.sweep()


def test_a_transition_rings_for_the_step_that_it_makes_due(host, rings, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        row = instance()
    assert rings == [("farm.dispatch", row.pk)]


def test_a_freed_slot_rings_for_the_line(answering, rings, django_capture_on_commit_callbacks):
    row = answering.obey(instance())
    lifecycle.end(row.pk, why="left", who="customer:1")
    with django_capture_on_commit_callbacks(execute=True):
        answering.answer(answering.claim(row))
    assert ("farm.admit",) in rings


def test_a_batch_is_recycled_with_one_ring(answering, rings, django_capture_on_commit_callbacks):
    rows = [answering.obey(instance()) for _ in range(4)]
    with django_capture_on_commit_callbacks(execute=True):
        taken = lifecycle.recycle(
            [row.pk for row in rows], why="idle", who="recycle_idle", idle_before=clock.now() + timedelta(hours=1)
        )
    assert taken == [row.pk for row in rows]
    assert rings == [("farm.sweep",)]


def test_recycling_passes_over_what_became_active_moved_or_went_live(answering):
    rows = [answering.obey(instance()) for _ in range(4)]
    before = clock.now() + timedelta(seconds=1)
    Instance.objects.filter(pk=rows[0].pk).update(activity_at=before + timedelta(seconds=1))
    lifecycle.restart(rows[1].pk, who="customer:1")
    Instance.objects.filter(pk=rows[2].pk).update(kind="live")
    taken = lifecycle.recycle([row.pk for row in rows], why="idle", who="recycle_idle", idle_before=before)
    assert taken == [rows[3].pk]


def test_recycling_passes_over_what_has_no_known_activity(answering):
    row = answering.obey(instance())
    Instance.objects.update(activity_at=None)
    assert lifecycle.recycle([row.pk], why="idle", who="recycle_idle", idle_before=clock.now()) == []


# --- activity -------------------------------------------------------------------------------------------------------


def test_a_signed_in_request_is_activity_noted_once_a_minute(answering, django_assert_num_queries):
    row = answering.obey(instance())
    with clock.moved(timedelta(hours=3)):
        lifecycle.touch(row.customer_id)
        row.refresh_from_db()
        noted = row.activity_at
        assert clock.now() - noted < timedelta(minutes=1)
        lifecycle.touch(row.customer_id)
        row.refresh_from_db()
    assert row.activity_at == noted


def test_another_customers_request_is_not(answering):
    row = answering.obey(instance())
    before = row.activity_at
    with clock.moved(timedelta(hours=3)):
        lifecycle.touch(UserFactory.create().pk)
        row.refresh_from_db()
    assert row.activity_at == before
