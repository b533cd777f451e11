"""``make bench-signup``: how long from the button to the page, and to the running terminal, on a stack of its own.

Fifty sign-ups one after another, then a hundred at once; beside them, in the same run, a plain ``shutil.copytree`` of
the same master. The last line is one JSON object. Seconds are reported, not asserted; what is lost must be 0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.visitor import Visitor
from bitten_portal.stack import Stack

POLL_SECONDS = 0.02
RUNNING = "SELECT u.email FROM farm_instance i JOIN presspass_user u ON u.id = i.customer_id WHERE i.status = 'running'"


@dataclass
class Board:
    """When each customer's terminal was first seen there, read from the row itself, without asking the web."""

    database: Path
    query: str = RUNNING
    seen: dict[str, float] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def watch(self) -> None:
        base = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)
        while not self._stopping.wait(POLL_SECONDS):
            running = {row[0] for row in base.execute(self.query)}
            now = time.perf_counter()
            with self._changed:
                for email in running - self.seen.keys():
                    self.seen[email] = now
                self._changed.notify_all()
        base.close()

    def running_at(self, email: str, *, within: float) -> float | None:
        with self._changed:
            self._changed.wait_for(lambda: email in self.seen, timeout=within)
            return self.seen.get(email)

    def stop(self) -> None:
        self._stopping.set()


@dataclass(frozen=True)
class SignUp:
    answered: float
    running: float | None


def sign_up(stack: Stack, board: Board, email: str, *, within: float) -> SignUp:
    visitor = Visitor(stack.url, email)
    token_taken = visitor.token()
    began = time.perf_counter()
    visitor.page("/", {"csrfmiddlewaretoken": token_taken, "email": email})
    answered = time.perf_counter() - began
    at = board.running_at(email, within=within)
    return SignUp(answered, None if at is None else at - began)


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))] if ordered else float("nan")


def summary(results: Sequence[SignUp]) -> dict[str, object]:
    answered = [result.answered for result in results]
    running = [result.running for result in results if result.running is not None]
    shares = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {
        "signups": len(results),
        "answered_ms": {name: round(1000 * percentile(answered, share), 1) for name, share in shares.items()},
        "running_ms": {name: round(1000 * percentile(running, share), 1) for name, share in shares.items()},
        "lost": len(results) - len(running),
    }


def copytree_ms(master: Path, folder: Path, rounds: int) -> float:
    """The median of plain copies of the master, into folders that are deleted at the end."""
    times = []
    for number in range(rounds):
        began = time.perf_counter()
        shutil.copytree(master, folder / f"copy-{number}")
        times.append(1000 * (time.perf_counter() - began))
    return sorted(times)[rounds // 2]


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signup", description=__doc__)
    parser.add_argument("--row", type=int, default=50, help="sign-ups one after another (default 50)")
    parser.add_argument("--burst", type=int, default=100, help="sign-ups at once (default 100)")
    parser.add_argument("--mb", default="40", help="size of the demo master (default 40)")
    parser.add_argument("--files", default="1200", help="its files (default 1200)")
    parser.add_argument("--rounds", type=int, default=7, help="copytree rounds (default 7)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    wanted = options(argv)
    slots = wanted.row + wanted.burst + 5
    env = {
        "LIMIT_SIGNUPS": "100000/h",
        "LIMIT_MAILS": "100000/h",
        "ACCOUNTS": str(slots),
        "MASTER_MB": wanted.mb,
        "MASTER_FILES": wanted.files,
    }
    print(f"settings: slots {slots}, {', '.join(f'{name} {value}' for name, value in env.items())}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-signup-") as folder:
        data = Path(folder) / "var"
        with Stack(data_dir=data, slots=slots, env=env) as stack:
            result = measure(stack, wanted)
        result["copytree_ms"] = round(copytree_ms(stack.places.master, Path(folder), wanted.rounds), 1)
    in_a_row = result["in_a_row"]["running_ms"]["p50"]  # type: ignore[index]
    result["running_p50_to_copytree"] = round(in_a_row / result["copytree_ms"], 2)
    result["machine"] = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    print(json.dumps(result))
    return 1 if result["in_a_row"]["lost"] or result["at_once"]["lost"] else 0  # type: ignore[index]


def measure(stack: Stack, wanted: argparse.Namespace) -> dict[str, object]:
    board = Board(stack.places.database)
    watcher = threading.Thread(target=board.watch, daemon=True)
    watcher.start()
    sign_up(stack, board, "warm@example.org", within=30)
    row = [sign_up(stack, board, f"row{n}@example.org", within=30) for n in range(wanted.row)]
    tell("one after another", row)
    began = time.perf_counter()
    with ThreadPoolExecutor(wanted.burst) as people:
        emails = [f"burst{n}@example.org" for n in range(wanted.burst)]
        burst = list(people.map(lambda email: sign_up(stack, board, email, within=120), emails))
    all_running = time.perf_counter() - began
    tell("at once", burst)
    print(f"all of these running after {all_running:.1f} s", flush=True)
    board.stop()
    watcher.join()
    return {
        "in_a_row": summary(row),
        "at_once": summary(burst) | {"all_running_s": round(all_running, 2)},
        "aim": {"answered_p95_ms": 150, "running_p95_ms": 1000, "all_running_s": 30},
    }


def tell(name: str, results: Sequence[SignUp]) -> None:
    found = summary(results)
    print(f"{name}: answered {found['answered_ms']} ms, running {found['running_ms']} ms, lost {found['lost']}")


if __name__ == "__main__":
    sys.exit(main())
