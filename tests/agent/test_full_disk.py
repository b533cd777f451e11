"""A real disk that is full, or can no longer be written: what fails says so, and what must go on goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm.agent import clocks, errors, lease_file, pool, pulse, purge, reserve, supervise, verbs
from farm.agent import context as contexts
from farm.agent.lease import Lease
from farm.agent.protocol import Credentials, Outcome, Reason
from farm.agent.pulse import Pulse
from tests.agent.house import ACCOUNT, PASSWORD, House, end_all

pytestmark = pytest.mark.usefixtures("needs_root")

MEGABYTES = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 of this test's own."""
    image, point = tmp_path / "image", tmp_path / "disk"
    point.mkdir()
    image.touch()
    os.truncate(image, MEGABYTES << 20)
    maker = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin")
    assert maker, "needs mkfs.ext4: apt-get install e2fsprogs"
    subprocess.run([maker, "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def house(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("PAPER_ACCOUNTS", str(tmp_path / "accounts.json"))
    monkeypatch.delenv("PAPER_QUIRKS", raising=False)
    (disk / "farm").mkdir()
    made = House(disk / "farm", tmp_path / "accounts.json")
    try:
        yield made
    finally:
        end_all(made.settings.users)


def fill(disk: Path) -> Path:
    """Leave not one block free."""
    filler = disk / "filler"
    size = 1 << 20
    with filler.open("ab", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
                os.fsync(file.fileno())
            except OSError:
                size //= 2
    return filler


def test_no_order_is_obeyed_that_cannot_be_written_down(house: House, disk: Path):
    house.done("clone")
    before = house.state()
    fill(disk)
    report = house.report("inject", **ACCOUNT)
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.DISK_FULL)
    assert house.state() == before
    assert sorted(path.name for path in (house.root / "State").iterdir()) == ["17.before", "17.json", "17.lock"]


def test_a_clone_that_does_not_fit_leaves_nothing_and_works_once_there_is_room(house: House, disk: Path):
    big = house.root / "Masters" / "BITTEN_MASTER" / "Bases" / "big.dat"
    big.parent.mkdir()
    big.write_bytes(os.urandom(6 << 20))
    reserve.keep(house.root / "State")
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - (3 << 20)))
    report = house.report("clone")
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.DISK_FULL)
    assert os.listdir(house.root / "Users") == os.listdir(house.root / "Pool") == []
    filler.unlink()
    house.done("clone")
    assert (house.clone / "Bases" / "big.dat").read_bytes() == big.read_bytes()


def test_a_destroy_is_obeyed_on_a_full_disk_and_makes_room(house: House, disk: Path):
    house.running(**ACCOUNT)
    reserve.keep(house.root / "State")
    fill(disk)
    house.context = contexts.opened(replace(house.settings, link="auto"), house.keys)  # the agent was started again
    house.done("destroy")
    assert house.processes() == []
    purge.purge(house.root, things=10**6, seconds=60)
    assert os.listdir(house.root / "Users") == os.listdir(house.root / "Trash") == []
    assert house.state().tombstone
    supervise.prune(house.context)
    assert (house.root / "State" / reserve.NAME).exists()


def test_a_start_that_cannot_write_its_start_up_file_leaves_none(
    house: House, disk: Path, monkeypatch: pytest.MonkeyPatch
):
    house.done("clone")
    house.done("inject", **ACCOUNT)
    write = verbs._write_ini

    def just_then(ini: Path, found: Credentials | None) -> None:
        fill(disk)
        write(ini, found)

    with monkeypatch.context() as patch:
        patch.setattr(verbs, "_write_ini", just_then)
        report = house.report("start", **ACCOUNT)
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.DISK_FULL)
    assert not house.ini.exists()
    assert house.processes() == []
    assert PASSWORD.encode("utf-16-le") not in b"".join(p.read_bytes() for p in house.clone.rglob("*") if p.is_file())
    (disk / "filler").unlink()
    house.done("start", generation=house.generation, **ACCOUNT)


def test_a_full_disk_makes_the_pool_rest_and_leaves_nothing_half_built(
    house: House, disk: Path, monkeypatch: pytest.MonkeyPatch
):
    ready = pool.Pool(house.root, 2, house.context.modes)
    (house.root / "Pool").mkdir()
    fill(disk)
    monkeypatch.setattr(pool.Pool, "_has_room", lambda *_: True)  # it looked just before
    with pytest.raises(errors.DiskFull):
        ready.refill()
    assert os.listdir(house.root / "Pool") == []
    assert not ready.refill()


def test_a_disk_that_became_read_only_is_said_to_be(house: House, disk: Path):
    house.done("clone")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    report = house.report("inject", **ACCOUNT)
    assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.READ_ONLY)
    assert house.context.watch.observe(house.state()).present


def test_a_lease_is_renewed_and_the_watchdog_ticks_on_a_full_disk(house: House, disk: Path):
    state = house.settings.state_folder
    state.mkdir()
    now = clocks.moment()
    first = Lease(nonce="first", seconds=120.0, sent=now)
    lease_file.save(state, first)
    pulse.save(state, Pulse(watchdog="w", boot_id=now.boot_id, since_boot=1.0))
    fill(disk)
    second = replace(first, nonce="second, and longer than the first", seconds=7200.0)
    lease_file.save(state, second)
    assert lease_file.load(state) == second
    pulse.save(state, Pulse(watchdog="w", boot_id=now.boot_id, since_boot=1234567.25))
    assert pulse.load(state).since_boot == 1234567.25
