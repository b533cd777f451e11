"""What the customer is told of a machine that is silent, lost, or left: since when, what comes, and what came along."""

from __future__ import annotations

from datetime import timedelta

import pytest

from farm.models import BrokerAccount, Host
from farm.states import Connection, Goal, Kind, Status
from presspass.telling import Action, Came, Mark, tell
from tests.presspass.test_telling import MINUTE, NEVER_SAID, NOW, all_words, its, line, row

OWN = BrokerAccount(pk=4, server="Broker-Live", login=77, owner_id=9)
DARK = Host(pk=1, name="alpha", surveyed_at=NOW - 2 * MINUTE)
CAME = Came(lost=True, at=NOW - MINUTE, heard_at=NOW - 4 * MINUTE, kept_at=NOW - timedelta(hours=2))


def live(status=Status.RUNNING, **changes):
    return row(status, **{"kind": Kind.LIVE, "account": OWN, "proven_at": NOW, **changes})


# --- silent -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", [Status.REQUESTED, Status.CLONING, Status.INJECTING, Status.STARTING, Status.RUNNING, Status.STOPPING]
)
@pytest.mark.parametrize("make", [row, live])
def test_of_a_silent_machine_nobody_is_told_that_their_terminal_runs_or_starts(status, make):
    told = tell(make(status, host=DARK), its(elsewhere_at=NOW + 3 * MINUTE))
    assert "when its machine last reported, at 15:38 CET." in told.headline
    assert told.mark == Mark.DOUBT
    assert "running" not in told.title.lower()
    assert "don't know whether your terminal runs" in told.below[0]
    assert "our side" in told.below[0]
    assert not {Action.RESTART, Action.CHANGE_LOGIN} & set(told.actions)
    assert told.steps == ()


def test_a_machine_that_speaks_is_not_doubted():
    told = tell(live(host=Host(pk=1, name="alpha", surveyed_at=NOW - timedelta(seconds=29))), its())
    assert (told.headline, told.mark) == ("Your terminal is running.", Mark.RUNNING)


def test_a_live_terminal_comes_up_elsewhere_when_the_old_copy_is_surely_stopped_and_not_before():
    told = tell(live(host=DARK), its(elsewhere_at=NOW + 2 * MINUTE))
    assert told.below[1] == (
        "One account never runs twice. If the machine stays silent, yours comes up on another one when the old copy is "
        "surely stopped: today 15:42 CET, in 2 min, if it has not reported by then."
    )


def test_a_demo_comes_up_elsewhere_at_its_time():
    told = tell(row(host=DARK), its(elsewhere_at=NOW + MINUTE))
    said = "If the machine stays silent, your terminal comes up on another one: today 15:41 CET, in 60 s."
    assert told.below[1] == said


def test_no_time_is_promised_while_nothing_is_moved():
    told = tell(live(host=DARK), its(elsewhere_at=NOW + MINUTE, held_back=True))
    assert "15:41" not in " ".join(told.below)
    assert "Nothing is moved to other machines at the moment" in told.below[1]


def test_no_time_is_promised_where_only_a_person_can_tell():
    told = tell(live(host=DARK), its(elsewhere_at=None))
    assert "a person makes sure that it is off" in told.below[1]


# --- lost, and on its way ---------------------------------------------------------------------------------------------


def test_while_it_comes_up_elsewhere_it_says_why_and_what_comes_along():
    told = tell(live(Status.CLONING, first_running_at=None), its(came=CAME, journal=[line("cloning")]))
    assert (told.headline, told.mark) == ("Your terminal comes up on another machine.", Mark.MOVING)
    assert told.below == (
        "The machine it ran on is down. It last reported at 15:36 CET. It is on our side. There is nothing for you to "
        "do.",
        "One account never runs twice: its old copy is surely stopped. Open positions stay open at your broker.",
        "Your profiles and settings come along as of 13:40 CET.",
    )
    assert told.title == "Moving · your terminal"


