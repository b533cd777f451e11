"""The five verbs: what each leaves, what each spares, and that each may be repeated."""

from __future__ import annotations

import json
import shutil
import socket

import pytest

from farm.agent import orders, processes
from farm.agent.protocol import Connection, Outcome, Process, Reason
from farm.agent.state import Goal
from tests.agent.house import ACCOUNT, House
from tests.waiting import until

# --- clone ------------------------------------------------------------------------------------------------------------


def test_a_folder_that_stands_there_already_is_not_taken_for_the_clone(house: House):
    house.clone.mkdir(parents=True)
    (house.clone / "somebody's").touch()
    for _ in range(2):
        report = house.obey("clone", generation=1)
        assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.UNEXPECTED)
        assert not report.observed.present
    assert [path.name for path in house.clone.iterdir()] == ["somebody's"]


def test_another_instances_folder_is_not_taken(house: House):
    house.done("clone")
    report = house.obey("clone", instance=18)
    assert report.outcome is Outcome.FAILED
    assert json.loads((house.clone / "MQL5/Files/bitten/identity.json").read_text())["instance"] == 17


@pytest.mark.parametrize("verb", ["clone", "start", "stop", "destroy"])
def test_a_clone_whose_folder_was_replaced_by_a_link_is_touched_by_no_verb_and_not_called_stopped(house: House, verb):
    house.done("clone")
    away = house.root / "away"
    shutil.move(house.clone, away)
    house.clone.symlink_to(away)
    before = sorted(path.name for path in away.rglob("*"))
    report = house.obey(verb)
    assert report.outcome is Outcome.FAILED
    assert (report.observed.process, report.observed.present) == (Process.UNKNOWN, False)
    assert sorted(path.name for path in away.rglob("*")) == before


def test_a_missing_master_fails_with_that_reason_and_works_once_it_is_mended(house: House):
    master = house.root / "Masters" / "BITTEN_MASTER"
    shutil.move(master, house.root / "away")
    report = house.obey("clone")
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.MASTER_MISSING)
    assert not house.clone.exists()
    shutil.move(house.root / "away", master)
    until(lambda: house.obey("clone").outcome is Outcome.DONE)


def test_a_clone_knows_who_it_is_and_which_master_it_came_from(house: House):
    report = house.done("clone", port=9042)
    said = json.loads((house.clone / "MQL5/Files/bitten/identity.json").read_text())
    assert (said["instance"], said["folder"], said["port"], said["digest"]) == (
        17,
        "user_9",
        9042,
        report.observed.digest,
    )


# --- inject -----------------------------------------------------------------------------------------------------------


def test_nothing_is_injected_into_a_clone_that_does_not_stand(house: House):
    assert house.obey("inject", **ACCOUNT).reason is Reason.CLONE_MISSING


def test_only_the_sealed_order_is_kept(house: House):
    house.done("clone")
    house.done("inject", **ACCOUNT)
    assert house.state().inject_order().sealed
    assert not house.ini.exists()


def test_the_previous_sealing_key_still_opens_what_was_stored_before(house: House):
    house.done("clone")
    house.done("inject", **ACCOUNT)
    house.keys = type(house.keys)(house.keys.sign, type(house.keys.seal).generate(), house.keys.seal)
    house.anew()
    assert house.done("start", **ACCOUNT).observed.connection is Connection.CONNECTED


# --- start ------------------------------------------------------------------------------------------------------------


def test_nothing_is_started_without_its_clone(house: House):
    assert house.obey("start").reason is Reason.CLONE_MISSING


def test_an_account_that_was_not_injected_is_not_started(house: House):
    house.done("clone")
    assert house.obey("start", **ACCOUNT).reason is Reason.NOT_INJECTED
    house.done("inject", **ACCOUNT)
    report = house.obey("start", server="Other-Demo", login=ACCOUNT["login"])
    assert report.reason is Reason.NOT_INJECTED
    assert house.processes() == []


def test_a_port_that_a_stranger_holds_is_reported_and_nothing_is_started(house: House):
    house.done("clone")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        report = house.obey("start", port=stranger.getsockname()[1])
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.PORT_TAKEN)
    assert house.processes() == []


def test_without_an_account_it_runs_and_gives_a_heartbeat(house: House):
    report = house.running()
    assert report.observed.process is Process.RUNNING
    assert report.observed.connection is Connection.NO_ACCOUNT
    assert until(lambda: house.context.watch.observe(house.state()).heartbeat)["login"] == 0
    assert not house.ini.exists()


def test_a_terminal_that_runs_is_re_attached_and_never_started_twice(house: House):
    first = house.running(**ACCOUNT).observed.pid
    house.anew()
    assert house.done("start", **ACCOUNT).observed.pid == first
    assert len(house.processes()) == 1


def test_a_terminal_of_which_the_host_knows_no_launch_is_re_attached_too(house: House):
    first = house.running().observed.pid
    state = house.state()
    state.launch = None
    house.context.save(state)
    assert house.done("start").observed.pid == first


def test_one_that_runs_with_another_account_is_stopped_first(house: House):
    first = house.running().observed.pid
    house.done("inject", **ACCOUNT)
    second = house.done("start", **ACCOUNT)
    assert second.observed.pid != first
    assert second.observed.connection is Connection.CONNECTED
    assert len(house.processes()) == 1


def test_what_an_earlier_expert_advisor_wrote_is_gone_before_the_start(house: House):
    house.done("clone")
    bridge = house.clone / "MQL5/Files/bitten"
    (bridge / "heartbeat.json").write_text("{}")
    (house.clone / "MQL5/Experts/BittenBridge.ex5").unlink()
    house.done("start")
    assert not (bridge / "heartbeat.json").exists()
    assert json.loads((bridge / "bridge.json").read_text())["magic"] == 700000017


