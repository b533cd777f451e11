"""``make soak``: nothing is given up that lives. All cores busy, and every process of the stack stopped in its turn.

A stack of three hosts under the default settings, with demo and live terminals at rest. As many busy processes as there
are cores run beside it, and one process after another (hosts' workers and watchdogs, broker, portal, lease keeper …) is
stopped (SIGSTOP) for up to 25 seconds and goes on. No host may be given up, nothing may move, no account may run twice,
and at the end everything must run. That a host's live terminals stop while its watchdog hangs is meant, and counted.
SOAK_MINUTES and SOAK_SEED; the last line is one JSON object, and the exit code is 1 if anything was lost or moved.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chaos.report import observed
from benchmarks.chaos.services import HERE, Service
from benchmarks.golive import LIVE, accounts, confirm_all, pay, to_the_till
from benchmarks.signup import Board
from benchmarks.visitor import Visitor
from bitten_portal.stack import Stack
from bitten_portal.stack.environments import MARK, PYTHON

HOSTS = 3
SHORTEST_PAUSE, LONGEST_PAUSE = 3.0, 25.0
BETWEEN = (4.0, 10.0)
WELL_AGAIN_SECONDS = 240.0
EVENTS = "SELECT what, count(*) FROM farm_hostevent GROUP BY what"
SINCE = """
    SELECT i.kind, t.was, t.became, count(*) FROM farm_transition t JOIN farm_instance i ON i.id = t.instance_id
    WHERE t.id > ? GROUP BY i.kind, t.was, t.became
"""
MOVED = ("lost", "destroying", "destroyed", "requested", "cloning", "failed")
"""What none of them becomes while nothing is asked for and nothing is given up."""
BRAKE = "SELECT brake_why FROM farm_watch WHERE id = 1"
LOST = "SELECT name FROM farm_host WHERE lost_at IS NOT NULL"
NOT_RUNNING = "SELECT id, kind, status FROM farm_instance WHERE status NOT IN ('running', 'destroyed')"


def ask(stack: Stack, query: str, *given: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(stack.places.database, timeout=20)) as base:
        return base.execute(query, given).fetchall()


# --- what runs --------------------------------------------------------------------------------------------------------


def furnish(stack: Stack, wanted: argparse.Namespace, folder: Path) -> None:
    """Customers with a demo each, and some of them live; wait until all of it runs."""
    visitors = [Visitor(stack.url, f"soaked{number}@example.org") for number in range(wanted.demos + wanted.live)]
    with ThreadPoolExecutor(4) as people:
        list(people.map(Visitor.sign_up, visitors))
    demos, live = Board(stack.places.database), Board(stack.places.database, LIVE)
    for board in (demos, live):
        threading.Thread(target=board.watch, daemon=True).start()
    payers = visitors[: wanted.live]
    late = [visitor.email for visitor in visitors if demos.running_at(visitor.email, within=120) is None]
    confirm_all(stack)
    for visitor, account in zip(payers, accounts(stack, wanted.live, folder), strict=True):
        pay(stack, to_the_till(visitor, account))
    late += [visitor.email for visitor in payers if live.running_at(visitor.email, within=120) is None]
    demos.stop()
    live.stop()
    if late:
        raise SystemExit(f"Not everything came up: {late}")
    until_well(stack)
    print("waiting for the brake, which is on when the portal begins, to let go", flush=True)
    while brake(stack):  # under it nothing could be given up, and nothing would be shown
        time.sleep(1)


def brake(stack: Stack) -> list[str]:
    return [row[0] for row in ask(stack, BRAKE) if row[0]]


def until_well(stack: Stack) -> list[tuple[Any, ...]]:
    """Wait until every row that is not gone runs; return those that do not."""
    end = time.monotonic() + WELL_AGAIN_SECONDS
    while (left := ask(stack, NOT_RUNNING)) and time.monotonic() < end:
        time.sleep(1)
    return left


@contextmanager
def busy_cores() -> Iterator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def soak(stack: Stack, rng: random.Random, seconds: float) -> list[dict[str, Any]]:
    """Stop one process after another; return which, and for how long. Each had its turn before one has two."""
    done: list[dict[str, Any]] = []
    end = time.monotonic() + seconds
    while True:
        for name in rng.sample(sorted(stack.processes), len(stack.processes)):
            if time.monotonic() > end:
                return done
            pause = rng.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
            child = stack.processes[name]
            child.signal(signal.SIGSTOP)
            try:
                time.sleep(pause)
            finally:
                child.signal(signal.SIGCONT)
            done.append({"process": name, "seconds": round(pause, 1)})
            print(f"{name} stood for {pause:.1f} s", flush=True)
            time.sleep(rng.uniform(*BETWEEN))


# --- what was found ---------------------------------------------------------------------------------------------------


def found(stack: Stack, since: int) -> dict[str, Any]:
    changes = Counter({f"{kind}: {was} -> {became}": n for kind, was, became, n in ask(stack, SINCE, since)})
    events = dict(ask(stack, EVENTS))
    return {
        "given_up": [row[0] for row in ask(stack, LOST)] + ["earlier"] * events.get("lost", 0),
        "moved": {change: n for change, n in changes.items() if change.rsplit(" -> ", 1)[1] in MOVED},
        "changes": dict(changes),
        "host_events": events,
        "brake": brake(stack),
    }


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    number = os.environ.get
    parser.add_argument("--minutes", type=float, default=float(number("SOAK_MINUTES") or 10), help="default 10")
    parser.add_argument("--seed", type=int, default=int(number("SOAK_SEED") or random.randrange(1 << 32)))
    parser.add_argument("--demos", type=int, default=12, help="customers with a demo (default 12)")
    parser.add_argument("--live", type=int, default=9, help="customers who are live (default 9)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    wanted = options(argv)
    print(f"seed {wanted.seed}, {wanted.minutes:g} minutes, {os.cpu_count()} busy cores", flush=True)
    env = {"LIMIT_SIGNUPS": "100000/h", "LIMIT_MAILS": "100000/h", "MASTER_MB": "2", "MASTER_FILES": "150"}
    with tempfile.TemporaryDirectory(prefix="soak-") as name, ExitStack() as ends:
        folder = Path(name)
        data, seats, log = folder / "var", folder / "seats", folder / "observer.jsonl"
        mark = str(data.resolve())
        stack = Stack(data_dir=data, slots=20, hosts=HOSTS, env={**env, "PAPER_SEATS": str(seats)})
        argv = [PYTHON, "-P", str(HERE / "observer.py"), str(seats), mark, str(log)]
        observer = Service(argv, env={MARK: mark}, log=folder / "observer.log")
        observer.start()
        ends.callback(observer.end)
        ends.enter_context(stack)
        furnish(stack, wanted, folder)
        since = ask(stack, "SELECT coalesce(max(id), 0) FROM farm_transition")[0][0]
        with busy_cores():
            pauses = soak(stack, random.Random(wanted.seed), 60 * wanted.minutes)
        left = until_well(stack)
        result = found(stack, since) | {"not_running": left, "observer": observed(log)}
    result |= {
        "seed": wanted.seed,
        "minutes": wanted.minutes,
        "pauses": len(pauses),
        "longest_pause": max((pause["seconds"] for pause in pauses), default=0),
        "processes": len({pause["process"] for pause in pauses}),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }
    print(json.dumps(result))
    wrong = result["given_up"] or result["moved"] or left or result["observer"]["doubled_samples"]
    return 1 if wrong or not result["observer"]["most_live_accounts"] else 0


if __name__ == "__main__":
    sys.exit(main())