def test_without_a_free_slot_it_says_that_it_is_in_line():
    told = tell(live(Status.WAITING, host=None), its(came=CAME, position=1))
    assert (told.headline, told.mark) == ("The machine your terminal ran on is down.", Mark.WAITING)
    assert "All other slots are taken. It starts by itself in the next that is free. You are number 1 in line." in (
        told.below
    )


def test_a_demo_is_told_that_its_account_is_another_one():
    elsewhere = Came(lost=True, at=NOW, same_account=False)
    told = tell(row(Status.STARTING), its(came=elsewhere, journal=[line("starting", was="cloning")]))
    assert told.below[-1] == ("It has another demo account now: what was open on the one before does not come along.")


@pytest.mark.parametrize(
    ("came", "journal", "said"),
    [
        (CAME, [line("starting", was="cloning", why="clone done")], "Your profiles and settings are as of 13:40 CET."),
        (CAME, [line("starting", was="cloning", why="clone done; without its keepsake: too slow")],
         "Your profiles and settings could not be brought over: it starts as new. Write to help@example.com."),
        (Came(lost=True, at=NOW), [], "What you had made in it is not kept anywhere else: it starts as new."),
        (Came(lost=True, at=NOW, kept_known=False), [], None),
    ],
    ids=["brought", "not brought", "none there", "not known any more"],
)  # fmt: skip
def test_what_came_along_is_said_as_it_was(came, journal, said):
    told = tell(live(), its(came=came, journal=[*journal, line("running")], support="help@example.com"))
    assert told.headline == "Your terminal is running."
    assert told.below[2].startswith("It came up on this machine at 15:40 CET: the one before went down.")
    assert told.below[3:] == ((said,) if said else ())


def test_after_a_day_it_is_a_terminal_like_any_other():
    came = Came(lost=True, at=NOW - timedelta(hours=25))
    told = tell(live(), its(came=came, journal=[line("running")]))
    assert "machine" not in " ".join(told.below)


def test_a_restart_later_on_is_no_move():
    journal = [line("running"), line("stopping", was="running"), line("starting", was="stopping")]
    assert tell(live(Status.STARTING), its(came=CAME, journal=journal)).headline.startswith("Logging in to")


def test_one_that_is_moved_is_not_told_that_its_machine_is_down():
    moved = Came(lost=False, at=NOW, kept_at=NOW)
    told = tell(live(Status.WAITING), its(came=moved))
    assert told.headline == "Your terminal moves to another machine."
    assert "down" not in " ".join(told.below)
    assert "the old copy is stopped first" in told.below[1]
    assert [step.label for step in told.steps][:2] == ["Waiting until the old one is stopped", "Copy the terminal"]


def test_one_that_is_stopped_for_a_payment_stays_so_when_its_machine_is_lost():
    parked = live(Status.WAITING, host=None, goal=Goal.STOPPED)
    told = tell(parked, its(came=Came(lost=True, at=NOW, stopped_for="not paid")))
    assert told.headline == "Your live terminal is stopped: a payment failed and was not made up for."
    assert told.mark == Mark.STOPPED


def test_one_that_had_ended_is_not_told_of_its_machine():
    journal = [line("destroying", was="running", who="customer:9"), line("lost", was="destroying")]
    told = tell(row(Status.LOST, goal=Goal.DESTROYED), its(journal=journal))
    assert told.headline == "You ended your Press Pass."


def test_the_history_says_where_it_came_from():
    told = tell(live(), its(came=CAME, journal=[line("waiting", was=""), line("running")]))
    assert told.history[-1].text == "Begun anew: the machine before was lost."
    lost = tell(row(Status.LOST), its(journal=[line("lost", why="its machine was lost")]))
    assert lost.history[0].text == "Its machine was lost."


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("lost", [True, False])
def test_there_are_plain_words_for_every_status_of_one_that_came_from_elsewhere(status, lost):
    for goal in Goal:
        for connection in Connection:
            for host in (None, DARK, row().host):
                came = Came(lost=lost, at=NOW, same_account=False)
                told = tell(live(status, goal=goal, host=host, connection=connection), its(came=came))
                words = all_words(told).replace("user_9", "")
                assert told.headline.endswith(".")
                assert not [word for word in NEVER_SAID if word in words], words
