"""The observer of `make chaos` counts what runs, whoever says what; else its log would prove nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import observer, report
from benchmarks.chaos.people import Crowd
from tests.waiting import until

TERMINAL = Path(__file__).resolve().parents[2] / "farm" / "paper" / "terminal.py"
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
ACCOUNT = "PaperBroker-Live-7000001"


class Floor:
    """Paper terminals in folders of their own, all on one account, with a stack's mark."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seats, self.mark = folder, folder / "seats", str(folder)
        self.seats.mkdir()
        self.table = observer.Table(self.mark)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *, mark: str | None = None) -> subprocess.Popen[bytes]:
        clone = self.folder / f"user_{len(self.started)}"
        (clone / "Config").mkdir(parents=True)
        ini = clone / "Config" / "start.ini"
        ini.write_text("[Common]\nLogin=7000001\nServer=PaperBroker-Live\nPassword=x\n")
        env = {"PATH": os.environ["PATH"], "PAPER_SEATS": str(self.seats), "BITTEN_STACK": mark or self.mark}
        argv = [sys.executable, "-I", "-S", str(TERMINAL), "/portable", f"/config:{ini}"]
        process = subprocess.Popen(argv, cwd=clone, env=env, stdin=subprocess.DEVNULL)
        self.started.append(process)
        until(lambda: list(self.seats.rglob(str(process.pid))))
        return process

    def counted(self) -> dict[str, list[int]]:
        return observer.copies(self.seats, self.table.terminals())


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    yield floor
    for process in floor.started:
        process.kill()
        process.wait()


def test_two_terminals_of_one_account_are_two(floor) -> None:
    pids = sorted([floor.start().pid, floor.start().pid])
    assert {account: sorted(found) for account, found in floor.counted().items()} == {ACCOUNT: pids}
    assert observer.sample(floor.seats, floor.table)["doubled"] == [ACCOUNT]


def test_one_that_hangs_counts_until_it_is_gone(floor) -> None:
    hanging = floor.start()
    hanging.send_signal(signal.SIGSTOP)
    assert floor.counted() == {ACCOUNT: [hanging.pid]}
    hanging.kill()
    until(lambda: Path(f"/proc/{hanging.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert floor.counted() == {}, "a zombie trades no more"


def test_a_pid_that_another_terminal_was_given_since_is_no_copy(floor) -> None:
    pid = floor.start().pid
    old = floor.seats / "PaperBroker-Live-7000002" / str(pid)
    old.parent.mkdir()
    old.touch()
    os.utime(old, (1, 1))
    assert floor.counted() == {ACCOUNT: [pid]}


def test_terminals_of_another_stack_are_not_counted(floor) -> None:
    floor.start(mark="/somewhere/else")
    assert floor.counted() == {}


# --- what is made of its log ------------------------------------------------------------------------------------------


def seen(folder: Path, *samples: dict[str, object]) -> dict[str, object]:
    log = folder / "observer.jsonl"
    log.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return report.observed(log)


def sample(at: float, **accounts: list[int]) -> dict[str, object]:
    named = {name.replace("_", "-"): pids for name, pids in accounts.items()}
    doubled = [name for name, pids in named.items() if len(pids) > 1]
    return {"since_boot": at, "terminals": len(named), "accounts": named, "doubled": doubled}


QUIET: dict[str, Any] = {"unrest": [], "wrong": []}


def crowd() -> Crowd:
    return Crowd(stack=Namespace(), rng=Namespace())  # type: ignore[arg-type]


def test_one_double_in_one_sample_is_a_violation(tmp_path) -> None:
    once, twice = sample(0, PaperBroker_Live_1=[1]), sample(0.5, PaperBroker_Live_1=[1, 2])
    found = seen(tmp_path, once, twice, sample(1.0, PaperBroker_Live_1=[2]))
    assert found["most_copies_of_a_live_account"] == 2
    assert report.violations(found, QUIET, crowd()) == ["PaperBroker-Live-1 ran more than once, in 1 samples"]


def test_an_observer_that_saw_nothing_or_looked_away_has_proven_nothing(tmp_path) -> None:
    nothing = seen(tmp_path, sample(0), sample(0.5))
    assert report.violations(nothing, QUIET, crowd()) == ["the observer saw no live account at all"]
    away = seen(tmp_path, sample(0, PaperBroker_Live_1=[1]), sample(6.0, PaperBroker_Live_1=[1]))
    assert report.violations(away, QUIET, crowd()) == ["the observer did not look for 6.0 s"]


def test_what_holds_is_no_violation(tmp_path) -> None:
    found = seen(tmp_path, sample(0, PaperBroker_Live_1=[1]), sample(0.5, PaperBroker_Live_1=[1]))
    assert report.violations(found, QUIET, crowd()) == []
