"""What is kept running, what is left alone, and what is cleared away. Time is moved, processes are real."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from farm.agent import orders, processes, supervise
from farm.agent import state as states
from farm.agent.protocol import Connection, Outcome, Process, Reason
from farm.agent.state import Goal, State
from farm.agent.supervise import prune_journals, tend
from farm.agent.watch import Look
from tests.agent.house import ACCOUNT, House
from tests.waiting import until


def alive(house: House) -> list[int]:
    return [proc.pid for proc in house.processes()]


# --- left alone -------------------------------------------------------------------------------------------------------


def test_a_stopped_terminal_is_not_started_by_itself(house: House):
    house.running()
    house.done("stop")
    assert tend(house.context, first=True) == 0
    assert alive(house) == []


def test_a_terminal_that_runs_is_left_alone(house: House):
    pid = house.running(**ACCOUNT).observed.pid
    before = house.state()
    assert tend(house.context) == 0
    assert alive(house) == [pid]
    assert house.state() == before


def test_a_start_that_failed_is_not_tried_again_behind_the_portals_back(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAPER_QUIRKS", "dies")
    house.done("clone")
    house.report("start")
    monkeypatch.delenv("PAPER_QUIRKS")
    house.clock.ahead += 600
    assert tend(house.context) == 0
    assert alive(house) == []


def test_a_start_on_its_way_is_the_watchs_and_not_supervised(house: House):
    house.done("clone")
    house.obey("start")
    house.kill()
    assert tend(house.context) == 0
    assert house.state().crashes == []


def test_a_host_that_cannot_tell_starts_nothing(house: House, monkeypatch: pytest.MonkeyPatch):
    house.running()
    house.kill()
    monkeypatch.setattr(processes, "scan", lambda users: processes.Scan({}, doubtful=True))
    house.clock.ahead += 60
    assert tend(house.context, first=True) == 0


def test_an_instance_that_is_being_worked_on_is_not_touched(house: House):
    house.running()
    house.kill()
    with house.context.held(17):
        assert tend(house.context) == 0


# --- a death ----------------------------------------------------------------------------------------------------------


def test_a_crashed_terminal_is_started_again_with_its_account(house: House):
    first = house.running(**ACCOUNT).observed.pid
    house.kill()
    assert tend(house.context) == 0
    assert house.state().crashes
    house.clock.ahead += 1
    assert tend(house.context) == 1
    seen = until(lambda: (look := house.context.watch.observe(house.state())).synchronized and look)
    assert seen.connection is Connection.CONNECTED
    assert seen.pid != first
    assert seen.crashes == 1


def test_a_defect_in_one_instance_leaves_only_that_one_untended(house: House, monkeypatch: pytest.MonkeyPatch):
    house.done("clone", instance=1, folder="user_1")
    house.done("start", instance=1, folder="user_1")
    house.running()
    house.kill()
    look = house.context.watch.look

    def defect(state: State, **rest: Any) -> Look:
        if state.instance == 1:
            raise OverflowError
        return look(state, **rest)

    monkeypatch.setattr(house.context.watch, "look", defect)
    assert tend(house.context, first=True) == 1
    assert alive(house) != []


def test_the_restarts_start_up_file_is_removed_once_it_was_read(house: House):
    house.running(**ACCOUNT)
    house.kill()
    tend(house.context)
    house.clock.ahead += 1
    tend(house.context)
    assert house.ini.exists()
    until(lambda: house.context.watch.look(house.state()).standing.ini_read)
    tend(house.context)
    assert not house.ini.exists()


def test_a_start_up_file_is_removed_once_it_was_read_though_the_broker_is_slow(house: House):
    house.account("slow=60")
    house.done("clone")
    house.done("inject", **ACCOUNT)
    house.obey("start", **ACCOUNT)
    assert house.ini.exists()
    until(lambda: house.context.watch.look(house.state()).standing.ini_read)
    supervise.clear_read_ini(house.context, 17)
    assert not house.ini.exists()
    assert house.state().awaits_start


def test_each_further_crash_waits_twice_as_long(house: House):
    house.running()
    for wait in (1, 2, 4):
        house.kill()
        tend(house.context)
        house.clock.ahead += wait - 0.5
        assert tend(house.context) == 0
        house.clock.ahead += 0.6
        assert tend(house.context) == 1


def test_five_crashes_in_two_minutes_are_a_loop_and_end_the_restarts(house: House):
    house.running()
    for _ in range(5):
        house.kill()
        tend(house.context)
        house.clock.ahead += 17
        tend(house.context)
    assert alive(house) == []
    seen = house.context.watch.observe(house.state())
    assert (seen.reason, seen.crashes, seen.process) == (Reason.CRASH_LOOP, 5, Process.STOPPED)
    house.clock.ahead += 3600
    assert tend(house.context) == 0
    assert house.done("start").observed.reason is Reason.NONE


def test_a_clock_set_back_keeps_no_terminal_down(house: House):
    house.running()
    house.clock.ahead = 86400
    house.kill()
    assert tend(house.context) == 0
    house.clock.ahead = 0
    assert tend(house.context) == 1


def test_a_clock_set_back_during_a_start_leaves_no_start_without_end(house: House):
    house.account("late_journal=60")
    house.done("clone")
    house.clock.ahead = 86400
    assert house.obey("start") is None
    house.clock.ahead = 0
    report = until(lambda: orders.conclude(house.context, 17))
    assert report.outcome is Outcome.DONE  # without an account, a process that lives is all there is to see
    assert not house.ini.exists()


def test_five_crashes_in_a_day_are_no_loop(house: House):
    house.running()
    for _ in range(5):
        house.kill()
        tend(house.context)
        house.clock.ahead += 3600
        assert tend(house.context) == 1
    assert house.state().reason is Reason.NONE


def test_a_restart_that_cannot_be_done_says_why_and_is_tried_again(house: House):
    house.running()
    house.kill()
    command = house.settings.terminal_command
    house.anew(terminal_command="/nowhere/terminal64.exe")
    tend(house.context, first=True)
    assert house.state().reason is Reason.TERMINAL_COMMAND
    house.anew(terminal_command=command)
    house.clock.ahead += 2
    assert tend(house.context) == 1
    assert house.state().reason is Reason.NONE


def test_after_a_reboot_all_come_up_again_a_few_at_a_time_and_none_counts_as_crashed(house: House):
    for number in range(6):
        changes = {"instance": 20 + number, "folder": f"user_{20 + number}"}
        house.done("clone", **changes)
        house.done("start", **changes)
    for number in range(6):
        processes.stop(house.settings.users, f"user_{20 + number}", grace_seconds=5)
        state = house.state(20 + number)
        state.launch = states.Launch(pid=1, created=1.0, started_at=1.0)
        house.context.save(state)
    house.anew()
    assert tend(house.context, first=True) == supervise.STARTS_AT_ONCE
    assert tend(house.context, first=True) == 6 - supervise.STARTS_AT_ONCE
    assert [house.state(20 + number).crashes for number in range(6)] == [[]] * 6


def test_a_start_that_the_agent_was_killed_in_is_done_by_the_next_agent(house: House):
    house.done("clone")
    house.obey("start")
    house.kill()
    state = house.state()
    state.launch = states.Launch(pid=0, created=0.0, started_at=house.clock())
    house.context.save(state)
    house.anew()
    assert tend(house.context, first=True) == 1
    assert alive(house)


# --- found running ----------------------------------------------------------------------------------------------------


def test_a_process_found_running_is_re_attached_and_not_restarted(house: House):
    pid = house.running().observed.pid
    state = house.state()
    state.launch = None
    house.context.save(state)
    house.anew()
    assert tend(house.context, first=True) == 0
    assert alive(house) == [pid]
    assert house.state().launch.pid == pid


def test_an_updates_relaunch_is_no_crash_and_is_re_attached(house: House):
    house.account("update=0.2")
    house.running(**ACCOUNT)
    first = house.state().launch.pid
    until(lambda: first not in alive(house))
    second = until(lambda: tend(house.context) == 0 and _relaunched(house, first), seconds=20)
    assert house.state().crashes == []
    assert house.state().launch.pid == second
    assert until(lambda: house.context.watch.observe(house.state()).synchronized)


def _relaunched(house: House, first: int) -> int | None:
    launch = house.state().launch
    found = house.processes()
    settled = launch and launch.pid != first and len(found) == 1 and not found[0].updater and found[0].pid == launch.pid
    return launch.pid if settled else None


def test_an_expert_advisor_lost_by_an_update_is_brought_back_by_a_proper_restart(house: House):
    house.account("update=0.2", "ea_lost")
    house.running(**ACCOUNT)
    first = house.state().launch.pid
    second = until(lambda: tend(house.context) == 0 and _relaunched(house, first), seconds=20)
    until(lambda: house.context.watch.observe(house.state()).synchronized)
    assert tend(house.context) == 0
    house.clock.ahead += supervise.EXPERT_SECONDS + 5
    assert tend(house.context) == 1
    assert second not in alive(house)
    assert house.state().crashes == []


def test_a_missing_process_may_be_on_its_way_back_only_for_a_while(house: House):
    house.running()
    state = house.state()
    house.kill()
    until(lambda: processes.exit_code(state.launch.pid))
    processes._exit_codes.pop(state.launch.pid)  # as for an agent that did not start it
    assert house.context.watch.look(state).may_come_back
    house.clock.ahead += 21
    assert not house.context.watch.look(state).may_come_back


# --- left over --------------------------------------------------------------------------------------------------------


def test_start_up_files_that_nobody_waits_for_are_removed_at_boot_strangers_too(house: House):
    house.running()
    house.done("stop")
    stranger = house.root / "Users" / "stranger" / "Config" / "bitten-start.ini"
    stranger.parent.mkdir(parents=True)
    for path in (house.ini, stranger):
        path.write_bytes(b"Password=x")
    supervise.clear_leftovers(house.context)
    assert not house.ini.exists()
    assert not stranger.exists()


def test_a_start_up_file_beside_a_stopped_terminal_is_removed(house: House):
    house.running()
    house.done("stop")
    house.ini.write_bytes(b"Password=x")
    tend(house.context)
    assert not house.ini.exists()


def test_half_built_clones_and_half_written_states_are_thrown_away(house: House):
    half = house.root / "Pool" / ".tmp-4194999-1-x"
    half.mkdir(parents=True)
    state = house.root / "State" / ".17.tmp"
    state.parent.mkdir()
    state.touch()
    os.utime(state, (1, 1))
    supervise.clear_leftovers(house.context)
    assert not state.exists()
    assert house.context.pool.clean() == 0


def test_a_tombstone_is_kept_while_an_order_could_still_come_and_not_for_ever(house: House):
    house.done("destroy")
    supervise.prune(house.context)
    assert house.context.load(17) is not None
    house.clock.ahead += supervise.TOMBSTONE_SECONDS + 1
    supervise.prune(house.context)
    assert house.context.load(17) is None


def test_journals_are_pruned_by_age_and_by_size_but_never_the_newest(tmp_path: Path):
    now = time.time()
    for days, size in ((0, 50), (1, 30), (2, 30), (30, 1)):
        path = tmp_path / f"202611{22 - days if days < 22 else 1:02d}.log"
        path.write_bytes(bytes(size))
        os.utime(path, (now - days * 86400,) * 2)
    prune_journals(tmp_path.parent, tmp_path.name, now=now, most_bytes=85)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20261121.log", "20261122.log"]
    prune_journals(tmp_path.parent, tmp_path.name, now=now, most_bytes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["20261122.log"]
    prune_journals(tmp_path, "absent", now=now)


def test_one_instance_in_trouble_does_not_keep_the_others_down(house: House):
    house.running()
    house.kill()
    broken = State(instance=5, folder="user_5", goal=Goal.RUNNING, built="built", run=house.state().run)
    house.context.save(broken)
    tend(house.context, first=True)
    assert alive(house)
