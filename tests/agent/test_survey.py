"""What a host says of itself: everything on it, what it cannot tell as unknown, and nothing secret."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from farm.agent import protocol, survey
from farm.agent.processes import Proc
from farm.agent.protocol import Connection, Process, Reason
from farm.agent.state import State
from farm.agent.survey import Surveyor
from farm.agent.watch import Look
from tests.agent.house import ACCOUNT, PASSWORD, House
from tests.waiting import until


def surveyed(house: House) -> protocol.Survey:
    found = Surveyor(house.context).survey()
    assert protocol.Survey.parse(found.body()) == found
    return found


def test_a_host_without_a_master_says_so_and_surveys_the_rest(house: House):
    house.done("clone")
    shutil.rmtree(house.root / "Masters")
    found = None
    until(lambda: not surveyed(house).master_ok)
    found = surveyed(house)
    assert found.master_reason
    assert [row.instance for row in found.instances] == [17]


def test_an_empty_host_has_nothing_to_tell_and_is_no_error(house: House):
    found = surveyed(house)
    assert (found.instances, found.strangers, found.master_ok) == ([], [], True)
    assert found.host == "alpha"


def test_a_running_instance_is_told_with_what_it_consumes(house: House):
    house.running(**ACCOUNT)
    until(lambda: house.context.watch.observe(house.state()).heartbeat)
    row = surveyed(house).instances[0]
    assert (row.process, row.connection) == (Process.RUNNING, Connection.CONNECTED)
    assert row.heartbeat["balance"] == 10000.0
    assert row.memory_bytes > 1 << 20
    assert row.cpu_seconds > 0
    assert row.log_bytes > 0
    assert (row.epoch, row.generation) == (1, house.generation)


def test_a_terminal_that_the_host_cannot_see_is_unknown_and_not_stopped(house: House, monkeypatch: pytest.MonkeyPatch):
    house.done("clone")
    monkeypatch.setattr(survey.processes, "scan", lambda users: survey.Scan({}, doubtful=True))
    assert surveyed(house).instances[0].process is Process.UNKNOWN


def test_a_defect_in_one_instance_makes_that_one_unknown_and_tells_of_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    for number in (1, 2):
        house.done("clone", instance=number, folder=f"user_{number}")
    house.done("inject", instance=1, folder="user_1", **ACCOUNT)
    look = house.context.watch.look

    def defect(state: State, **rest: object) -> Look:
        if state.instance == 1:
            raise OverflowError
        return look(state, **rest)

    monkeypatch.setattr(house.context.watch, "look", defect)
    first, second = surveyed(house).instances
    assert (first.instance, first.present, first.process) == (1, True, Process.UNKNOWN)
    assert (first.server, first.login) == (ACCOUNT["server"], ACCOUNT["login"]), "nobody else may be given it"
    assert first.generation > 0, "or the portal would take it for one of an older order"
    assert (second.instance, second.process) == (2, Process.STOPPED)


def test_a_folder_that_no_order_made_is_a_stranger(house: House):
    house.done("clone")
    (house.root / "Users" / "user_99").mkdir()
    assert surveyed(house).strangers == ["user_99"]


def test_a_destroyed_instance_is_told_no_more(house: House):
    house.done("clone")
    house.done("destroy")
    assert surveyed(house).instances == []


def test_a_crash_loop_is_told_as_the_reason(house: House):
    house.done("clone")
    state = house.state()
    state.reason, state.crashes = Reason.CRASH_LOOP, [1.0] * 5
    house.context.save(state)
    row = surveyed(house).instances[0]
    assert (row.reason, row.crashes) == (Reason.CRASH_LOOP, 5)


def test_activity_is_a_command_or_an_order_and_never_a_heartbeat(house: House):
    house.running(**ACCOUNT)
    until(lambda: house.context.watch.observe(house.state()).heartbeat)
    assert surveyed(house).instances[0].activity_at is None
    command = house.clone / "MQL5/Files/bitten/commands/open.json"
    command.with_suffix(".tmp").write_text('{"do":"open","symbol":"EURUSD","volume":0.1}')
    command.with_suffix(".tmp").rename(command)
    seen = until(lambda: (row := surveyed(house).instances[0]).heartbeat["positions"] and row)
    assert seen.activity_at is not None


def test_no_password_is_in_a_survey(house: House):
    house.running(**ACCOUNT)
    assert PASSWORD not in surveyed(house).body()


def test_the_machine_tells_its_disk_memory_and_processors(house: House):
    load = surveyed(house).load
    assert 0 < load["disk_free"] <= load["disk_total"]
    assert 0 < load["memory_available"] <= load["memory_total"]
    assert load["cpus"] >= 1


def test_disk_use_is_measured_one_clone_a_survey_and_rarely(house: House, monkeypatch: pytest.MonkeyPatch):
    measured: list[str] = []
    monkeypatch.setattr(survey, "disk_bytes", lambda clone: measured.append(clone.name) or 7)
    for number in (1, 2):
        house.done("clone", instance=number, folder=f"user_{number}")
    surveyor = Surveyor(house.context)
    assert surveyor.survey().instances[0].disk_bytes is None
    surveyor.survey()
    rows = surveyor.survey().instances
    assert [row.disk_bytes for row in rows] == [7, 7]
    assert sorted(measured) == ["user_1", "user_2"]


def test_a_file_shared_with_another_clone_is_not_counted_as_this_ones(tmp_path: Path):
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "own").write_bytes(os.urandom(8192))
    (tmp_path / "other").write_bytes(os.urandom(1 << 20))
    os.link(tmp_path / "other", tmp_path / "clone" / "shared")
    assert 8192 <= survey.disk_bytes(tmp_path / "clone") < 1 << 17


def test_a_process_that_is_gone_consumes_nothing_that_is_known():
    assert survey.consumption([Proc(pid=2**22 - 3, created=1.0)]) == (None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="PSS is of Linux")
def test_memory_is_the_proportional_share():
    mine = Proc(os.getpid(), psutil.Process().create_time())
    assert survey.consumption([mine])[1] <= psutil.Process().memory_info().rss * 1.2


def test_every_survey_has_another_nonce_and_one_boot(house: House):
    first, second = surveyed(house), surveyed(house)
    assert first.nonce != second.nonce
    assert first.boot_id == second.boot_id != ""
