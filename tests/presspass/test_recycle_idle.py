"""recycle_idle: what it spares, what it takes."""

from __future__ import annotations

import io
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from farm import clock
from farm.models import Host, Instance, Transition
from farm.states import Connection, Goal, Kind, Status
from presspass import idleness, lifecycle
from presspass.idleness import Known, Verdict
from tests.factories import AnsweringHost, HostFactory, fill_vault, instance

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(hours=24)

IDLE = Known(
    kind=Kind.PRESS_PASS,
    status=Status.RUNNING,
    goal=Goal.RUNNING,
    connection=Connection.CONNECTED,
    step_due=False,
    has_account=True,
    activity_at=NOW - timedelta(hours=25),
    heartbeat_at=NOW,
    open_positions=0,
    host_heard_at=NOW,
)


def judged(**changes):
    facts = Known(**{**IDLE.__dict__, **changes})
    return idleness.judged(facts, now=NOW, idle_after=DAY, host_fresh=timedelta(seconds=30))


SPARED = [
    (Verdict.LIVE, {"kind": Kind.LIVE}),
    *((Verdict.IN_MOTION, {"status": status}) for status in Status if status is not Status.RUNNING),
    (Verdict.IN_MOTION, {"goal": Goal.STOPPED}),
    (Verdict.IN_MOTION, {"goal": Goal.DESTROYED}),
    (Verdict.IN_MOTION, {"step_due": True}),
    (Verdict.ACTIVITY_UNKNOWN, {"activity_at": None}),
    (Verdict.ACTIVE, {"activity_at": NOW - DAY + timedelta(seconds=1)}),
    (Verdict.ACTIVE, {"activity_at": NOW + timedelta(hours=1)}),
    (Verdict.HOST_SILENT, {"host_heard_at": None}),
    (Verdict.HOST_SILENT, {"host_heard_at": NOW - timedelta(minutes=1)}),
    (Verdict.POSITIONS_OPEN, {"open_positions": 1}),
    (Verdict.POSITIONS_OPEN, {"open_positions": 1, "heartbeat_at": NOW - timedelta(hours=1)}),
    (Verdict.POSITIONS_UNKNOWN, {"open_positions": None}),
    (Verdict.POSITIONS_UNKNOWN, {"heartbeat_at": None}),
    (Verdict.POSITIONS_UNKNOWN, {"heartbeat_at": NOW - timedelta(minutes=6)}),
    (Verdict.POSITIONS_UNKNOWN, {"has_account": False, "open_positions": None, "connection": Connection.UNKNOWN}),
]


@pytest.mark.parametrize(("verdict", "changes"), SPARED, ids=lambda value: str(value)[:60])
def test_spared(verdict, changes):
    assert judged(**changes) is verdict


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activity_at": NOW - DAY},
        {"has_account": False, "connection": Connection.NO_ACCOUNT, "open_positions": None, "heartbeat_at": None},
    ],
)
def test_idle(changes):
    assert judged(**changes) is Verdict.IDLE


def test_a_heartbeat_is_no_activity():
    assert judged(heartbeat_at=NOW) is Verdict.IDLE


@pytest.fixture
def running(answering):
    def make(*, quiet=timedelta(hours=25), **changes):
        row = answering.obey(instance())
        changes = {"connection": Connection.NO_ACCOUNT, "activity_at": clock.now() - quiet, **changes}
        Instance.objects.filter(pk=row.pk).update(**changes)
        row.refresh_from_db()
        return row

    return make


