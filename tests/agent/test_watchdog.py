"""The watchdog as a process: live terminals do not outlive it, nor the lease. Demo terminals are none of its business.

Leases here last seconds, and every process is a real one; the house in the test plays the agent, which therefore does
nothing unless a test has it do something.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from farm.agent import clocks, errors, lease, lease_file, pulse, watchdog
from farm.agent.guard import LATE_SECONDS, Guard
from farm.agent.lease import Lease, Moment
from farm.agent.protocol import Connection, Outcome, Process, Reason
from farm.agent.settings import BadSettings
from farm.agent.state import Launch
from farm.agent.supervise import tend
from farm.agent.watchdog import Limits
from tests.agent.house import ACCOUNT, House, end_all
from tests.agent.kennel import LONG, Kennel
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stand-ins and signals here are of Linux")

LIVE = {"kind": "live", **ACCOUNT}


@pytest.fixture
def kennel(house: House) -> Iterator[Kennel]:
    made = Kennel(house)
    try:
        yield made
    finally:
        made.end()


def demo(house: House) -> None:
    """An instance 18 that runs without an account."""
    house.done("clone", instance=18, folder="user_8")
    house.done("start", instance=18, folder="user_8")


def of_another_boot() -> Lease:
    return Lease(nonce="n", seconds=LONG, sent=replace(clocks.moment(), boot_id="another"))


def gone(house: House, folder: str = "user_9", *, seconds: float = 15.0) -> None:
    until(lambda: not house.processes(folder), seconds=seconds)


# --- refused ----------------------------------------------------------------------------------------------------------


def refused(house: House) -> None:
    report = house.report("start", **LIVE)
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.NO_LEASE)
    assert house.processes() == []
    assert (house.state().launch, house.state().run) == (None, None)
    assert not house.ini.exists()
    assert not (house.clone / "MQL5/Files/bitten/bridge.json").exists()


def test_no_live_terminal_is_started_without_a_watchdog(kennel: Kennel):
    kennel.state.mkdir()
    kennel.grant(LONG)
    kennel.house.done("clone")
    kennel.house.done("inject", **ACCOUNT)
    refused(kennel.house)


def test_no_live_terminal_is_started_without_a_lease_or_with_an_old_one(kennel: Kennel):
    house = kennel.house
    kennel.watch()
    house.done("clone")
    house.done("inject", **ACCOUNT)
    refused(house)
    kennel.grant(-1)
    refused(house)
    lease_file.save(kennel.state, of_another_boot())
    refused(house)


def test_a_demo_terminal_needs_neither(kennel: Kennel):
    demo(kennel.house)
    assert kennel.house.state(18).launch.watchdog == ""


NOWHERE = "/nowhere/terminal64.exe /portable"
"""Whoever tries to run it says so; whoever does not try says something else."""


def test_the_watchdog_itself_starts_nothing_without_a_lease(kennel: Kennel):
    house = kennel.house
    kennel.watch(FARM_TERMINAL_COMMAND=NOWHERE)
    house.done("clone")
    with pytest.raises(errors.NoLease):
        house.context.fence.launch("user_9")


def test_the_watchdog_starts_nothing_that_the_agent_no_longer_waits_for(kennel: Kennel, monkeypatch):
    monkeypatch.setattr("farm.agent.fence.LAUNCH_SECONDS", -0.1)
    monkeypatch.setattr("farm.agent.fence.ASK_SECONDS", 5.0)
    kennel.watch(FARM_TERMINAL_COMMAND=NOWHERE)
    kennel.grant(LONG)
    kennel.house.done("clone")
    with pytest.raises(errors.NoLease):
        kennel.house.context.fence.launch("user_9")


def test_a_command_that_cannot_be_run_is_said_so(kennel: Kennel):
    kennel.watch(FARM_TERMINAL_COMMAND=NOWHERE)
    kennel.grant(LONG)
    kennel.house.done("clone")
    kennel.house.done("inject", **ACCOUNT)
    assert kennel.house.report("start", **LIVE).reason is Reason.TERMINAL_COMMAND


def test_a_second_watchdog_is_refused_and_the_first_goes_on(kennel: Kennel):
    first = kennel.watch()
    second = kennel.spawn()
    assert second.wait(30) == 1
    assert first.poll() is None
    before = pulse.load(kennel.state)
    assert until(lambda: (now := pulse.load(kennel.state)) != before and now).watchdog == before.watchdog


def test_a_static_host_has_nothing_to_watch(kennel: Kennel):
    assert kennel.spawn(FARM_POLICY="static").wait(30) == 0


def test_a_watchdog_without_a_farm_or_a_command_does_not_begin(kennel: Kennel, tmp_path: Path):
    assert kennel.spawn(FARM_ROOT=str(tmp_path / "nowhere")).wait(30) == 1
    assert not (tmp_path / "nowhere").exists()
    assert kennel.spawn(FARM_TERMINAL_COMMAND="").wait(30) == 2


def test_it_does_not_begin_if_stopping_takes_longer_than_the_portal_is_told(kennel: Kennel, monkeypatch):
    settings = kennel.house.settings
    assert Limits.of(settings).longest <= watchdog.stop_seconds(settings)
    monkeypatch.setattr(lease, "longest_stop", lambda grace, kill: grace + kill)
    with pytest.raises(BadSettings):
        Limits.of(settings)


def test_it_needs_no_library_of_the_brokers():
    code = "import sys, farm.agent.cli; sys.exit(any(name in sys.modules for name in ('celery', 'kombu', 'redis')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- under a lease ----------------------------------------------------------------------------------------------------


def test_a_live_terminal_runs_under_a_lease_as_the_watchdogs_child(kennel: Kennel):
    dog = kennel.watch()
    kennel.grant(LONG)
    report = kennel.house.running(**LIVE)
    assert report.observed.connection is Connection.CONNECTED
    assert psutil.Process(report.observed.pid).ppid() == dog.pid
    assert (report.observed.kind, report.observed.login) == ("live", ACCOUNT["login"])


def test_a_lease_that_is_renewed_in_time_is_never_over(kennel: Kennel):
    kennel.watch()
    kennel.grant(4.0)
    pid = kennel.house.running(**LIVE).observed.pid
    first = lease_file.load(kennel.state)
    kennel.grant(LONG)
    until(lambda: not first.is_fresh(clocks.moment()))
    mark = pulse.load(kennel.state)
    until(lambda: pulse.load(kennel.state).since_boot > mark.since_boot + 1.5)
    assert [proc.pid for proc in kennel.house.processes()] == [pid]


def test_a_lease_that_was_read_lasts_whatever_becomes_of_its_file(kennel: Kennel):
    kennel.watch()
    kennel.grant(LONG)
    pid = kennel.house.running(**LIVE).observed.pid
    (kennel.state / "lease.json").write_bytes(b'{"nonce":"n","sec')
    mark = pulse.load(kennel.state)
    until(lambda: pulse.load(kennel.state).since_boot > mark.since_boot + 2.5)
    assert [proc.pid for proc in kennel.house.processes()] == [pid]


def test_one_that_an_agent_started_just_before_it_was_killed_is_found_by_the_next(kennel: Kennel):
    house = kennel.house
    dog = kennel.watch()
    kennel.grant(LONG)
    pid = house.running(**LIVE).observed.pid
    state = house.state()
    state.launch = Launch(pid=0, created=0.0, started_at=state.launch.started_at, account=state.launch.account)
    house.context.save(state)
    assert tend(house.anew(), first=True) == 0
    assert house.state().launch.pid == pid
    dog.kill()
    gone(house)
    kennel.watch()
    assert tend(house.context) == 1
    assert house.state().crashes == []


def test_what_a_live_terminal_ended_with_is_told_and_counts(kennel: Kennel):
    kennel.house.account("crash=0.3")
    kennel.watch()
    kennel.grant(LONG)
    kennel.house.running(**LIVE)
    gone(kennel.house)
    state = kennel.house.state()
    until(lambda: kennel.house.context.fence.ending("user_9", state.launch).code == 3)
    tend(kennel.house.context)
    assert len(kennel.house.state().crashes) == 1
    kennel.house.clock.ahead += 2
    assert tend(kennel.house.context) == 1


def test_a_live_terminal_that_dies_at_once_fails_its_start(kennel: Kennel):
    kennel.watch(PAPER_QUIRKS="dies")
    kennel.grant(LONG)
    kennel.house.done("clone")
    kennel.house.done("inject", **ACCOUNT)
    assert kennel.house.report("start", **LIVE).reason is Reason.TERMINAL_DIED


def test_an_update_of_a_live_terminal_is_no_death(kennel: Kennel):
    kennel.house.account("update=0.3")
    kennel.watch()
    kennel.grant(LONG)
    first = kennel.house.running(**LIVE).observed.pid
    until(lambda: (found := kennel.house.processes()) and found[-1].pid != first and not found[-1].updater, seconds=20)
    tend(kennel.house.context)
    assert kennel.house.state().crashes == []


def test_no_zombie_is_left(kennel: Kennel):
    kennel.watch()
    kennel.grant(LONG)
    pid = kennel.house.running(**LIVE).observed.pid
    kennel.house.done("stop", **LIVE)
    until(lambda: not psutil.pid_exists(pid))


# --- the lease is over ------------------------------------------------------------------------------------------------


def test_when_the_lease_is_over_live_terminals_are_stopped_in_time_and_demo_ones_stay(kennel: Kennel):
    house = kennel.house
    demo(house)
    kennel.watch()
    granted = kennel.grant(3.0)
    house.running(**LIVE)
    assert granted.is_fresh(clocks.moment())
    gone(house)
    late = -granted.left(clocks.moment())
    assert 0 <= late < lease.TICK_SECONDS + lease.SCAN_SECONDS
    assert len(house.processes("user_8")) == 1


def test_not_one_that_is_deaf_outlasts_what_the_portal_is_told(kennel: Kennel):
    house = kennel.house
    house.anew(stop_grace_seconds=1.0)
    house.account("deaf")
    kennel.watch()
    granted = kennel.grant(3.0)
    house.running(**LIVE)
    gone(house)
    assert 1.0 <= -granted.left(clocks.moment()) < watchdog.stop_seconds(house.settings)


def test_neither_the_agents_lock_nor_a_goal_keeps_a_live_terminal_running(kennel: Kennel):
    house = kennel.house
    kennel.watch()
    kennel.grant(3.0)
    house.running(**LIVE)
    with house.context.held(17):
        gone(house)


def test_one_whose_state_cannot_be_read_is_stopped(kennel: Kennel):
    house = kennel.house
    kennel.grant(3.0)
    demo(house)
    house.running(**ACCOUNT)
    for name in ("17.json", "17.before"):
        (kennel.state / name).write_bytes(b"{")
    kennel.watch()
    gone(house)
    assert len(house.processes("user_8")) == 1


def test_one_that_no_state_knows_is_stopped(kennel: Kennel):
    house = kennel.house
    house.running()
    for name in ("17.json", "17.before"):
        (kennel.state / name).unlink()
    kennel.watch()
    gone(house)


def test_one_that_was_a_demo_when_its_state_could_be_read_stays_one(kennel: Kennel):
    house = kennel.house
    demo(house)
    kennel.watch()
    kennel.grant(2.0)
    house.running(**LIVE)
    gone(house)  # so it has looked, and knows both
    for name in ("18.json", "18.before"):
        (kennel.state / name).write_bytes(b"{")
    mark = pulse.load(kennel.state)
    until(lambda: pulse.load(kennel.state).since_boot > mark.since_boot + 2.5)
    assert len(house.processes("user_8")) == 1


def test_a_lease_of_another_boot_is_over(kennel: Kennel):
    house = kennel.house
    kennel.watch()
    kennel.grant(LONG)
    house.running(**LIVE)
    dog = kennel.watchdogs.pop()
    dog.kill()
    dog.wait()
    gone(house)
    lease_file.save(kennel.state, of_another_boot())
    kennel.watch()
    assert tend(house.context) == 0
    assert house.processes() == []


def test_it_ticks_while_it_stops_one_that_is_deaf_and_starts_nothing_meanwhile(kennel: Kennel):
    house = kennel.house
    house.account("deaf")
    kennel.watch(FARM_STOP_SECONDS="4")
    kennel.grant(3.0)
    house.running(**LIVE)
    mark = until(lambda: (now := pulse.load(kennel.state)).stopping and now, seconds=10)
    kennel.grant(LONG, wait=False)
    house.done("clone", instance=18, folder="user_8")
    with pytest.raises(errors.NoLease):
        house.context.fence.launch("user_8")
    assert house.context.fence.bars("live")
    later = until(lambda: (now := pulse.load(kennel.state)).since_boot > mark.since_boot + 1.5 and now)
    assert later.stopping
    gone(house)
    until(lambda: not house.context.fence.bars("live"))


def test_the_first_grant_after_an_outage_starts_it_again_in_its_own_clone_without_a_crash(kennel: Kennel):
    house = kennel.house
    kennel.watch()
    kennel.grant(3.0)
    first = house.running(**LIVE).observed.pid
    gone(house)
    for _ in range(3):
        assert tend(house.context) == 0
    seen = house.context.watch.observe(house.state())
    assert (seen.process, seen.reason, seen.crashes) == (Process.STOPPED, Reason.NO_LEASE, 0)
    kennel.grant(LONG)
    until(lambda: tend(house.context) == 1, every=0.2)
    back = until(lambda: (look := house.context.watch.observe(house.state())).synchronized and look)
    assert (back.reason, back.crashes) == (Reason.NONE, 0)
    assert back.pid != first


def test_a_grant_that_came_before_the_agent_looked_makes_no_crash_of_it(kennel: Kennel):
    house = kennel.house
    kennel.watch()
    kennel.grant(3.0)
    house.running(**LIVE)
    gone(house)
    kennel.grant(LONG)
    assert tend(house.context) == 1
    assert house.state().crashes == []


def test_a_start_that_the_lease_cut_short_says_so(kennel: Kennel):
    house = kennel.house
    house.account("noanswer")
    kennel.watch()
    kennel.grant(3.0)
    house.done("clone")
    house.done("inject", **ACCOUNT)
    report = house.report("start", **LIVE)
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.NO_LEASE)


# --- the watchdog is gone ---------------------------------------------------------------------------------------------


def test_live_terminals_die_with_a_watchdog_that_is_killed_and_demo_ones_live_on(kennel: Kennel):
    house = kennel.house
    demo(house)
    dog = kennel.watch()
    kennel.grant(LONG)
    house.running(**LIVE)
    dog.kill()
    gone(house, seconds=1.0)
    assert len(house.processes("user_8")) == 1


def test_the_next_watchdog_may_start_them_again_and_no_crash_is_counted(kennel: Kennel):
    house = kennel.house
    kennel.grant(LONG)
    dog = kennel.watch()
    house.running(**LIVE)
    dog.kill()
    gone(house)
    kennel.watch()
    assert tend(house.context) == 1
    assert house.state().crashes == []


def test_a_watchdog_that_is_told_to_end_lets_them_close_properly(kennel: Kennel):
    house = kennel.house
    dog = kennel.watch()
    kennel.grant(LONG)
    house.running(**LIVE)
    dog.send_signal(signal.SIGTERM)
    assert dog.wait(20) == 0
    assert house.processes() == []
    journal = next((house.clone / "logs").glob("*.log")).read_text(encoding="utf-16")
    assert "exit with code 0" in journal
    kennel.watch()
    assert tend(house.context) == 1
    assert house.state().crashes == []


def ahead(seconds: float) -> Moment:
    now = clocks.moment()
    return replace(now, since_boot=now.since_boot + seconds, wall=now.wall + seconds)


def test_the_agent_stops_them_when_the_watchdog_hangs_and_counts_no_crash(kennel: Kennel):
    house = kennel.house
    demo(house)
    dog = kennel.watch()
    kennel.grant(LONG)
    house.running(**LIVE)
    dog.send_signal(signal.SIGSTOP)
    guard = Guard(house.context, moment=lambda: ahead(lease.SILENT_SECONDS + 1))
    with house.context.held(17):  # whoever works on it
        assert guard.look() == []
        assert guard.look() == ["user_9"]
    assert house.processes() == []
    assert len(house.processes("user_8")) == 1
    dog.send_signal(signal.SIGCONT)
    until(lambda: not house.context.fence.bars("live"))
    assert tend(house.context) == 1
    assert house.state().crashes == []


def test_the_agent_leaves_them_alone_while_the_watchdog_ticks(kennel: Kennel):
    house = kennel.house
    kennel.watch()
    kennel.grant(LONG)
    house.running(**LIVE)
    guard = Guard(house.context)
    assert [guard.look() for _ in range(3)] == [[], [], []]
    assert len(house.processes()) == 1


def seen_by_the_agent(kennel: Kennel, after_the_lease: float) -> list[list[str]]:
    """What it stops in two looks so long after the lease's end, the watchdog having ticked and then done nothing."""
    house = kennel.house
    demo(house)
    dog = kennel.watch()
    granted = kennel.grant(LONG)
    house.running(**LIVE)
    dog.send_signal(signal.SIGSTOP)
    now = ahead(granted.left(clocks.moment()) + after_the_lease)
    ticked = pulse.load(kennel.state)
    assert ticked is not None
    pulse.save(kennel.state, replace(ticked, since_boot=now.since_boot))
    guard = Guard(house.context, moment=lambda: now)
    return [guard.look(), guard.look()]


