"""What the customer is told: a table over every status, connection, refusal and reason."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from farm.models import BrokerAccount, Host, Instance, Port, Transition
from farm.states import Connection, Goal, Kind, Reason, Refusal, Status
from presspass.telling import Action, Mark, Situation, tell, tell_nothing
from presspass.telling.saying import REASONS, REFUSALS

NOW = datetime(2026, 11, 22, 14, 40, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NEVER_SAID = ("oops", "!", "None", "_", "datetime", "please", "sorry")


OURS = BrokerAccount(pk=3, server="MetaQuotes-Demo", login=5000001)


def row(status=Status.RUNNING, *, account=True, **changes):
    facts = {
        "pk": 17,
        "customer_id": 9,
        "kind": Kind.PRESS_PASS,
        "status": status,
        "connection": Connection.CONNECTED if account else Connection.NO_ACCOUNT,
        "host": Host(pk=1, name="alpha", surveyed_at=NOW),
        "account": (OURS if account is True else account) or None,
        "folder": "user_9",
        "status_since": NOW - 10 * MINUTE,
        "connection_since": NOW - 38 * MINUTE,
        "first_running_at": NOW - timedelta(hours=2),
        "heartbeat_at": NOW - timedelta(seconds=4),
        "activity_at": NOW - timedelta(hours=1),
        "facts": {"balance": 10000.0, "currency": "USD", "positions": 0},
    }
    made = Instance(**{**facts, **changes})
    made._state.fields_cache["port"] = Port(number=9042)
    return made


def its(**changes):
    facts = {"now": NOW, "zone": ZoneInfo("Europe/Berlin"), "trial_ends_at": NOW + timedelta(days=6)}
    return Situation(**{**facts, **changes})


def line(became, *, was="x", at=NOW, who="portal", why="told the host"):
    return Transition(was=was, became=became, at=at, who=who, why=why)


def all_words(told):
    facts = [word for fact in (*told.facts, *told.names) for word in (fact.term, fact.value)]
    steps = [word for step in told.steps for word in (step.label, step.took)]
    history = [one.text for one in told.history]
    return " ".join([told.headline, *told.below, *told.ends, told.title, *facts, *steps, *history])


SENTENCES = [
    (row(Status.WAITING, host=None), its(position=4), "You are number 4 in line for a slot.", Mark.WAITING),
    (row(Status.WAITING, host=None), its(), "You are in line for a slot.", Mark.WAITING),
    (row(Status.REQUESTED), its(), "Copying your terminal.", Mark.MOVING),
    (row(Status.CLONING), its(), "Copying your terminal.", Mark.MOVING),
    (row(Status.INJECTING), its(), "Logging in to MetaQuotes-Demo as 5000001.", Mark.MOVING),
    (row(Status.STARTING), its(), "Logging in to MetaQuotes-Demo as 5000001.", Mark.MOVING),
    (row(Status.STARTING, account=False), its(), "Starting your terminal.", Mark.MOVING),
    (row(Status.STOPPING), its(), "Restarting your terminal.", Mark.MOVING),
    (row(Status.STOPPING, goal=Goal.STOPPED), its(), "Stopping your terminal.", Mark.MOVING),
    (row(Status.STOPPED), its(journal=[line("stopping", why="for the move"), line("stopped", why="stop done")]),
     "Your terminal is stopped: for the move.", Mark.STOPPED),
    (row(Status.STOPPED), its(), "Your terminal is stopped.", Mark.STOPPED),
    (row(Status.DESTROYING, goal=Goal.DESTROYED),
     its(journal=[line("destroying", who="recycle_idle", why="24 h without activity")]),
     "Your terminal is being recycled after 24 h without activity.", Mark.MOVING),
    (row(Status.DESTROYED, goal=Goal.DESTROYED),
     its(journal=[line("destroying", who="recycle_idle", why="24 h without activity"), line("destroyed")]),
     "Your terminal was recycled after 24 h without activity.", Mark.ENDED),
    (row(Status.DESTROYED, goal=Goal.DESTROYED), its(journal=[line("destroying", who="customer:9")]),
     "You ended your Press Pass.", Mark.ENDED),
    (row(Status.DESTROYING, goal=Goal.DESTROYED), its(journal=[line("destroying", who="customer:9")]),
     "Ending your Press Pass.", Mark.MOVING),
    (row(Status.DESTROYED, goal=Goal.DESTROYED), its(journal=[line("destroying", who="staff:1", why="moved")]),
     "Your terminal was ended: moved.", Mark.ENDED),
    (row(Status.DESTROYED, goal=Goal.DESTROYED), its(), "Your terminal was ended.", Mark.ENDED),
    (row(Status.FAILED, reason=Reason.DISK_FULL, first_running_at=None), its(),
     "We could not start your terminal: the disk of its machine is full. It is on our side.", Mark.BROKEN),
    (row(Status.FAILED, reason=Reason.CRASH_LOOP), its(),
     "We could not keep your terminal running: the terminal crashed again and again. It is on our side.", Mark.BROKEN),
    (row(Status.FAILED, reason=Reason.FILES_IN_USE, goal=Goal.DESTROYED), its(),
     "Your Press Pass has ended, but clearing your terminal away failed: its files are still held by another program.",
     Mark.BROKEN),
    (row(Status.LOST), its(), "The machine your terminal ran on is down.", Mark.BROKEN),
    (row(), its(), "Your terminal is running.", Mark.RUNNING),
    (row(account=False), its(), "Your terminal is running.", Mark.RUNNING),
    (row(connection=Connection.UNKNOWN), its(), "Your terminal is running.", Mark.RUNNING),
    (row(connection=Connection.CONNECTING), its(), "Your terminal is running.", Mark.RUNNING),
    (row(connection=Connection.LOST), its(),
     "Your terminal runs, the broker's connection is down since 15:02 CET.", Mark.DOUBT),
    (row(connection=Connection.LOST, connection_since=None), its(),
     "Your terminal runs, the broker's connection is down.", Mark.DOUBT),
    (row(connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS), its(),
     "MetaQuotes-Demo refused the login: wrong login or password.", Mark.BROKEN),
    (row(connection=Connection.REFUSED, refusal=Refusal.INVESTOR), its(),
     "MetaQuotes-Demo let it in with the investor password: it can watch, not trade.", Mark.BROKEN),
    (row(host=Host(pk=1, name="alpha", surveyed_at=NOW - 5 * MINUTE)), its(),
     "Your terminal was running when its machine last reported, at 15:35 CET.", Mark.DOUBT),
    (row(host=Host(pk=1, name="alpha")), its(),
     "Your terminal was started; its machine has not reported since.", Mark.DOUBT),
]  # fmt: skip


@pytest.mark.parametrize(("instance", "situation", "headline", "mark"), SENTENCES, ids=[s[2][:50] for s in SENTENCES])
def test_the_sentence(instance, situation, headline, mark):
    told = tell(instance, situation)
    assert (told.headline, told.mark) == (headline, mark)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_plain_words_whatever_else_is_the_case(status):
    host = None if status in {Status.WAITING, Status.DESTROYED} else row().host
    by_broker = itertools.product(Connection, Refusal, [Reason.NONE], [Goal.RUNNING], (True, False))
    by_host = itertools.product([Connection.UNKNOWN], [Refusal.NONE], Reason, Goal, (True, False))
    for connection, refusal, reason, goal, account in (*by_broker, *by_host):
        instance = row(
            status, account=account, connection=connection, refusal=refusal, reason=reason, goal=goal, host=host
        )
        told = tell(instance, its(journal=[line(status)]))
        words = all_words(told).replace("user_9", "")
        assert told.headline.endswith(".")
        assert not [word for word in NEVER_SAID if word in words], words


def test_every_reason_and_every_refusal_has_words_of_its_own():
    assert len(set(REASONS.values())) == len(Reason)
    assert set(REFUSALS) == set(Refusal)


def test_whose_side_it_is_on_is_said_when_the_broker_refuses():
    ours = tell(row(connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS), its())
    assert "The demo account is ours, so it is on our side." in ours.below
    own = BrokerAccount(pk=4, server="Broker-Live", login=7, owner_id=9)
    theirs = tell(row(connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS, account=own), its())
    assert "The answer came from the broker." in theirs.below[0]


def test_the_brokers_own_words_are_passed_on():
    told = tell(row(connection=Connection.REFUSED, refusal=Refusal.OTHER, refusal_text="Account archived"), its())
    assert "The broker's words: Account archived" in told.below


def test_when_it_is_tried_again_is_said():
    told = tell(row(Status.FAILED, reason=Reason.TOO_SLOW, next_at=NOW + 5 * MINUTE), its())
    assert "We try again in 5 min, at 15:45 CET, by ourselves." in told.below
    assert "Nothing was charged." in told.below


def test_a_failure_that_is_not_tried_again_does_not_promise_it():
    told = tell(row(Status.FAILED, reason=Reason.CRASH_LOOP, next_at=None), its())
    assert "We try again" not in " ".join(told.below)
    assert "a person looks at it first" in told.below[0]


def test_the_expected_time_is_what_it_took_lately_or_not_said():
    assert "0.8 s" in " ".join(tell(row(Status.CLONING), its(usual_seconds=0.8)).below)
    assert "last ones" not in " ".join(tell(row(Status.CLONING), its()).below)


def up(at=NOW - timedelta(seconds=3), *, to="starting"):
    names = ["waiting", "requested", "cloning", "injecting", "starting", "running"]
    names = names[: names.index(to) + 1]
    return [
        line(name, was=names[number - 1] if number else "", at=at + timedelta(milliseconds=500 * number))
        for number, name in enumerate(names)
    ]


def test_steps_tick_with_their_times():
    journal = up(to="injecting")
    told = tell(row(Status.INJECTING, status_since=journal[-1].at), its(journal=journal))
    assert [(step.label, step.state) for step in told.steps] == [
        ("Reserved a slot and a port", "done"),
        ("Copied the terminal", "done"),
        ("Handing over the account", "now"),
        ("Start it", "to do"),
    ]
    assert [step.took for step in told.steps] == ["0.5 s", "0.5 s", "", ""]
    assert str(told.steps[0].at) == "15:39:58"


def test_a_terminal_without_account_has_no_step_for_one():
    told = tell(row(Status.REQUESTED, account=False, status_since=NOW), its(journal=up(to="requested")))
    assert [step.label for step in told.steps] == ["Telling the machine", "Copy the terminal", "Start it"]


def test_a_wait_in_line_is_a_step():
    journal = [line("waiting", was="", at=NOW - 5 * MINUTE), line("requested", was="waiting", at=NOW)]
    told = tell(row(Status.REQUESTED, status_since=NOW), its(journal=journal))
    assert (told.steps[0].label, told.steps[0].took) == ("Waited for a slot", "5 min")


def test_the_steps_stay_a_while_when_it_runs_and_then_go():
    journal = up(to="running")
    for ago, count in ((timedelta(seconds=5), 4), (timedelta(minutes=3), 0)):
        told = tell(row(status_since=NOW - ago), its(journal=journal))
        assert len(told.steps) == count


def test_a_restart_has_steps_of_its_own():
    journal = [
        *up(NOW - timedelta(hours=1), to="running"),
        line("stopping", was="running", at=NOW - timedelta(seconds=4)),
    ]
    told = tell(row(Status.STOPPING, status_since=journal[-1].at), its(journal=journal))
    assert [(step.label, step.state, step.took) for step in told.steps] == [
        ("Stopping it", "now", "for 4 s"),
        ("Start it", "to do", ""),
    ]


def test_the_facts_are_what_the_bridge_said():
    told = tell(row(), its())
    assert {fact.term: fact.value for fact in told.facts} == {
        "Account": "5000001",
        "Server": "MetaQuotes-Demo",
        "Balance": "10,000.00 USD",
        "Open positions": "none",
        "Last heartbeat": "4 s ago",
    }
    assert {fact.term: fact.copied for fact in told.names} == {
        "Instance": "17",
        "Host": "alpha",
        "Port": "9042",
        "Magic number": "700000017",
        "Folder": "user_9",
    }


def test_what_the_bridge_has_not_said_is_not_known_rather_than_nought():
    told = tell(row(facts={}, heartbeat_at=None), its())
    values = {fact.term: fact.value for fact in told.facts}
    assert values["Balance"] == values["Open positions"] == values["Last heartbeat"] == "not known yet"


@pytest.mark.parametrize("balance", ["a lot", None, True, {"x": 1}])
def test_a_host_that_sends_nonsense_breaks_no_page(balance):
    told = tell(row(facts={"balance": balance, "positions": balance}), its())
    assert {fact.term: fact.value for fact in told.facts}["Balance"] == "not known yet"


def test_it_ends_by_idleness_or_by_its_days_whichever_comes_first():
    by_idleness = tell(row(), its()).ends
    assert by_idleness[0] == "It ends tomorrow 14:40 CET, in 23 h: that is 24 h without activity."
    assert "until its 7 days are over Sat 28 Nov 15:40 CET, in 6 days" in by_idleness[1]
    by_days = tell(row(), its(trial_ends_at=NOW + timedelta(hours=2))).ends
    assert by_days == ("Your Press Pass ends today 17:40 CET, in 2 h: its 7 days are over then.",)


def test_an_open_position_keeps_it():
    ends = tell(row(facts={"positions": 2}), its()).ends
    assert "An open position counts as activity." in ends
    assert "24 h without" not in " ".join(ends)


def test_unknown_activity_is_not_counted_down():
    assert "without activity" not in " ".join(tell(row(activity_at=None), its()).ends)


def test_a_live_terminal_and_one_that_has_ended_have_no_end_to_tell():
    assert tell(row(kind=Kind.LIVE), its()).ends == ()
    assert tell(row(Status.DESTROYED, goal=Goal.DESTROYED, host=None), its()).ends == ()


@pytest.mark.parametrize("status", Status)
def test_what_may_be_done(status):
    ended = status in {Status.DESTROYING, Status.DESTROYED}
    told = tell(row(status, goal=Goal.DESTROYED if ended else Goal.RUNNING), its())
    expected = (
        (Action.START_AGAIN,) if ended
        else (Action.RESTART, Action.END) if status is Status.RUNNING
        else (Action.END,)
    )  # fmt: skip
    assert told.actions == expected


def test_after_its_days_it_is_not_offered_again():
    told = tell(row(Status.DESTROYED, goal=Goal.DESTROYED, host=None), its(trial_ends_at=NOW - MINUTE))
    assert told.actions == ()
    assert "The 7 days of your Press Pass were over" in told.below[0]


def test_until_the_address_is_confirmed_that_is_the_one_thing_to_do():
    assert tell(row(), its(verified=False)).actions == (Action.CONFIRM_ADDRESS,)
    assert tell_nothing(its(verified=False)).actions == (Action.CONFIRM_ADDRESS,)


@pytest.mark.parametrize("status", Status)
def test_the_page_looks_again_every_second_in_motion_and_not_at_all_once_destroyed(status):
    again = tell(row(status), its()).look_again_seconds
    if status is Status.DESTROYED:
        assert again is None
    elif status in {Status.RUNNING, Status.STOPPED, Status.FAILED, Status.LOST, Status.WAITING}:
        assert 5 <= again <= 10
    else:
        assert again == 1


def test_the_journal_is_told_in_plain_words_newest_first():
    journal = [
        line("waiting", was="", who="customer:9", at=NOW - timedelta(days=1)),
        line("failed", was="cloning", why="cloning failed: disk full", who="host:alpha"),
        line("stopping", was="running", why="restart asked for", who="staff:1"),
    ]
    told = tell(row(), its(journal=journal))
    assert [(str(one.at), one.text) for one in told.history] == [
        ("15:40:00", "Stopping began: restart asked for, by our staff."),
        ("15:40:00", "A step failed: cloning failed: disk full."),
        ("yesterday 15:40:00", "Asked for, by you."),
    ]
