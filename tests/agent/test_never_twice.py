"""Ways round the fence on the host itself: another name, another policy, a folder taken away, an operator's hand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from farm.agent import cli, processes
from farm.agent.protocol import Outcome, Policy, Process, Reason
from farm.agent.settings import Settings
from farm.agent.supervise import tend
from tests.agent.house import ACCOUNT, House
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


# --- its folder is taken away -----------------------------------------------------------------------------------------


@pytest.fixture
def away(house: House) -> Iterator[Path]:
    """Where the folder of a live terminal that runs was moved to."""
    house.running(**LIVE)
    proc = house.processes()[0]
    place = house.root / "away"
    shutil.move(house.clone, place)
    yield place
    if processes.is_alive(proc):
        psutil.Process(proc.pid).kill()
    until(lambda: processes.reap() or not processes.is_alive(proc))


@pytest.mark.parametrize("verb", ["stop", "destroy"])
def test_a_terminal_whose_folder_was_moved_away_is_not_called_stopped_while_it_runs(house: House, away: Path, verb):
    pid = house.state().launch.pid
    report = house.obey(verb)
    assert (report.outcome, report.observed.process, report.observed.pid) == (Outcome.FAILED, Process.RUNNING, pid)
    assert not house.state().tombstone
    scan = processes.scan(house.settings.users)
    assert house.context.watch.observe(house.state(), scan=scan).process is Process.RUNNING
    psutil.Process(pid).kill()
    until(lambda: processes.reap() or not psutil.pid_exists(pid))
    assert house.obey(verb).outcome is Outcome.DONE


@pytest.mark.parametrize("verb", ["stop", "destroy"])
def test_one_that_is_known_by_its_name_is_stopped_though_its_folder_is_gone(house: House, verb):
    house.done("clone")
    shutil.rmtree(house.clone)
    terminal = subprocess.Popen([str(house.clone / "terminal64.exe"), "1000"], executable="/bin/sleep")
    try:
        assert house.obey(verb).outcome is Outcome.DONE
        assert terminal.poll() is not None
    finally:
        terminal.kill()
        terminal.wait()


# --- the machine is made another host ---------------------------------------------------------------------------------


def test_what_was_ordered_under_another_name_is_not_started_again_under_a_new_one(house: House):
    """The portal takes the old host for lost, and runs its accounts elsewhere."""
    house.running(**LIVE)
    house.kill()
    house.anew(host="beta")
    for _ in range(10):
        house.clock.ahead += 60
        assert tend(house.context, first=True) == 0
    assert house.processes() == []


# --- the host is made static ------------------------------------------------------------------------------------------


def test_what_ran_under_a_lease_is_started_on_a_static_host_only_by_an_order(kennel: Kennel):
    """A host that was cut off has lost it to another one; making it static there must not bring it up a second time."""
    dog = kennel.watch()
    kennel.grant(LONG)
    house = kennel.house
    house.running(**LIVE)
    dog.terminate()
    dog.wait()
    until(lambda: not house.processes())
    house.anew(policy=Policy.STATIC)
    for _ in range(3):
        house.clock.ahead += 60
        assert tend(house.context, first=True) == 0
    assert (house.processes(), house.state().reason) == ([], Reason.NO_LEASE)
    house.done("start", **LIVE)
    house.kill()
    house.clock.ahead += 60
    assert tend(house.context, first=True) == 1


def test_what_was_stopped_for_its_lease_is_not_started_on_a_static_host_either(kennel: Kennel):
    kennel.watch()
    kennel.grant(LONG)
    house = kennel.house
    house.running(**LIVE)
    kennel.end()
    until(lambda: not house.processes())
    assert tend(house.context) == 0
    assert house.state().reason is Reason.NO_LEASE
    house.anew(policy=Policy.STATIC)
    assert tend(house.context, first=True) == 0
    assert house.processes() == []


def test_what_ran_as_static_is_stopped_by_the_first_look_of_a_watchdog_without_a_lease(kennel: Kennel):
    house = kennel.house
    house.anew(policy=Policy.STATIC)
    house.running(**LIVE)
    kennel.watch()
    until(lambda: processes.reap() or not house.processes(), seconds=20)


# --- an operator's hand -----------------------------------------------------------------------------------------------


def test_an_operator_cannot_start_a_live_one_as_a_demo_which_needs_no_lease(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    house.running(**LIVE)
    house.done("stop")
    house.anew(policy=Policy.FENCED)
    monkeypatch.setattr(Settings, "from_environment", lambda: replace(house.settings))
    monkeypatch.setattr(cli, "_context", lambda settings: house.context)
    assert cli.main(["start", "--instance", "17", "--kind", "press pass"]) == cli.USAGE
    assert house.processes() == []
