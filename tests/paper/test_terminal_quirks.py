"""How the paper terminal misbehaves when it is asked to: each as a real process."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.paper.conftest import LOGIN, SERVER, Clone
from tests.waiting import until

AUTHORIZED = f"'{LOGIN}': authorized on MetaQuotes-Demo through Access Point EU 1 (ping: 44.17 ms, build 3683)"
SCANNING = f"'{LOGIN}': scanning network for access points"
LOST = f"'{LOGIN}': connection to {SERVER} lost"


def test_a_slow_broker_keeps_one_waiting(clone: Clone) -> None:
    clone.know(quirks=["slow=0.4"])
    started = time.monotonic()
    clone.start()
    clone.hears(SCANNING)
    assert clone.beat()["connected"] is False
    clone.hears(AUTHORIZED)
    assert time.monotonic() - started > 0.4


def test_a_slow_broker_says_no_slowly_too(clone: Clone) -> None:
    clone.write_ini(password="wrong")
    clone.start(quirks="slow=0.2")
    clone.hears(f"'{LOGIN}': authorization on {SERVER} failed (Invalid account)")


def test_a_silent_broker_is_tried_and_never_answers(clone: Clone) -> None:
    clone.start(quirks="noanswer")
    clone.hears(SCANNING)
    clone.beat()
    assert clone.said("Network") == [SCANNING]


def test_a_lost_connection_comes_back_by_itself(clone: Clone) -> None:
    clone.start(quirks="relogin=0.1")
    clone.hears(LOST)
    clone.hears(AUTHORIZED, times=2)


def test_the_journal_can_reach_the_disk_late_with_the_time_it_was_said_at(clone: Clone) -> None:
    process = clone.start(quirks="late_journal=0.5")
    clone.beat()
    assert clone.lines() == []
    clone.hears(AUTHORIZED)
    assert time.time() - (clone.bridge / "account.json").stat().st_mtime >= 0.4
    clone.stop(process)
    assert clone.said()[-1] == "stopped with 0"


def test_a_crash_is_sudden(clone: Clone) -> None:
    assert clone.start(quirks="crash=0.1").wait(5) == 3
    assert AUTHORIZED in clone.said()
    assert "exit with code 0" not in clone.said()


def test_a_crash_needs_no_account(clone: Clone) -> None:
    assert clone.start("/portable", quirks="crash=0").wait(5) == 3


def test_a_hung_terminal_writes_no_heartbeat_and_hears_no_stop(clone: Clone) -> None:
    process = clone.start(quirks="hang=0.1")
    clone.beat()
    quiet = until(lambda: time.time() - (clone.bridge / "heartbeat.json").stat().st_mtime > 0.3)
    assert quiet
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    last = clone.file("heartbeat")
    until(lambda: time.time() - (clone.bridge / "heartbeat.json").stat().st_mtime > 0.6)
    assert process.poll() is None
    assert clone.file("heartbeat") == last


def test_a_deaf_terminal_works_on_when_told_to_stop(clone: Clone) -> None:
    process = clone.start(quirks="deaf")
    clone.beat()
    process.send_signal(signal.SIGTERM)
    clone.beat()
    clone.beat()
    assert process.poll() is None


def test_one_that_dies_at_once_says_nothing(clone: Clone) -> None:
    clone.know(quirks=["dies"])
    assert clone.start().wait(5) == 1
    assert clone.lines() == []


def test_one_that_forks_goes_on_under_another_pid_in_the_same_folder(clone: Clone) -> None:
    launcher = clone.start(quirks="fork")
    assert launcher.wait(5) == 0
    clone.hears(AUTHORIZED)
    (heir,) = clone.processes()
    assert heir.pid != launcher.pid
    assert heir.cwd() == str(clone.folder)
    heir.terminate()
    clone.hears("stopped with 0")


def test_a_flood_fills_the_journal_and_a_stop_is_still_heard(clone: Clone) -> None:
    process = clone.start(quirks="flood=1000")
    until(lambda: sum(path.stat().st_size for path in clone.folder.glob("logs/*.log")) > 5_000_000)
    clone.stop(process)
    (path,) = clone.folder.glob("logs/*.log")
    assert path.stat().st_size < 1000 * 2**20
    assert path.read_bytes()[-200:].decode("utf-16-le").endswith("stopped with 0\r\n")


def test_a_flood_ends(clone: Clone) -> None:
    clone.start(quirks="flood=2")
    (path,) = until(lambda: list(clone.folder.glob("logs/*.log")))
    until(lambda: path.stat().st_size > 2_000_000)
    clone.beat()
    clone.beat()
    assert path.stat().st_size < 2_200_000


def updated(clone: Clone, quirks: str) -> psutil.Process:
    """Start, wait for the update and for what runs after it."""
    process = clone.start(quirks=quirks)
    assert process.wait(5) == 0
    clone.ini.unlink()
    clone.hears(AUTHORIZED, times=2)
    (heir,) = clone.processes()
    assert heir.pid != process.pid
    return heir


UPDATE = [
    "new version build 5950 (IDE: 5950, Tester: 5950) is available",
    "'mt5clw64' downloaded (35300 kb)",
    "downloaded successfully",
    r'start "C:\Users\paper\AppData\Roaming\MetaQuotes\Terminal\PAPER\liveupdate\terminal64.exe"'
    ' /update /path:"{folder}" /portable',
    "updating...",
    "'{folder}/terminal64.exe' updated",
    "updated successfully",
]


def test_an_update_rewrites_the_executable_in_place_and_goes_on_under_another_pid(clone: Clone, tmp_path: Path) -> None:
    executable = clone.folder / "terminal64.exe"
    linked = tmp_path / "master.exe"
    os.link(executable, linked)
    before = executable.read_bytes()
    heir = updated(clone, "update=0.1")
    assert clone.said("LiveUpdate") == [line.format(folder=clone.folder) for line in UPDATE]
    assert executable.read_bytes() != before
    assert len(executable.read_bytes()) == len(before)
    assert linked.read_bytes() == executable.read_bytes(), "what is linked to it must suffer: that is the danger"
    assert heir.cmdline()[-2].startswith("/skipupdate:")
    assert heir.cmdline()[-1] == "/portable"
    assert "MetaTrader 5 x64 build 5950 started for MetaQuotes Ltd." in clone.said()
    assert f"update {clone.folder}/MQL5 folder started" in clone.said()
    beat = until(lambda: now if (now := clone.beat())["connected"] else {})
    assert beat["build"] == 5950


def test_a_folder_is_updated_once(clone: Clone) -> None:
    heir = updated(clone, "update=0.05")
    heir.terminate()
    clone.hears("stopped with 0", times=2)
    process = clone.start(quirks="update=0.05")
    clone.hears(AUTHORIZED, times=3)
    clone.beat()
    clone.stop(process)
    assert len(clone.said("LiveUpdate")) == len(UPDATE)


def test_the_ea_can_be_lost_in_an_update(clone: Clone) -> None:
    process = clone.start(quirks="update=0.05,ea_lost")
    assert process.wait(5) == 0
    last = clone.file("heartbeat")
    clone.hears(AUTHORIZED, times=2)
    assert clone.processes()
    until(lambda: time.time() - (clone.bridge / "heartbeat.json").stat().st_mtime > 1.0)
    assert clone.file("heartbeat") == last
    assert len(clone.said("Experts")) == 1


def test_an_update_of_a_folder_that_was_destroyed_meanwhile_starts_nothing(clone: Clone) -> None:
    assert clone.start(quirks="update=0.05").wait(5) == 0
    until(clone.processes)
    trash = clone.folder.with_name("trash")
    clone.folder.rename(trash)
    until(lambda: not clone.processes())
    assert (trash / "terminal64.exe").read_bytes() == b"MZ" + bytes(4096)
    assert not clone.folder.exists()


def purged(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)  # whatever it writes meanwhile goes in the next turn
    return not folder.exists()


def test_one_whose_folder_was_purged_under_it_goes_on_and_still_stops(clone: Clone) -> None:
    process = clone.start()
    clone.hears(AUTHORIZED)
    until(lambda: clone.file("heartbeat"))
    until(lambda: purged(clone.folder))
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_a_broker_that_cannot_keep_its_records_still_lets_one_in(clone: Clone) -> None:
    clone.accounts.with_name("accounts.json.positions").write_text("a file where the folder should be")
    clone.start()
    clone.hears(f"can't write {clone.accounts}.positions: File exists")
    assert clone.beat()["connected"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_is_quick(clone: Clone, number: signal.Signals) -> None:
    (clone.bridge / "bridge.json").write_text('{"schema":1,"timer_ms":60000}')
    process = clone.start()
    clone.hears(AUTHORIZED)
    until(lambda: clone.file("heartbeat"))
    told = time.monotonic()
    process.send_signal(number)
    assert process.wait(5) == 0
    assert time.monotonic() - told < 1  # not the 60 seconds of its timer
    assert clone.said()[-3:] == ["exit with code 0", f"'{LOGIN}': disconnected from {SERVER}", "stopped with 0"]
