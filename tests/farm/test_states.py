"""The table of statuses, as a specification."""

from __future__ import annotations

import pytest

from farm import states
from farm.agent.protocol import Connection, Observation, Process, Reason
from farm.states import Goal, Status, Verb


def seen(status: Status, **facts: object) -> states.Seen:
    return states.seen(status, Observation(instance=1, folder="user_1", **({"present": True} | facts)))


def test_nothing_comes_after_destroyed():
    assert states.MOVES[Status.DESTROYED] == frozenset()


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.DESTROYED])
def test_every_other_status_has_a_way_out_that_ends_in_destroyed(status):
    reached, edge = set(), {status}
    while edge:
        reached |= edge
        edge = {to for was in edge for to in states.MOVES[was]} - reached
    assert Status.DESTROYED in reached


@pytest.mark.parametrize("status", Status)
def test_every_status_in_motion_has_a_verb_or_is_about_to_get_one(status):
    assert (status in states.IN_MOTION) == (status in states.VERBS or status is Status.REQUESTED)


@pytest.mark.parametrize("goal", Goal)
@pytest.mark.parametrize("has_account", [True, False])
def test_what_follows_a_verb_is_always_an_allowed_move(goal, has_account):
    for status, verb in states.VERBS.items():
        if verb is Verb.DESTROY or goal is not Goal.DESTROYED or verb is Verb.STOP:
            assert states.after(verb, has_account=has_account, goal=goal) in states.MOVES[status]


@pytest.mark.parametrize("goal", Goal)
def test_a_failed_instance_goes_on_towards_its_goal(goal):
    assert states.retried_as(goal) in states.MOVES[Status.FAILED]


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 5), (2, 10), (3, 20), (7, 300), (4000, 300)])
def test_the_wait_doubles_and_has_a_ceiling(attempts, seconds):
    assert states.retry_delay(attempts, first=5, most=300).total_seconds() == seconds


def test_a_crash_loop_is_not_retried_by_itself():
    assert not states.is_retried(Reason.CRASH_LOOP, 1, limit=8)


def test_the_last_attempt_is_not_followed_by_another():
    assert states.is_retried(Reason.FILES_IN_USE, 7, limit=8)
    assert not states.is_retried(Reason.FILES_IN_USE, 8, limit=8)


def test_what_only_mending_the_host_cures_is_retried_until_it_is_mended():
    assert states.is_retried(Reason.MASTER_MISSING, 1000, limit=8)


@pytest.mark.parametrize("status", Status)
def test_a_process_that_the_host_cannot_tell_changes_nothing(status):
    assert seen(status, process=Process.UNKNOWN).status is status


def test_a_running_terminal_without_process_is_starting_again():
    assert seen(Status.RUNNING, process=Process.STOPPED).status is Status.STARTING


def test_a_terminal_in_a_crash_loop_has_failed():
    found = seen(Status.RUNNING, process=Process.STOPPED, reason=Reason.CRASH_LOOP)
    assert (found.status, found.reason) == (Status.FAILED, Reason.CRASH_LOOP)


def test_a_running_terminal_without_folder_has_failed():
    found = seen(Status.RUNNING, process=Process.STOPPED, present=False)
    assert (found.status, found.reason) == (Status.FAILED, Reason.CLONE_MISSING)


@pytest.mark.parametrize("connection", [Connection.CONNECTED, Connection.REFUSED, Connection.NO_ACCOUNT])
def test_a_starting_terminal_that_the_broker_answered_is_running(connection):
    assert seen(Status.STARTING, process=Process.RUNNING, connection=connection).status is Status.RUNNING


@pytest.mark.parametrize("connection", [Connection.UNKNOWN, Connection.CONNECTING])
def test_a_starting_terminal_that_still_logs_in_is_starting(connection):
    assert seen(Status.STARTING, process=Process.RUNNING, connection=connection).status is Status.STARTING