def test_the_first_seconds_after_a_leases_end_are_the_watchdogs_alone(kennel: Kennel):
    assert seen_by_the_agent(kennel, LATE_SECONDS - 1) == [[], []]
    assert len(kennel.house.processes()) == 1


def test_what_is_left_after_them_the_agent_stops_too_for_a_watchdog_may_hang_while_it_stops_them(kennel: Kennel):
    assert seen_by_the_agent(kennel, LATE_SECONDS + 1) == [[], ["user_9"]]
    assert len(kennel.house.processes("user_8")) == 1


def test_one_look_at_an_old_tick_is_not_enough_for_the_machine_may_have_slept(kennel: Kennel):
    house = kennel.house
    kennel.watch()
    kennel.grant(LONG)
    house.running(**LIVE)
    clock = iter([ahead(60), ahead(0), ahead(60), ahead(0)])
    guard = Guard(house.context, moment=lambda: next(clock))
    assert [guard.look() for _ in range(4)] == [[]] * 4
    assert len(house.processes()) == 1


def test_one_that_forked_away_from_a_watchdog_that_died_is_stopped_by_the_agent(kennel: Kennel):
    house = kennel.house
    house.account("fork")
    dog = kennel.watch()
    kennel.grant(LONG)
    started = house.running(**LIVE).observed.pid
    until(lambda: [proc.pid for proc in house.processes()] != [started] or house.state().launch.pid != started)
    dog.kill()
    dog.wait()
    assert len(house.processes()) == 1
    guard = Guard(house.context, moment=lambda: ahead(lease.SILENT_SECONDS + 1))
    guard.look()
    assert guard.look() == ["user_9"]
    assert house.processes() == []


