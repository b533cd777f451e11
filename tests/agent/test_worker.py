"""The worker as a process, with a real broker: orders in, reports out, and terminals that outlive it."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from nacl.signing import SigningKey

from farm.agent import protocol
from farm.agent.protocol import Outcome, Process
from tests.agent.house import ACCOUNT, House
from tests.agent.workers import Farm
from tests.waiting import until


@pytest.fixture
def farm(house: House, tmp_path: Path) -> Iterator[Farm]:
    made = Farm(house, tmp_path)
    made.environment()
    try:
        yield made
    finally:
        made.end()


def test_a_forged_order_is_neither_obeyed_nor_answered_and_the_next_one_is(farm: Farm):
    farm.serve_broker()
    farm.work()
    farm.send(protocol.sign(farm.house.order("clone", instance=66, folder="user_66"), SigningKey.generate()))
    farm.send({"body": "{", "signature": "?"})
    report = farm.done("clone")
    assert report.instance == 17
    assert not (farm.house.root / "Users" / "user_66").exists()


def test_the_whole_life_of_an_instance_through_the_queue(farm: Farm):
    farm.serve_broker()
    farm.work()
    assert farm.survey_where(lambda survey: survey.master_ok).host == "alpha"
    farm.done("clone")
    farm.done("inject", **ACCOUNT)
    began = time.monotonic()
    report = farm.done("start", **ACCOUNT)
    took = time.monotonic() - began
    assert report.observed.connection is protocol.Connection.CONNECTED
    assert took < 5
    assert not farm.house.ini.exists()
    assert farm.survey_where(lambda survey: survey.instances and survey.instances[0].heartbeat)
    farm.done("stop")
    farm.done("destroy")
    assert not farm.house.clone.exists()


def test_a_change_is_surveyed_at_once_and_not_at_the_next_turn(farm: Farm):
    farm.serve_broker()
    farm.work(FARM_SURVEY_SECONDS="300")
    farm.survey_where(lambda survey: survey.master_ok)
    farm.done("clone")
    farm.done("inject", **ACCOUNT)
    farm.done("start", **ACCOUNT)
    connected = protocol.Connection.CONNECTED
    farm.survey_where(lambda survey: survey.instances and survey.instances[0].connection is connected)
    command = farm.house.clone / "MQL5/Files/bitten/commands/drop.json"
    command.write_text(json.dumps({"do": "drop_connection"}))
    lost = protocol.Connection.LOST
    farm.survey_where(lambda survey: survey.instances and survey.instances[0].connection is lost)


def test_terminals_outlive_the_worker_and_are_re_attached_by_the_next(farm: Farm):
    farm.serve_broker()
    worker = farm.work()
    farm.done("clone")
    pid = farm.done("start").observed.pid
    worker.terminate()
    assert worker.wait(20) == 0
    assert psutil.pid_exists(pid)
    farm.work()
    assert farm.done("start").observed.pid == pid


def test_a_killed_workers_crashed_terminal_comes_up_though_the_broker_is_gone(farm: Farm):
    farm.house.running()
    farm.house.kill()
    state = farm.house.state()
    state.launch = None
    farm.house.context.save(state)
    farm.work()
    assert until(farm.house.processes, seconds=20)


def test_a_broker_that_comes_late_gets_the_first_survey_and_its_orders_obeyed(farm: Farm):
    worker = farm.work()
    until(lambda: b"Cannot connect" in (farm.folder / "worker.log").read_bytes(), seconds=20)
    farm.serve_broker()
    assert farm.survey_where(lambda survey: survey.master_ok)
    farm.order("clone")
    assert farm.report().outcome is Outcome.DONE
    assert worker.poll() is None


def test_a_broker_that_accepts_and_never_answers_does_not_stop_the_supervision(farm: Farm):
    farm.house.running()
    with socket.create_server(("127.0.0.1", farm.port)):
        worker = farm.work()
        farm.house.kill()
        with farm.house.context.held(
            17
        ):  # nobody could tell what it ended with, and would wait for an update's relaunch
            state = farm.house.state()
            state.launch = None
            farm.house.context.save(state)
        assert until(farm.house.processes, seconds=40)
        assert worker.poll() is None


def test_a_start_under_way_when_the_worker_is_killed_is_answered_by_the_next(farm: Farm):
    farm.house.account("slow=2")
    farm.serve_broker()
    worker = farm.work()
    farm.done("clone")
    farm.done("inject", **ACCOUNT)
    farm.order("start", **ACCOUNT)
    until(farm.house.processes)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    farm.work()
    report = farm.report()
    assert (report.verb, report.outcome) == (protocol.Verb.START, Outcome.DONE)
    assert report.observed.process is Process.RUNNING


def test_a_second_worker_on_one_farm_is_refused_and_the_first_goes_on(farm: Farm):
    farm.serve_broker()
    first = farm.work()
    assert farm.survey_where(lambda survey: survey.master_ok)
    second = farm.work()
    assert second.wait(30) == 1
    assert first.poll() is None
    farm.order("clone")
    assert farm.report().outcome is Outcome.DONE
