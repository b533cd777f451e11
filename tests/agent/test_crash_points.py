"""Every verb is killed after each of its side effects, and delivered again: the same end, and nothing left over.

The points are found by running the verb once with the list turned on, not written down here; only how few there may be
is, so that a verb whose file operations are no longer marked fails.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from farm.agent import keys, protocol, purge
from farm.agent.protocol import Outcome, Report
from tests.agent.house import ACCOUNT, TERMINAL, House, end_all

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not of Windows")


@dataclass(frozen=True)
class Case:
    verb: str
    before: Callable[[House], Any]
    fewest: int
    """As many as the verb has file operations with the tiny master: fewer means that some are not marked."""
    account: bool = False
    pool: int = 0


def nothing(house: House) -> None:
    """The verb is the instance's first."""


def warm(house: House) -> None:
    pool = house.anew(pool=1).pool
    assert pool is not None
    while pool.refill():
        continue


def cloned(house: House) -> None:
    house.done("clone")


def injected(house: House) -> None:
    house.done("clone")
    house.done("inject", **ACCOUNT)


def running(house: House) -> None:
    house.running(**ACCOUNT)


CASES = {
    "clone": Case("clone", nothing, fewest=19),
    "clone from the pool": Case("clone", warm, fewest=11, pool=1),
    "inject": Case("inject", cloned, fewest=6, account=True),
    "start": Case("start", injected, fewest=20, account=True),
    "start without account": Case("start", cloned, fewest=20),
    "stop": Case("stop", running, fewest=8),
    "destroy": Case("destroy", running, fewest=10),
    "destroy before clone": Case("destroy", nothing, fewest=6),
}


class Sweep:
    def __init__(self, house: House, folder: Path, case: Case) -> None:
        self.house, self.folder, self.case = house, folder, case
        house.keys = keys.generate(folder / "keys.json")
        house.anew()
        case.before(house)
        account = ACCOUNT if case.account else {}
        self.envelope = json.dumps(house.envelope(house.order(case.verb, **account)))
        self.kept = folder / "kept"
        self.runs_before = bool(house.processes())
        if self.runs_before:
            house.context.watch.forget(17)
            end_all(house.settings.users)
        shutil.copytree(house.root, self.kept, symlinks=True)

    def reset(self) -> None:
        """Put everything back to where it was before the verb, a running terminal too."""
        end_all(self.house.settings.users)
        shutil.rmtree(self.house.root)
        shutil.copytree(self.kept, self.house.root, symlinks=True)
        self.house.anew()
        if self.runs_before:
            state = self.house.state()
            order = state.start_order()
            assert order
            again = replace(order, issued_at=self.house.clock())
            self.house.generation = order.generation
            self.house.report("start", **{name: getattr(again, name) for name in ("generation", "server", "login")})

    def deliver(self, **crash: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FARM_CRASH")},
            "FARM_ROOT": str(self.house.root),
            "FARM_HOST": "alpha",
            "FARM_KEY_FILE": str(self.folder / "keys.json"),
            "FARM_PORTAL_KEYS": protocol.b64(bytes(self.house.portal.verify_key)),
            "FARM_TERMINAL_COMMAND": f"{{python}} {TERMINAL} /portable /config:{{ini}}",
            "FARM_POOL": str(self.case.pool),
            "FARM_STOP_SECONDS": "5",
            **crash,
        }
        return subprocess.run(
            [sys.executable, "-m", "tests.agent.obey_once"],
            cwd=REPOSITORY,
            env=environment,
            input=self.envelope,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )

    def delivered(self) -> Report:
        run = self.deliver()
        assert run.returncode == 0, run.stderr
        return Report.parse(run.stdout)

    def points(self) -> list[str]:
        """The names of all points that the verb passes, in their order."""
        listing = self.folder / "points"
        assert self.deliver(FARM_CRASH_LIST=str(listing)).returncode == 0
        return listing.read_text(encoding="utf-8").splitlines()

    def picture(self) -> dict[str, Any]:
        """All that matters of the host's end state, without what differs from one run to the next."""
        house = self.house
        state = json.loads((house.root / "State" / "17.json").read_text(encoding="utf-8"))
        for name in ("answer", "destroyed_at", "built"):
            state[name] = bool(state[name])
        if state["run"]:
            state["run"].pop("issued_at")
        state["launch"] = {"account": state["launch"]["account"]} if state["launch"] else None
        files = [str(path.relative_to(house.root)) for path in house.root.rglob("*") if _matters(path, house.root)]
        return {"state": state, "files": sorted(files), "processes": len(house.processes())}

    def left_over(self) -> list[str]:
        """What should not be there once the trash was emptied."""
        root = self.house.root
        while purge.purge(root, seconds=5).left:
            continue
        found = [*(root / "Trash").glob("*"), *(root / "State").glob(".*"), *(root / "Pool").glob(".tmp*")]
        return [str(path) for path in [*found, *root.rglob("bitten-start.ini"), *root.rglob("MQL5/Files/bitten/*.tmp")]]


def _matters(path: Path, root: Path) -> bool:
    """Not what the terminal itself writes, nor the trash."""
    parts = path.relative_to(root).parts
    written = {"Trash", "logs", "Logs", "accounts.dat", "terminal.ini", "paper.lock", "account.json", "positions.json"}
    return not written & set(parts) and path.name != "heartbeat.json" and not path.name.startswith("ready-")


@pytest.mark.parametrize("name", CASES)
def test_a_verb_killed_after_any_side_effect_ends_the_same_when_delivered_again(
    name: str, house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    case = CASES[name]
    sweep = Sweep(house, tmp_path, case)
    sweep.reset()
    points = sweep.points()
    assert len(points) >= case.fewest, f"{name} passes only {points}"
    expected = sweep.picture()
    for number, point in enumerate(points, start=1):
        sweep.reset()
        killed = sweep.deliver(FARM_CRASH_AT=str(number))
        assert killed.returncode == -signal.SIGKILL, f"{point}: {killed.stderr}"
        report = sweep.delivered()
        assert (report.outcome, report.detail) == (Outcome.DONE, ""), f"after {number} {point}"
        assert sweep.picture() == expected, f"after {number} {point}"
        assert sweep.left_over() == [], f"after {number} {point}"
    with capsys.disabled():
        print(f"\n{name}: killed at {len(points)} points ({', '.join(sorted(set(points)))})")