def test_one_that_forked_away_is_stopped_when_the_lease_is_over(kennel: Kennel):
    house = kennel.house
    house.account("fork")
    kennel.watch()
    kennel.grant(3.0)
    house.running(**LIVE)
    gone(house)


def test_a_static_host_is_left_alone(house: House):
    house.running(**LIVE)
    guard = Guard(house.context)
    assert [guard.look() for _ in range(3)] == [[], [], []]
    assert len(house.processes()) == 1
    assert house.state().launch.watchdog == ""


# --- as another user --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_root")
def test_terminals_of_another_user_die_with_the_watchdog_too(kennel: Kennel, tmp_path: Path):
    """The signal would be cleared by a change of user after it was asked for."""
    users = kennel.house.settings.users
    (users / "user_9" / "Config").mkdir(parents=True)
    for folder in (users / "user_9" / "Config", users / "user_9"):
        os.chown(folder, 65534, 65534)
    command = "/bin/sh -c 'sleep 60; true' /portable"
    dog = kennel.watch(FARM_TERMINAL_USER="65534", FARM_TERMINAL_COMMAND=command)
    kennel.grant(LONG)
    proc, _ = kennel.house.context.fence.launch("user_9")
    assert psutil.Process(proc.pid).uids().real == 65534
    dog.kill()
    until(lambda: not psutil.pid_exists(proc.pid), seconds=2)
    end_all(users)
