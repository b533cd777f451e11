"""The operator's commands: JSON on standard output, exit codes, and no way round the locks or the memory."""

from __future__ import annotations

import io
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from farm.agent import cli, keys, locks, logs, protocol, supervise
from farm.agent.protocol import Connection, Outcome, Reason
from farm.agent.state import Goal
from tests.agent.house import ACCOUNT, PASSWORD, TERMINAL, House

Answer = tuple[int, dict[str, Any]]


class Operator:
    def __init__(self, house: House, capsys: pytest.CaptureFixture[str]) -> None:
        self.house, self._capsys = house, capsys

    def __call__(self, *argv: str) -> Answer:
        self._capsys.readouterr()
        code = cli.main(list(argv))
        return code, json.loads(self._capsys.readouterr().out)


@pytest.fixture
def operator(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Operator:
    house.keys = keys.generate(tmp_path / "keys.json")
    house.anew()
    for name, value in {
        "FARM_ROOT": house.root,
        "FARM_HOST": "alpha",
        "FARM_KEY_FILE": tmp_path / "keys.json",
        "FARM_PORTAL_KEYS": protocol.b64(bytes(house.portal.verify_key)),
        "FARM_TERMINAL_COMMAND": f"{{python}} {TERMINAL} /portable /config:{{ini}}",
        "FARM_POOL": "0",
    }.items():
        monkeypatch.setenv(name, str(value))
    return Operator(house, capsys)


@pytest.mark.parametrize("argv", [[], ["dance"], ["start"], ["start", "--instance", "x"], ["clone", "--instance", "0"]])
def test_wrong_usage_is_exit_code_2(operator: Operator, argv: list[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == cli.USAGE


def test_a_missing_setting_is_named_and_is_exit_code_2(operator: Operator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FARM_HOST")
    code, said = operator("list")
    assert code == cli.USAGE
    assert "FARM_HOST" in said["detail"]


def test_an_unknown_instance_needs_a_folder(operator: Operator):
    code, said = operator("clone", "--instance", "17")
    assert code == cli.USAGE
    assert "--folder" in said["detail"]


def test_a_folder_that_leaves_the_farm_is_refused(operator: Operator):
    code, _ = operator("clone", "--instance", "17", "--folder", "../Masters")
    assert code == cli.USAGE


def test_the_folder_of_a_known_instance_is_not_changed(operator: Operator):
    operator.house.done("clone")
    code, said = operator("destroy", "--instance", "17", "--folder", "user_8")
    assert code == cli.USAGE
    assert "user_9" in said["detail"]


def test_what_cannot_be_done_is_exit_code_1_with_its_reason(operator: Operator):
    code, said = operator("start", "--instance", "17", "--folder", "user_9")
    assert (code, said["ok"], said["reason"]) == (cli.FAILED, False, "clone_missing")


def test_an_instance_can_be_lived_through_by_hand(operator: Operator):
    assert operator("clone", "--instance", "17", "--folder", "user_9", "--magic", "5")[0] == cli.DONE
    code, said = operator("start", "--instance", "17")
    assert code == cli.DONE
    assert said["observed"]["process"] == "running"
    assert not operator.house.ini.exists()
    assert operator("stop", "--instance", "17")[1]["observed"]["process"] == "stopped"
    assert operator("destroy", "--instance", "17")[0] == cli.DONE
    assert not operator.house.clone.exists()
    assert operator("destroy", "--instance", "17")[0] == cli.DONE


def test_a_start_by_hand_uses_the_account_that_was_injected(operator: Operator):
    house = operator.house
    house.done("clone")
    house.done("inject", **ACCOUNT)
    _, said = operator("start", "--instance", "17")
    assert said["observed"]["connection"] == Connection.CONNECTED


def test_an_operator_never_lowers_or_raises_the_generation(operator: Operator):
    house = operator.house
    house.done("clone", generation=41)
    operator("start", "--instance", "17")
    operator("stop", "--instance", "17")
    assert house.state().age == (1, 41)
    assert house.obey("destroy", generation=40).outcome is Outcome.REFUSED


def test_an_operators_stop_is_not_undone_by_the_supervision(operator: Operator):
    operator.house.running()
    operator("stop", "--instance", "17")
    assert operator.house.state().goal is Goal.STOPPED


def test_an_operator_waits_for_the_lock(operator: Operator, monkeypatch: pytest.MonkeyPatch):
    operator.house.done("clone")
    folder = operator.house.root / "State"
    monkeypatch.setattr(cli.Context, "held", lambda self, instance: locks.held(folder, instance, seconds=0.05))
    with locks.held(folder, 17):
        code, said = operator("stop", "--instance", "17")
    assert (code, said["reason"]) == (cli.FAILED, "too_slow")


def test_a_start_by_hand_that_dies_is_exit_code_1_and_leaves_nothing(operator: Operator, monkeypatch):
    operator.house.done("clone")
    monkeypatch.setenv("PAPER_QUIRKS", "dies")
    code, said = operator("start", "--instance", "17")
    assert (code, said["reason"]) == (cli.FAILED, "terminal_died")
    assert operator.house.processes() == []
    assert not operator.house.ini.exists()


def test_a_start_by_hand_that_was_refused_is_not_made_good_by_the_supervision(operator: Operator):
    house = operator.house
    house.done("clone")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        code, said = operator("start", "--instance", "17", "--port", str(stranger.getsockname()[1]))
        assert (code, said["reason"], said["observed"]["process"]) == (cli.FAILED, "port_taken", "stopped")
    assert (house.state().goal, house.state().reason) == (Goal.STOPPED, Reason.PORT_TAKEN)
    assert supervise.tend(house.context, first=True) == 0
    assert house.processes() == []


def test_a_start_by_hand_that_was_refused_leaves_what_runs_as_it_is_meant_to_be(operator: Operator):
    house = operator.house
    house.running(**ACCOUNT)
    state = house.state()
    state.injected = {**state.injected, "host": "beta"}
    house.context.save(state)
    code, said = operator("start", "--instance", "17")
    assert (code, said["reason"], said["observed"]["process"]) == (cli.FAILED, "unsealable", "running")
    assert house.state().goal is Goal.RUNNING


def test_an_account_comes_only_as_the_portals_signed_order(operator: Operator, monkeypatch: pytest.MonkeyPatch):
    house = operator.house
    house.done("clone")
    envelope = house.envelope(house.order("inject", **ACCOUNT))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(envelope)))
    assert operator("inject")[0] == cli.DONE
    assert house.state().injected is not None
    envelope["signature"] = protocol.b64(bytes(64))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(envelope)))
    assert operator("inject")[0] == cli.FAILED
    monkeypatch.setattr(sys, "stdin", io.StringIO("nonsense"))
    assert operator("inject")[0] == cli.USAGE


