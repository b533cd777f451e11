"""How long a lease lasts by this host's clocks, and that nothing but a whole one is one."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from farm.agent import clocks, errors, lease, lease_file, pulse, tree
from farm.agent.lease import Lease, Moment
from farm.agent.pulse import Pulse

SENT = Moment(boot_id="b", since_boot=1000.0, wall=5000.0)
LEASE = Lease(nonce="n", seconds=120.0, sent=SENT)


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (SENT, 120.0),
        (Moment(boot_id="b", since_boot=1119.0, wall=5119.0), 1.0),
        (Moment(boot_id="b", since_boot=1120.0, wall=5120.0), 0.0),
        (Moment(boot_id="b", since_boot=1130.0, wall=1400.0), -10.0),  # the wall's clock was set back by an hour
        (Moment(boot_id="b", since_boot=1010.0, wall=8610.0), -3490.0),  # ... ahead by an hour
        (Moment(boot_id="b", since_boot=1010.0, wall=5400.0), -280.0),  # slept, and only the wall's clock went on
        (Moment(boot_id="b", since_boot=1400.0, wall=5010.0), -280.0),  # slept, and only the other one did
        (Moment(boot_id="c", since_boot=10.0, wall=5010.0), float("-inf")),  # rebooted
        (Moment(boot_id="c", since_boot=1010.0, wall=5010.0), float("-inf")),
    ],
)
def test_a_lease_is_as_old_as_the_clock_says_that_says_more(now: Moment, left: float):
    assert LEASE.left(now) == left
    assert LEASE.is_fresh(now) is (left > 0)


def test_a_moment_counts_the_time_that_the_machine_slept():
    now = clocks.moment()
    assert now.boot_id == clocks.moment().boot_id != ""
    assert 0 <= lease.since_boot() - now.since_boot < 60


def test_the_longest_stop_holds_silence_looks_grace_and_force():
    assert lease.longest_stop(5.0, 10.0) == 11 + 4 + 5 + 10
    assert lease.longest_stop(300.0, 10.0) == lease.longest_stop(15.0, 10.0)


# --- kept on the disk -------------------------------------------------------------------------------------------------


def test_a_lease_is_read_as_it_was_written_and_by_nobody_else(tmp_path: Path):
    lease_file.save(tmp_path, LEASE)
    assert lease_file.load(tmp_path) == LEASE
    assert stat.S_IMODE((tmp_path / "lease.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


@pytest.mark.parametrize("cut", [0, 1, 40, 130, 511])
def test_a_half_written_lease_is_none(tmp_path: Path, cut: int):
    lease_file.save(tmp_path, LEASE)
    whole = (tmp_path / "lease.json").read_bytes()
    (tmp_path / "lease.json").write_bytes(whole[:cut])
    assert lease_file.load(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"nonce":"n","seconds":120,"sent":{}}',
        b'{"nonce":"n","seconds":"long","sent":{"boot_id":"b","since_boot":1,"wall":1}}',
        b'{"nonce":"n","seconds":NaN,"sent":{"boot_id":"b","since_boot":1,"wall":1}}',
        b'{"nonce":"n","seconds":Infinity,"sent":{"boot_id":"b","since_boot":1,"wall":1}}',
        b'{"nonce":"n","seconds":1,"sent":{"boot_id":"b","since_boot":NaN,"wall":1}}',
        b"[" * 5000,
        bytes(512),
    ],
)
def test_what_is_no_lease_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "lease.json").write_bytes(content.ljust(512))
    assert lease_file.load(tmp_path) is None


def test_a_full_disk_does_not_keep_a_lease_from_being_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lease_file.save(tmp_path, LEASE)

    def full(path: Path, content: bytes, *, mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tree, "write", full)
    later = replace(LEASE, nonce="a later one, with a longer name", seconds=90000.0)
    lease_file.save(tmp_path, later)
    assert lease_file.load(tmp_path) == later


def test_a_lease_that_the_disk_will_not_have_is_a_typed_error(tmp_path: Path):
    (tmp_path / "lease.json").mkdir()
    with pytest.raises(errors.FolderTrouble):
        lease_file.save(tmp_path, LEASE)


# --- the watchdog's sign of life --------------------------------------------------------------------------------------

TICK = Pulse(watchdog="w", boot_id="b", since_boot=1000.0)


@pytest.mark.parametrize(
    ("now", "silent"),
    [
        (replace(SENT, since_boot=1010.0), False),
        (replace(SENT, since_boot=1010.1), True),
        (replace(SENT, since_boot=1001.0, wall=0.0), False),  # set clocks do not matter
        (replace(SENT, since_boot=999.0), True),  # it cannot be of this boot
        (replace(SENT, boot_id="c"), True),
    ],
)
def test_a_watchdog_is_silent_after_ten_seconds_and_after_a_reboot(now: Moment, silent: bool):
    assert TICK.is_silent(now) is silent


def test_ticks_are_written_over_each_other_and_take_no_room(tmp_path: Path):
    pulse.save(tmp_path, TICK)
    inode = (tmp_path / "watchdog.json").stat().st_ino
    later = replace(TICK, watchdog="another", since_boot=123456789.123, stopping=True)
    pulse.save(tmp_path, later)
    assert pulse.load(tmp_path) == later
    assert (tmp_path / "watchdog.json").stat().st_ino == inode
    assert os.path.getsize(tmp_path / "watchdog.json") == 256


@pytest.mark.parametrize("content", [b"", b"null", b"{}", json.dumps({"watchdog": "w"}).encode()])
def test_what_is_no_tick_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "watchdog.json").write_bytes(content)
    assert pulse.load(tmp_path) is None