def test_a_start_that_fails_while_another_account_runs_stops_nothing(house: House):
    house.running()
    assert house.obey("start", **ACCOUNT).reason is Reason.NOT_INJECTED
    assert house.state().goal is Goal.RUNNING
    assert len(house.processes()) == 1


# --- stop -------------------------------------------------------------------------------------------------------------


def test_stopping_what_never_was_is_success(house: House):
    report = house.done("stop")
    assert (report.observed.present, report.observed.process) == (False, Process.STOPPED)


def test_a_stop_ends_the_process_keeps_the_clone_and_is_repeatable(house: House):
    house.running(**ACCOUNT)
    for _ in range(2):
        report = house.done("stop")
        assert (report.observed.present, report.observed.process) == (True, Process.STOPPED)
    assert house.state().goal is Goal.STOPPED


def test_a_terminal_that_ignores_a_polite_stop_is_killed(house: House):
    house.account("deaf")
    house.running(**ACCOUNT)
    house.anew(stop_grace_seconds=0.2)
    assert house.done("stop").observed.process is Process.STOPPED
    assert house.processes() == []


def test_a_terminal_that_forks_and_exits_is_followed_and_stopped(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAPER_QUIRKS", "fork")
    report = house.running(**ACCOUNT)
    assert report.observed.connection is Connection.CONNECTED
    assert [proc.pid for proc in house.processes()] == [report.observed.pid]
    house.done("stop")
    assert house.processes() == []


def test_a_terminal_that_floods_its_journal_can_be_watched_and_stopped(house: House):
    house.account("flood=1024")
    house.running(**ACCOUNT)
    journal = until(lambda: next(iter((house.clone / "logs").glob("*.log")), None))
    until(lambda: journal.stat().st_size > 32 << 20, seconds=30)
    assert house.context.watch.observe(house.state()).connection is Connection.CONNECTED
    assert house.done("stop").observed.process is Process.STOPPED
    size = journal.stat().st_size
    house.done("destroy")
    assert size > 32 << 20


def test_a_terminal_that_will_not_go_is_said_to_be_there(house: House, monkeypatch: pytest.MonkeyPatch):
    house.running()
    house.anew(stop_grace_seconds=0.1)
    with monkeypatch.context() as patched:
        patched.setattr(processes, "KILL_SECONDS", 0.1)
        patched.setattr(processes, "_signal", lambda proc, send: None)
        patched.setattr(processes.stop, "__kwdefaults__", {**processes.stop.__kwdefaults__, "kill_seconds": 0.1})
        report = house.obey("destroy")
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.WILL_NOT_STOP)
    assert report.observed.process is Process.RUNNING
    assert report.observed.present
    assert not house.state().tombstone


@pytest.mark.parametrize("verb", ["stop", "destroy"])
def test_a_terminal_whose_state_was_lost_altogether_is_neither_ended_nor_called_gone(house: House, verb: str):
    lost(house)
    for generation in (8, 8, 9):
        report = house.obey(verb, generation=generation)
        assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.WILL_NOT_STOP)
        assert (report.observed.process, report.observed.present) == (Process.RUNNING, False)
    assert not house.state().tombstone
    assert len(house.processes()) == 1
    house.kill()
    assert house.done(verb).observed.process is Process.STOPPED


def test_what_nobody_may_look_at_is_not_called_gone_where_no_state_was_kept(house: House, monkeypatch):
    monkeypatch.setattr(processes, "scan", lambda users: processes.Scan(doubtful=True))
    report = house.obey("destroy")
    assert (report.reason, report.observed.process) == (Reason.WILL_NOT_STOP, Process.UNKNOWN)


def test_a_survey_does_not_call_a_terminal_stopped_whose_state_was_lost(house: House):
    lost(house)
    house.obey("stop")
    scan = processes.scan(house.settings.users)
    assert house.context.watch.observe(house.state(), scan=scan).process is Process.RUNNING


def lost(house: House) -> None:
    """An instance 17 that runs and of which the disk kept nothing but its clone."""
    house.running()
    for path in (house.root / "State").glob("17.*"):
        path.unlink()
    house.anew()


# --- destroy ----------------------------------------------------------------------------------------------------------


def test_destroying_what_never_was_is_success_and_leaves_a_tombstone(house: House):
    assert not house.done("destroy").observed.present
    assert house.state().tombstone


def test_a_destroy_ends_the_process_takes_the_folder_and_forgets_the_account(house: House):
    house.running(**ACCOUNT)
    for _ in range(2):
        report = house.done("destroy")
        assert (report.observed.present, report.observed.process) == (False, Process.STOPPED)
    assert not house.clone.exists()
    assert house.processes() == []
    assert (house.state().injected, house.state().run) == (None, None)
    assert len(list((house.root / "Trash").iterdir())) == 1


def test_destroying_one_instance_leaves_the_folder_of_another_that_bears_its_name(house: House):
    house.running()
    report = house.obey("destroy", instance=18)
    assert (report.outcome, report.observed.process) == (Outcome.DONE, Process.STOPPED)
    assert house.clone.is_dir()
    assert len(house.processes()) == 1


def test_a_start_after_a_destroy_is_refused(house: House):
    house.running()
    house.done("destroy")
    assert house.obey("start").reason is Reason.TOMBSTONE
    assert orders.conclude(house.context, 17) is None
