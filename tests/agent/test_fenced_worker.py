"""Worker and watchdog as processes, a broker, and a keeper of leases: whatever one of them does, live terminals stop
in time, and come up again when they may."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from nacl.signing import SigningKey

from farm.agent import clocks, lease, lease_file, protocol
from farm.agent.lease import Lease
from farm.agent.protocol import LeaseGrant
from tests.agent.house import ACCOUNT, House
from tests.agent.workers import Farm
from tests.waiting import until

LIVE = {"kind": "live", **ACCOUNT}
LEASE_SECONDS = 5.0


@pytest.fixture
def farm(house: House, tmp_path: Path) -> Iterator[Farm]:
    made = Farm(house, tmp_path)
    made.environment()
    try:
        yield made
    finally:
        made.end()


def fenced(farm: Farm, *, seconds: float = LEASE_SECONDS) -> int:
    """A host at work, its live terminal running; return that one's pid."""
    farm.serve_broker()
    farm.keep_leases(seconds=seconds)
    farm.watch(FARM_POLICY="fenced")
    farm.work(FARM_POLICY="fenced")
    farm.survey_where(lambda survey: survey.lease_left)
    farm.done("clone")
    farm.done("inject", **LIVE)
    return farm.done("start", **LIVE).observed.pid


def kept(farm: Farm) -> Lease:
    found = lease_file.load(farm.house.settings.state_folder)
    assert found is not None
    return found


def gone(farm: Farm, *, seconds: float = 20.0) -> None:
    until(lambda: not farm.house.processes(), seconds=seconds)


def test_leases_are_asked_for_and_granted_again_and_again_and_the_terminal_runs_on(farm: Farm):
    pid = fenced(farm)
    first = kept(farm)
    until(lambda: not first.is_fresh(clocks.moment()))
    assert [proc.pid for proc in farm.house.processes()] == [pid]
    assert len({request.nonce for request in farm.keeper.requests}) >= LEASE_SECONDS - 1


def test_forged_replayed_and_other_hosts_grants_are_logged_and_lengthen_nothing(farm: Farm):
    fenced(farm)
    request = farm.keeper.requests[-1]
    fields = {"host": "alpha", "nonce": request.nonce, "boot_id": request.boot_id, "seconds": 3600.0}
    farm.keeper.send(protocol.sign(LeaseGrant(**fields), SigningKey.generate()))
    farm.keeper.send(protocol.sign(LeaseGrant(**{**fields, "host": "beta"}), farm.house.portal))
    farm.keeper.send(protocol.sign(LeaseGrant(**{**fields, "nonce": "never asked"}), farm.house.portal))
    farm.keeper.send({"body": "{", "signature": "?"})
    farm.keeper.send(farm.keeper.grants[0])
    log = farm.folder / "worker.log"
    until(lambda: log.read_bytes().count(b"refused a lease") == 4)
    assert kept(farm).seconds == LEASE_SECONDS


def test_the_agents_death_stops_live_terminals_when_the_lease_is_over(farm: Farm):
    fenced(farm)
    farm.workers[1].send_signal(signal.SIGKILL)
    farm.workers[1].wait()
    last = kept(farm)
    assert farm.house.processes()
    gone(farm)
    assert -last.left(clocks.moment()) < lease.TICK_SECONDS + lease.SCAN_SECONDS


def test_an_agent_that_hangs_stops_no_later_and_goes_on_afterwards(farm: Farm):
    first = fenced(farm)
    farm.workers[1].send_signal(signal.SIGSTOP)
    gone(farm)
    farm.workers[1].send_signal(signal.SIGCONT)
    assert until(farm.house.processes, seconds=20)[0].pid != first
    assert farm.house.state().crashes == []


def test_killing_the_agents_whole_process_group_leaves_the_watchdog_to_stop_them(farm: Farm):
    pid = fenced(farm)
    worker, watchdog = farm.workers[1], farm.workers[0]
    assert os.getpgid(worker.pid) == worker.pid
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert watchdog.poll() is None
    assert psutil.pid_exists(pid)
    gone(farm)


def test_a_broker_that_is_gone_stops_them_and_one_that_is_back_starts_them_again(farm: Farm):
    first = fenced(farm)
    farm.keeper.stop()
    farm.broker.stop()
    gone(farm)
    farm.serve_broker()
    farm.keep_leases(seconds=LEASE_SECONDS)
    assert until(farm.house.processes, seconds=30)[0].pid != first
    assert farm.house.state().crashes == []


def test_a_watchdog_that_hangs_is_replaced_by_the_agent_in_time(farm: Farm):
    fenced(farm, seconds=600.0)
    farm.workers[0].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert farm.house.processes()
    gone(farm, seconds=lease.SILENT_SECONDS + 2 * lease.TICK_SECONDS + lease.SCAN_SECONDS)
    assert time.monotonic() - began > lease.SILENT_SECONDS - 2 * lease.TICK_SECONDS
    farm.workers[0].send_signal(signal.SIGCONT)
    assert until(farm.house.processes, seconds=20)
    assert farm.house.state().crashes == []


def test_a_restarted_agent_finds_its_live_terminals_as_they_were(farm: Farm):
    pid = fenced(farm, seconds=60.0)
    farm.workers[1].terminate()
    assert farm.workers[1].wait(20) == 0
    farm.work(FARM_POLICY="fenced")
    farm.survey_where(lambda survey: survey.instances and survey.instances[0].pid == pid)
    assert farm.done("start", **LIVE).observed.pid == pid


def test_nothing_is_asked_for_and_nothing_live_started_without_a_watchdog(farm: Farm):
    farm.serve_broker()
    keeper = farm.keep_leases(seconds=LEASE_SECONDS)
    farm.work(FARM_POLICY="fenced")
    assert not farm.survey_where(lambda survey: survey.master_ok).watchdog_ok
    farm.done("clone")
    farm.done("inject", **LIVE)
    farm.order("start", **LIVE)
    assert farm.report().reason is protocol.Reason.NO_LEASE
    assert keeper.requests == []
