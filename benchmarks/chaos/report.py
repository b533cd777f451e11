"""What the observer saw, what the verdict found, and the one line that says all of it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import World
from benchmarks.chaos.people import SERVER, Crowd
from benchmarks.chaos.services import SmallDisk

MOST_GAP_SECONDS = 5.0
"""An observer that looked away for longer has proven nothing."""


def observed(log: Path) -> dict[str, Any]:
    """Read the observer's log."""
    samples = [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.endswith("}")]
    doubled: Counter[str] = Counter()
    most, live, gap = 0, 0, 0.0
    for before, sample in zip([None, *samples], samples, strict=False):
        counts = {account: len(pids) for account, pids in sample["accounts"].items() if account.startswith(SERVER)}
        most, live = max([most, *counts.values()]), max(live, len(counts))
        doubled.update(sample["doubled"])
        gap = max(gap, sample["since_boot"] - before["since_boot"]) if before else gap
    return {
        "samples": len(samples),
        "longest_gap_seconds": round(gap, 2),
        "most_terminals": max((sample["terminals"] for sample in samples), default=0),
        "most_live_accounts": live,
        "most_copies_of_a_live_account": most,
        "doubled_samples": dict(doubled),
    }


def violations(seen: dict[str, Any], found: dict[str, Any], crowd: Crowd) -> list[str]:
    said = [f"{account} ran more than once, in {n} samples" for account, n in sorted(seen["doubled_samples"].items())]
    if not seen["most_live_accounts"]:
        said.append("the observer saw no live account at all")
    if seen["longest_gap_seconds"] > MOST_GAP_SECONDS:
        said.append(f"the observer did not look for {seen['longest_gap_seconds']} s")
    said += [f"not at rest: {what}" for what in found["unrest"]]
    said += found["wrong"]
    return said + [f"never served: {who}" for who in crowd.never]


def judge(
    wanted: argparse.Namespace, world: World, crowd: Crowd, found: dict[str, Any], seen: dict[str, Any], folder: Path
) -> int:
    """Print what was done and found, as one JSON object; return the exit code. Logs are kept after a violation."""
    wrong = violations(seen, found, crowd)
    told = {
        "seed": wanted.seed,
        "scale": wanted.scale,
        "planted": wanted.plant,
        "faults": dict(Counter(str(one["fault"]) for one in world.done)),
        "fault_seconds": round(sum(float(str(one["seconds"])) for one in world.done), 1),
        "signed_up": len(crowd.signed_up),
        "paid": len(crowd.paid),
        "tries": crowd.tries,
        "observer": seen,
        "rest_seconds": found["rest_seconds"],
        "farm": found["figures"],
        "left_out": [] if SmallDisk.is_possible() else ["disk full"],
        "violations": wrong,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }
    for line in wrong:
        print(f"VIOLATION  {line}", flush=True)
    if wanted.keep is not None:
        shutil.copytree(folder, wanted.keep, dirs_exist_ok=True, ignore=_without_clones)
    if not wrong or wanted.keep is not None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"everything is kept in {folder}", flush=True)
    print(json.dumps(told))
    return 1 if wrong else 0


def _without_clones(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in {"MT5_Farm", "seats", "redis", "secrets.json"} or name.endswith(".csv")]
