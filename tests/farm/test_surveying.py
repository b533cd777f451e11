"""What a host reports of itself: believed where it saw something, written only where something changed."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from nacl.signing import SigningKey

from farm import clock, doorbell, errors, lifecycle, vault
from farm.agent import protocol
from farm.agent.protocol import Connection, Outcome, Process, Reason
from farm.lifecycle import moving
from farm.models import BrokerAccount, Host, Instance
from farm.states import Goal, Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance

pytestmark = pytest.mark.django_db


@pytest.fixture
def answering():
    return AnsweringHost(HostFactory.create())


@pytest.fixture
def running(answering):
    return answering.obey(instance())


def beat(**changes):
    return {"at": clock.now().timestamp(), "balance": 10_000.0, "positions": 0} | changes


def test_a_survey_signed_by_another_key_is_refused(answering, running):
    forger = AnsweringHost(answering.host, SigningKey(b"f" * 32))
    with pytest.raises(errors.Untrusted):
        forger.survey(forger.line(running, process=Process.STOPPED))
    running.refresh_from_db()
    assert running.status == Status.RUNNING


def test_a_hosts_word_on_another_hosts_instance_counts_for_nothing(running):
    other = AnsweringHost(HostFactory.create())
    other.survey(other.line(running, process=Process.STOPPED))
    running.refresh_from_db()
    assert running.status == Status.RUNNING


def test_an_older_survey_that_comes_later_changes_nothing(answering, running):
    answering.survey(answering.line(running))
    answering.sent -= 10
    old = clock.now() - timedelta(seconds=10)
    answering.survey(answering.line(running, process=Process.STOPPED), sent_at=old.timestamp(), since_boot=1.0)
    running.refresh_from_db()
    assert running.status == Status.RUNNING


def test_a_line_about_an_older_order_changes_nothing(answering, running):
    answering.survey(answering.line(running, generation=running.generation - 1, process=Process.STOPPED))
    running.refresh_from_db()
    assert running.status == Status.RUNNING


def test_a_process_that_the_host_cannot_tell_changes_nothing(answering, running):
    answering.survey(answering.line(running, process=Process.UNKNOWN))
    running.refresh_from_db()
    assert running.status == Status.RUNNING


def test_a_survey_from_before_a_stop_does_not_bring_a_restarted_terminal_up(answering, running):
    line = answering.line(running)
    lifecycle.restart(running.pk, who="customer:1")
    answering.answer(answering.claim(running))
    answering.survey(line)
    running.refresh_from_db()
    assert running.status == Status.STARTING


def test_one_unreadable_line_does_not_hide_the_others(answering, running):
    other = answering.obey(instance())
    bad = answering.line(running, heartbeat={"at": "yesterday"})
    answering.survey(bad, answering.line(other, connection=Connection.LOST))
    other.refresh_from_db()
    assert other.connection == Connection.LOST


def test_a_terminal_that_runs_though_it_is_stopped_is_remembered_for_as_long_as_it_does(answering, running):
    """Nobody here started it. What is to be done with one that trades is for staff to say."""
    Instance.objects.filter(pk=running.pk).update(status=Status.STOPPED, goal=Goal.STOPPED)
    answering.survey(answering.line(running))
    first = Host.objects.get().load["unwanted"]
    assert list(first) == [str(running.pk)]
    with clock.moved(timedelta(minutes=5)):
        answering.survey(answering.line(running))
        assert Host.objects.get().load["unwanted"] == first
        answering.survey(answering.line(running, process=Process.STOPPED))
        assert Host.objects.get().load["unwanted"] == {}


def test_a_terminal_that_is_being_stopped_may_run_for_that_long(answering, running):
    Instance.objects.filter(pk=running.pk).update(status=Status.STOPPING, goal=Goal.STOPPED)
    answering.survey(answering.line(running))
    assert Host.objects.get().load["unwanted"] == {}


def test_a_gone_process_is_started_again_by_the_host_without_a_new_order(answering, running, settings):
    generation = running.generation
    answering.survey(answering.line(running, process=Process.STOPPED))
    running.refresh_from_db()
    assert (running.status, running.generation) == (Status.STARTING, generation)
    assert answering.claim(running) is None
    answering.survey(answering.line(running))
    running.refresh_from_db()
    assert (running.status, running.at_rest) == (Status.RUNNING, True)


def test_if_the_host_does_not_manage_that_it_is_told_to(answering, running, settings):
    answering.survey(answering.line(running, process=Process.STOPPED))
    with clock.moved(timedelta(seconds=settings.READY_SECONDS + 1)):
        assert answering.claim(running).verb == "start"


def test_a_folder_that_is_gone_is_cloned_again(answering, running, settings):
    answering.survey(answering.line(running, process=Process.STOPPED, present=False))
    running.refresh_from_db()
    assert (running.status, running.reason) == (Status.FAILED, Reason.CLONE_MISSING)
    with clock.moved(timedelta(seconds=settings.RETRY_FIRST_SECONDS + 1)):
        lifecycle.sweep()
        assert answering.obey(running).status == Status.RUNNING


def test_a_lost_connection_is_shown_with_its_time_and_the_status_stays(answering, running):
    answering.survey(answering.line(running, connection=Connection.LOST))
    running.refresh_from_db()
    assert (running.status, running.connection) == (Status.RUNNING, Connection.LOST)
    assert running.connection_since is not None


def test_the_heartbeat_is_kept_with_what_it_says(answering, running):
    answering.survey(answering.line(running, heartbeat=beat()))
    running.refresh_from_db()
    assert running.facts == {"balance": 10_000.0, "positions": 0}
    assert running.heartbeat_at is not None


def test_a_heartbeat_alone_is_not_activity(answering, running):
    before = running.activity_at
    with clock.moved(timedelta(hours=5)):
        answering.survey(answering.line(running, heartbeat=beat()))
    running.refresh_from_db()
    assert running.activity_at == before


@pytest.mark.parametrize("said", [{"positions": 1}, {"orders": 2}])
def test_an_open_position_or_order_is_activity(answering, running, said):
    with clock.moved(timedelta(hours=5)):
        answering.survey(answering.line(running, heartbeat=beat(**said)))
        running.refresh_from_db()
        assert clock.now() - running.activity_at < timedelta(minutes=1)


def test_a_host_whose_clock_runs_ahead_does_not_make_a_terminal_look_active_for_longer(answering, running):
    ahead = (clock.now() + timedelta(days=3)).timestamp()
    with clock.moved(timedelta(hours=1)):
        answering.survey(answering.line(running, activity_at=ahead))
        running.refresh_from_db()
        assert running.activity_at <= clock.now()


def test_a_survey_in_which_nothing_changed_writes_the_host_alone(answering, running, django_assert_max_num_queries):
    for _ in range(9):
        answering.obey(instance())
    line_of = [answering.line(row, heartbeat=beat()) for row in Instance.objects.all()]
    answering.survey(*line_of)
    with django_assert_max_num_queries(6):  # host; savepoint, rows, orphans, host update, release
        answering.survey(*line_of)


def test_a_survey_of_many_costs_as_many_statements_as_one_of_few(answering, django_assert_num_queries):
    for _ in range(10):
        answering.obey(instance())
    lines = [answering.line(row, connection=Connection.LOST) for row in Instance.objects.all()]
    # host; savepoint, rows, those that changed locked, read, written; orphans, host, release
    with django_assert_num_queries(9):
        answering.survey(*lines)


def test_a_host_heard_from_after_silence_rings_for_its_rows(answering, running, monkeypatch, settings,
                                                            django_capture_on_commit_callbacks):  # fmt: skip
    heard = []
    monkeypatch.setattr(doorbell, "ring", lambda task, *args, queue=None: heard.append(task) or True)
    with clock.moved(timedelta(seconds=settings.SURVEY_FRESH_SECONDS + 1)):
        with django_capture_on_commit_callbacks(execute=True):
            answering.survey(answering.line(running))
        assert heard == ["farm.sweep", "farm.admit"]
        heard.clear()
        with django_capture_on_commit_callbacks(execute=True):
            answering.survey(answering.line(running))
    assert heard == []


def test_what_failed_for_want_of_a_master_goes_on_when_it_is_mended(answering):
    row = instance()
    answering.answer(answering.claim(row), Outcome.FAILED, Reason.MASTER_MISSING)
    answering.survey(master_ok=False, master_reason="BITTEN_MASTER is empty")
    answering.host.refresh_from_db()
    assert answering.host.master_reason == "BITTEN_MASTER is empty"
    answering.survey(master_ok=True)
    lifecycle.sweep()
    assert answering.obey(row).status == Status.RUNNING


def test_a_host_whose_right_clock_was_set_back_is_heard_all_the_same(answering, running):
    answering.survey(answering.line(running), sent_at=clock.now().timestamp())
    back = (clock.now() - timedelta(hours=1)).timestamp()
    answering.survey(answering.line(running, connection=Connection.LOST), sent_at=back)
    running.refresh_from_db()
    assert running.connection == Connection.LOST


def test_a_host_whose_clock_is_set_back_is_heard_again_at_once(answering, running):
    ahead = clock.now() + timedelta(hours=1)
    answering.survey(answering.line(running), sent_at=ahead.timestamp())
    answering.sent = 0.0
    answering.survey(answering.line(running, connection=Connection.LOST))
    running.refresh_from_db()
    assert running.connection == Connection.LOST


@pytest.mark.parametrize("heartbeat", [{"at": "yesterday"}, {"at": float("nan")}, ["at"], "at", 7, {"at": 1e300}])
def test_a_heartbeat_that_is_none_hides_no_other_line(answering, running, heartbeat):
    other = answering.obey(instance())
    answering.survey(answering.line(running, heartbeat=heartbeat), answering.line(other, connection=Connection.LOST))
    other.refresh_from_db()
    assert other.connection == Connection.LOST


def test_one_row_that_cannot_be_moved_hides_no_other(answering, running, monkeypatch, caplog):
    other = answering.obey(instance())
    move = moving.move
    monkeypatch.setattr(
        moving, "move", lambda row, *args, **kw: 1 / 0 if row.pk == running.pk else move(row, *args, **kw)
    )
    answering.survey(*(answering.line(row, process=Process.STOPPED) for row in (running, other)))
    other.refresh_from_db()
    assert other.status == Status.STARTING
    assert "could not be followed" in caplog.text


def test_a_line_from_before_a_restored_database_tells_of_a_row_that_nothing_was_ordered_for_since(answering, running):
    line = answering.line(running, connection=Connection.LOST)
    type(answering.host).objects.update(epoch=2)
    answering.survey(line)
    running.refresh_from_db()
    assert (running.status, running.connection) == (Status.RUNNING, Connection.LOST)


def test_a_line_from_before_a_restored_database_changes_nothing_once_there_is_a_new_order(answering, running):
    line = answering.line(running)
    type(answering.host).objects.update(epoch=2)
    answering.host.refresh_from_db()
    lifecycle.restart(running.pk, who="customer:1")
    answering.answer(answering.claim(running))
    answering.claim(running)
    running.refresh_from_db()
    answering.survey(dataclasses.replace(line, generation=running.generation))
    running.refresh_from_db()
    assert running.status == Status.STARTING


def test_what_its_host_was_told_to_stop_in_the_time_that_is_lacking_stands_before_staff(answering, running):
    line = answering.line(running, generation=running.generation + 1, process=Process.STOPPED)
    type(answering.host).objects.update(epoch=2)
    answering.survey(line)
    running.refresh_from_db()
    assert (running.status, running.reason, running.next_at) == (Status.FAILED, Reason.FORGOTTEN, None)


# --- ghosts: rows that their host does not know -----------------------------------------------------------------------


LONG_ENOUGH = timedelta(seconds=16)


def lacked_for(answering, row, long=LONG_ENOUGH, **changes):
    """Two surveys that say nothing of ``row``, ``long`` apart."""
    answering.survey(**changes)
    with clock.moved(long):
        answering.survey(**changes)
    row.refresh_from_db()
    return row


def test_one_survey_that_does_not_mention_an_instance_changes_nothing(answering, running):
    with clock.moved(timedelta(hours=5)):
        answering.survey()
    running.refresh_from_db()
    assert running.status == Status.RUNNING


def test_two_that_came_at_almost_the_same_time_are_as_good_as_one(answering, running):
    assert lacked_for(answering, running, timedelta(seconds=10)).status == Status.RUNNING


def test_a_survey_that_mentions_it_again_begins_the_count_anew(answering, running):
    answering.survey()
    answering.survey(answering.line(running))
    with clock.moved(LONG_ENOUGH):
        answering.survey()
    running.refresh_from_db()
    assert running.status == Status.RUNNING


def test_one_with_an_order_out_is_no_ghost(answering, running):
    lifecycle.restart(running.pk, who="customer:1")
    answering.answer(answering.claim(running))
    assert answering.claim(running).verb == "start"
    assert lacked_for(answering, running).status == Status.STARTING


def test_one_that_was_lacking_before_it_came_up_is_no_ghost_when_it_is_lacking_once_more(answering, running):
    answering.survey()
    with clock.moved(timedelta(minutes=5)):
        lifecycle.restart(running.pk, who="customer:1")
        answering.obey(running)
        answering.survey()
    running.refresh_from_db()
    assert running.status == Status.RUNNING


@pytest.mark.parametrize("changes", [{"master_ok": False}], ids=["lost its master as well"])
def test_nothing_is_concluded_from_a_host_that(answering, running, changes):
    assert lacked_for(answering, running, **changes).status == Status.RUNNING


def test_nothing_is_concluded_from_a_host_that_was_given_up(answering, running):
    Host.objects.update(lost_at=clock.now())
    assert lacked_for(answering, running).status == Status.RUNNING


def test_one_of_which_its_host_surely_has_nothing_is_cloned_again(answering, running, settings):
    assert lacked_for(answering, running).status == Status.FAILED
    assert (running.reason, running.next_at is None) == (Reason.CLONE_MISSING, False)
    with clock.moved(LONG_ENOUGH + timedelta(seconds=settings.RETRY_FIRST_SECONDS + 1)):
        answering.survey()
        lifecycle.sweep()
        assert answering.obey(running).status == Status.RUNNING


@pytest.mark.parametrize("stranger", ["its folder", "its state"])
def test_one_whose_host_has_forgotten_what_stands_there_is_never_started_a_second_time(answering, running, settings,
                                                                                       stranger):  # fmt: skip
    name = running.folder if stranger == "its folder" else protocol.unreadable_state(running.pk)
    row = lacked_for(answering, running, strangers=["user_7", name])
    assert (row.status, row.reason, row.next_at) == (Status.FAILED, Reason.FORGOTTEN, None)
    with clock.moved(timedelta(days=2)):
        answering.survey(strangers=[name])
        lifecycle.sweep()
        assert answering.claim(row) is None


def test_a_forgotten_live_one_keeps_its_seat(answering):
    customer = UserFactory.create()
    account = BrokerAccount.objects.create(server="Broker-Live", login=1, password="x", owner=customer)
    row = instance(customer, kind="live")
    Instance.objects.filter(pk=row.pk).update(
        account=account, status=Status.RUNNING, proven_at=clock.now(), next_at=None
    )
    assert vault.take_seat(account, row)
    lacked_for(answering, row, strangers=[row.folder])
    assert row.seat.login == 1
    assert not vault.take_seat(account, instance(kind="live"))


def test_one_ghost_that_cannot_be_moved_hides_no_other(answering, running, monkeypatch, caplog):
    other = answering.obey(instance())
    fail = moving.fail
    monkeypatch.setattr(
        moving, "fail", lambda row, *args, **kw: 1 / 0 if row.pk == running.pk else fail(row, *args, **kw)
    )
    assert lacked_for(answering, other).status == Status.FAILED
    assert "could not be followed" in caplog.text


def test_looking_for_ghosts_costs_no_statement_where_all_are_well(answering, django_assert_num_queries):
    for _ in range(10):
        answering.obey(instance())
    lines = [answering.line(row) for row in Instance.objects.all()]
    answering.survey(*lines)
    with django_assert_num_queries(6):
        answering.survey(*lines)


# --- the host itself --------------------------------------------------------------------------------------------------


def test_what_a_host_says_it_runs_under_is_kept(answering):
    answering.survey(policy=protocol.Policy.FENCED, watchdog_ok=False, lease_left=71.5)
    host = Host.objects.get()
    assert (host.said_policy, host.watchdog_ok, host.load["lease_left"]) == ("fenced", False, 71.5)


def test_a_line_about_another_folder_than_the_rows_is_not_about_the_row(answering, running):
    """A number that was given twice, because the database was put back to before its first time."""
    answering.survey(answering.line(running, folder="user_999", process=Process.STOPPED))
    running.refresh_from_db()
    assert running.status == Status.RUNNING