def test_stop_all_stops_everything_and_leaves_what_it_is_meant_to_be(operator: Operator):
    house = operator.house
    house.running(**ACCOUNT)
    code, said = operator("stop-all")
    assert (code, said["stopped"], said["left"]) == (cli.DONE, ["user_9"], [])
    assert house.processes() == []
    assert house.state().goal is Goal.RUNNING
    assert operator("stop-all") == (cli.DONE, {"ok": True, "stopped": [], "left": []})


def test_stop_all_stops_a_terminal_whose_state_is_lost_too(operator: Operator):
    house = operator.house
    house.running()
    (house.root / "State" / "17.json").unlink()
    assert operator("stop-all")[1]["stopped"] == ["user_9"]
    assert house.processes() == []


def test_list_and_survey_say_what_is_there(operator: Operator):
    operator.house.running()
    listed = operator("list")[1]["instances"][0]
    assert (listed["folder"], listed["goal"], listed["process"]) == ("user_9", "running", "running")
    assert operator("survey")[1]["instances"][0]["instance"] == 17


def test_keygen_prints_what_the_portal_pins_and_no_secret(operator: Operator, tmp_path: Path):
    path = tmp_path / "other.json"
    code, said = operator("keygen", "--file", str(path))
    assert code == cli.DONE
    made = keys.load(path)
    assert said["verify"] == protocol.b64(bytes(made.sign.verify_key))
    assert protocol.b64(bytes(made.sign)) not in json.dumps(said)
    assert operator("keygen", "--file", str(path))[0] == cli.FAILED


def test_the_master_is_checked_and_a_dry_run_changes_nothing(operator: Operator):
    code, said = operator("check-master")
    assert code in (cli.DONE, cli.FAILED)
    assert isinstance(said["findings"], list)
    before = sorted(operator.house.root.rglob("*"))
    assert operator("prepare-master", "--dry-run")[1]["dry_run"]
    assert sorted(operator.house.root.rglob("*")) == before


def test_help_names_every_command_and_setting(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for word in (*cli.COMMANDS, "FARM_ROOT", "FARM_TERMINAL_COMMAND", "Exit code"):
        assert word in said


def test_the_log_tells_the_facts_of_each_record():
    stream = io.StringIO()
    record = logging.makeLogRecord(
        {"name": "farm", "levelname": "INFO", "msg": "obeyed", "instance": 17, "verb": "stop"}
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Lines())
    handler.handle(record)
    assert stream.getvalue().endswith("INFO farm: obeyed instance=17 verb='stop'\n")


def test_no_password_is_printed(operator: Operator):
    house = operator.house
    house.running(**ACCOUNT)
    for command in ("list", "survey"):
        assert PASSWORD not in json.dumps(operator(command)[1])