def run(*words, **options):
    out = io.StringIO()
    call_command("recycle_idle", *words, stdout=out, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "words",
    [["--older-than", "0"], ["--older-than", "-1"], ["--older-than", "soon"], ["--older-than", "nan"],
     ["--older-than", "inf"], ["--limit", "0"], ["--limit", "-1"], ["--limit", "2.5"], ["--limit", "all"], ["--what"]],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(words):
    with pytest.raises(CommandError):
        run(*words)


@pytest.mark.django_db
def test_nothing_to_do_is_said(running):
    running(quiet=timedelta(hours=1))
    assert run().startswith("recycled 0 of 0 ")


@pytest.mark.django_db
def test_what_is_idle_is_destroyed_and_the_journal_says_why(running):
    row, busy = running(), running(quiet=timedelta(hours=23))
    assert "recycled 1" in run()
    row.refresh_from_db()
    busy.refresh_from_db()
    assert (row.status, row.goal) == (Status.DESTROYING, Goal.DESTROYED)
    assert busy.status == Status.RUNNING
    line = Transition.objects.filter(instance=row).latest("pk")
    assert (line.why, line.who) == ("24 h without activity", "recycle_idle")


@pytest.mark.django_db
def test_what_is_spared_stays_and_is_counted_by_why(running, host):
    running(facts={"positions": 2})
    running(activity_at=None, quiet=timedelta())
    running(kind=Kind.LIVE)
    found = json.loads(run("--json"))
    assert found["recycled"] == []
    assert found["spared"] == {"activity unknown": 1, "positions open": 1}
    assert set(Instance.objects.values_list("status", flat=True)) == {Status.RUNNING}


@pytest.mark.django_db
def test_a_host_that_is_silent_keeps_what_is_on_it(running):
    running()
    Host.objects.update(surveyed_at=clock.now() - timedelta(minutes=10))
    assert json.loads(run("--json"))["spared"] == {"host silent": 1}


@pytest.mark.django_db
def test_an_account_whose_positions_are_not_known_keeps_its_terminal(answering):
    fill_vault(1)
    row = answering.obey(instance())
    Instance.objects.filter(pk=row.pk).update(activity_at=clock.now() - timedelta(days=3))
    assert json.loads(run("--json"))["spared"] == {"positions unknown": 1}


@pytest.mark.django_db
def test_a_dry_run_says_all_of_it_and_changes_nothing(running):
    rows = [running(), running()]
    found = json.loads(run("--json", "--dry-run"))
    assert found["idle"] == [row.pk for row in rows]
    assert found["recycled"] == []
    assert "would recycle 2" in run("--dry-run")
    assert set(Instance.objects.values_list("status", flat=True)) == {Status.RUNNING}


@pytest.mark.django_db
def test_no_more_than_the_limit(running):
    rows = [running() for _ in range(3)]
    assert json.loads(run("--json", "--limit", "2"))["recycled"] == [row.pk for row in rows[:2]]
    assert json.loads(run("--json", "--limit", "2"))["recycled"] == [rows[2].pk]


@pytest.mark.django_db
def test_how_long_can_be_said(running):
    row = running(quiet=timedelta(hours=2))
    assert json.loads(run("--json", "--older-than", "1.5"))["recycled"] == [row.pk]


@pytest.mark.django_db
def test_more_than_one_batch_is_gone_through(running, monkeypatch):
    monkeypatch.setattr("presspass.lifecycle.idling.BATCH", 2)
    rows = [running() for _ in range(5)]
    assert json.loads(run("--json"))["recycled"] == [row.pk for row in rows]


@pytest.mark.django_db
def test_who_comes_back_between_the_look_and_the_deed_keeps_the_terminal(running, monkeypatch):
    row = running()
    real = idleness.judged

    def comes_back(*args, **kwargs):
        Instance.objects.filter(pk=row.pk).update(activity_at=clock.now())
        return real(*args, **kwargs)

    monkeypatch.setattr(idleness, "judged", comes_back)
    summary = lifecycle.recycle_idle(older_than=DAY)
    assert (summary.idle, summary.recycled) == ([row.pk], [])


@pytest.mark.django_db(transaction=True)
def test_two_at_once_do_no_harm():
    answering = AnsweringHost(HostFactory.create())
    rows = [answering.obey(instance()) for _ in range(4)]
    Instance.objects.update(activity_at=clock.now() - timedelta(hours=25), connection=Connection.NO_ACCOUNT)
    taken, barrier = [], threading.Barrier(2)

    def recycle():
        barrier.wait()
        try:
            taken.extend(lifecycle.recycle_idle(older_than=DAY).recycled)
        finally:
            connection.close()

    threads = [threading.Thread(target=recycle) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [row.pk for row in rows], "each is taken, and by one of the two only"
    assert Transition.objects.filter(became=Status.DESTROYING).count() == 4
