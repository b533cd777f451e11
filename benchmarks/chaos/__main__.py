"""``make chaos``: everything breaks while two hundred sign up and thirty go live; no account may ever run twice.

A real stack with three hosts, a PostgreSQL and a Redis of its own, real processes; terminals, broker and Stripe are the
paper ones. The observer (observer.py), which knows nothing of the farm, counts the terminals of every account twice a
second: its log is the proof. At the end all is mended, and everything must come to rest: nobody lost, no account
doubled, ports and slots add up, nothing on a host that no row knows. The last line is one JSON object; exit code 1 on
any violation. CHAOS_SEED, CHAOS_MINUTES and CHAOS_SCALE (what all waiting times are divided by); docs/chaos.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.chaos import faults, report
from benchmarks.chaos.people import Crowd, open_accounts
from benchmarks.chaos.services import Postgres, Redis, Service, SmallDisk, Wire
from benchmarks.visitor import Visitor
from bitten_portal.stack import Stack
from bitten_portal.stack.environments import MARK, PYTHON
from bitten_portal.stack.places import REPOSITORY, Places

HERE = Path(__file__).parent
HOSTS = 3
SLOTS = 130
"""On each, so that two hosts carry what was on three."""
DISK_MEGABYTES = 800
REST_SECONDS = 420.0
PLANTED_SECONDS = 600
SCALED = {
    "LEASE_SECONDS": 120,
    "DRIFT_SECONDS": 20,
    "SURVEY_FRESH_SECONDS": 30,
    "MOVE_SECONDS": 60,
    "BRAKE_WINDOW_SECONDS": 300,
    "BRAKE_GRACE_SECONDS": 60,
    "WATCH_SECONDS": 5,
    "SWEEP_SECONDS": 5,
    "RING_AGAIN_SECONDS": 30,
    "RETRY_MOST_SECONDS": 120,
}
"""The defaults, in seconds; RETRY_MOST_SECONDS is shorter than its own, so that rest does not take all day."""
UNSCALED = {
    "FARM_STOP_SECONDS": "2",
    "MASTER_MB": "1",
    "MASTER_FILES": "150",
    "ACCOUNTS": "900",
    "LIMIT_SIGNUPS": "100000/h",
    "LIMIT_MAILS": "100000/h",
    "LIMIT_LOGINS": "100000/h",
    "WEB_THREADS": "6",
    "LOG_LEVEL": "INFO",
}


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    number = os.environ.get
    parser.add_argument("--seed", type=int, default=int(number("CHAOS_SEED") or random.randrange(1 << 32)))
    parser.add_argument("--minutes", type=float, default=float(number("CHAOS_MINUTES") or 10), help="of faults")
    parser.add_argument("--scale", type=float, default=float(number("CHAOS_SCALE") or 4), help="divides all waits")
    parser.add_argument("--signups", type=int, default=200, help="while everything breaks (default 200)")
    parser.add_argument("--upgrades", type=int, default=30, help="of them, ten before the first fault (default 30)")
    parser.add_argument("--plant", action="store_true", help="plant a fault that must be found: see docs/chaos.md")
    parser.add_argument("--keep", type=Path, help="where logs are kept; else only after a violation, and said where")
    return parser.parse_args(argv)


def settings(wanted: argparse.Namespace) -> dict[str, str]:
    scaled = {name: f"{seconds / wanted.scale:g}" for name, seconds in SCALED.items()}
    # What clocks drift by is divided too, and must still cover the longest lease (bitten.E021).
    return {**UNSCALED, **scaled, "HOLD_LEASES_MOST_HOURS": f"{4 / wanted.scale * 0.9:g}"}


def main(argv: Sequence[str] | None = None) -> int:
    wanted = options(argv)
    signal.signal(signal.SIGTERM, _stop)
    print(f"seed {wanted.seed}; clocks run {wanted.scale:g} times as fast as by default", flush=True)
    print("settings: " + ", ".join(f"{name} {value}" for name, value in settings(wanted).items()), flush=True)
    print(f"the disk that fills up: {'a tmpfs' if SmallDisk.is_possible() else 'left out, it needs root'}", flush=True)
    print("a host is cut off by stopping the one program that its connections to the broker pass through", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with up(wanted, folder) as (world, crowd, log):
        found = run(wanted, world, crowd, folder)
    return report.judge(wanted, world, crowd, found, report.observed(log), folder)


def _stop(number: int, frame: object) -> None:
    raise SystemExit(f"Ended by signal {number}.")


@contextmanager
def up(wanted: argparse.Namespace, folder: Path) -> Iterator[tuple[faults.World, Crowd, Path]]:
    """Everything around the stack, the stack, and its observer; all ended again, whatever happens."""
    data, log, seats = folder / "var", folder / "observer.jsonl", folder / "seats"
    data.mkdir(mode=0o700)
    mark = {MARK: str(data.resolve())}
    with ExitStack() as ends:
        postgres = Postgres(env=mark, log=folder / "postgres.log")
        ends.callback(postgres.remove)
        postgres.begin()
        broker = Redis(folder / "redis", env=mark, log=folder / "redis.log")
        ends.callback(broker.end)
        broker.begin()
        disk = _small_disk(ends, data) if SmallDisk.is_possible() else None
        places = Places(data, hosts=HOSTS)
        wires = {host.name: Wire(broker.port, env=mark, log=folder / "wires.log") for host in places.hosts}
        for wire in wires.values():
            wire.start()
            ends.callback(wire.end)
        per_host = {name: {"FARM_BROKER_URL": Redis.url_by(wire.port)} for name, wire in wires.items()}
        if wanted.plant:
            for told in per_host.values():
                told["PYTHONPATH"] = os.pathsep.join([str(HERE / "planted"), str(REPOSITORY)])
        given = {"DATABASE_URL": postgres.url, "BROKER_URL": broker.url, "PAPER_SEATS": str(seats)}
        env = {**settings(wanted), **given}
        said = ends.enter_context((folder / "stack.log").open("a", encoding="utf-8", buffering=1))
        stack = Stack(
            data_dir=data, slots=SLOTS, hosts=HOSTS, env=env, per_host=per_host, say=partial(print, file=said)
        )
        watching = [PYTHON, "-P", str(HERE / "observer.py"), str(seats), mark[MARK], str(log)]
        observer = Service(watching, env=mark, log=folder / "observer.log")
        observer.start()
        ends.callback(observer.end)
        ends.enter_context(stack)
        rng = random.Random(wanted.seed)
        world = faults.World(stack, postgres, broker, wires, disk, rng, wanted.scale)
        yield world, Crowd(stack, random.Random(wanted.seed + 1)), log


def _small_disk(ends: ExitStack, data: Path) -> SmallDisk:
    disk = SmallDisk(data / f"laptop-{HOSTS}", megabytes=DISK_MEGABYTES)
    disk.mount()
    ends.callback(disk.unmount)
    return disk


# --- the run ----------------------------------------------------------------------------------------------------------


def run(wanted: argparse.Namespace, world: faults.World, crowd: Crowd, folder: Path) -> dict[str, Any]:
    """The calm before, the chaos with people in it, and the rest after."""
    stack, minutes = world.stack, 60 * wanted.minutes
    visitors = [Visitor(stack.url, f"person{number}@example.org") for number in range(wanted.signups + wanted.upgrades)]
    payers, others = visitors[: wanted.upgrades], visitors[wanted.upgrades :]
    accounts = list(zip(payers, open_accounts(stack, wanted.upgrades, folder), strict=True))
    before = len(accounts) // 3
    crowd.sign_up(payers, over=0, patience=60)
    crowd.go_live(accounts[:before], over=0, patience=60)
    rest(world, crowd, folder, within=240 / wanted.scale + 60)
    print(f"before the first fault: {len(crowd.signed_up)} signed up, {len(crowd.paid)} live", flush=True)
    world.began = time.monotonic()
    people = [
        threading.Thread(target=crowd.sign_up, args=[others], kwargs={"over": 0.8 * minutes, "patience": 180}),
        threading.Thread(
            target=crowd.go_live, args=[accounts[before:]], kwargs={"over": 0.8 * minutes, "patience": 180}
        ),
    ]
    for thread in people:
        thread.start()
    if wanted.plant:
        planted = faults.cut_off(PLANTED_SECONDS, host=with_most_live(stack))
        faults.Fault("a host that ignores its lease cut off", planted).happen(world)
    else:
        break_things(world, minutes)
    for thread in people:
        thread.join()
    print(f"{time.monotonic() - world.began:7.1f} s  faults and people have stopped", flush=True)
    return rest(world, crowd, folder, within=REST_SECONDS)


def with_most_live(stack: Stack) -> str:
    with psycopg.connect(stack.environments.database_url) as base:
        query = "SELECT h.name FROM farm_instance i JOIN farm_host h ON h.id = i.host_id WHERE i.kind = 'live'"
        return Counter(str(name) for (name,) in base.execute(query)).most_common(1)[0][0]


def break_things(world: faults.World, seconds: float) -> None:
    """Round after round, until the time is over; the first round is always finished."""
    for number in range(1000):
        for fault in faults.one_round(world):
            if number > 0 and time.monotonic() - world.began > seconds:
                return
            fault.happen(world)
            world.wait(world.rng.uniform(2, 10))


def rest(world: faults.World, crowd: Crowd, folder: Path, *, within: float) -> dict[str, Any]:
    """Wait until nothing moves any more, and return what the verdict says then, or at last."""
    facts = folder / "facts.json"
    told = {
        "mark": str(world.stack.places.data_dir),
        "hosts": {host.name: str(host.farm.resolve()) for host in world.stack.places.hosts},
        "signed_up": crowd.signed_up,
        "paid": crowd.paid,
    }
    facts.write_text(json.dumps(told), "utf-8")
    began = time.monotonic()
    while True:
        found = verdict(world.stack, facts)
        waited = time.monotonic() - began
        if not found["unrest"] or waited > within:
            return found | {"rest_seconds": round(waited, 1)}
        time.sleep(3)


def verdict(stack: Stack, facts: Path) -> dict[str, Any]:
    argv = [PYTHON, "-m", "benchmarks.chaos.verdict", str(facts)]
    done = subprocess.run(argv, env=stack.environments.web(), cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"The verdict cannot be had:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
