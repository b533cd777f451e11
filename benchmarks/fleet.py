"""``make bench-fleet``: what a survey round of many hosts costs, and the loss of one, on PostgreSQL.

Twenty hosts with fifty terminals each, and then two hundred, in the same run: every host's signed survey is recorded
once, by one process, in which nothing changed, in which 5 % did, and in which every heartbeat is due to be written.
The ratio is that of the time, and of the processor time, per instance. Then the round of all hosts by several
processes at once, beside the interval in which hosts send them. At last one host is lost: how long from when its fence
has passed until all that it ran runs elsewhere, on hosts that answer as real ones would, beside the least that this
could take. Wants BENCH_DATABASE_URL, or makes a database on 127.0.0.1:5432 and drops it. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from benchmarks.databases import a_database
from benchmarks.databases import environment as portal_environment

KINDS = ("quiet", "changed", "beats")
INTERVAL_SECONDS = 5.0
"""FARM_SURVEY_SECONDS as it is unless set."""
ROUNDS_PER_BEAT = 3
"""Heartbeats are written every 15 seconds: in one of so many rounds."""
SETTLE = (
    "TRUNCATE farm_transition, presspass_notice CASCADE",
    "VACUUM ANALYZE farm_instance",
    "VACUUM ANALYZE farm_host",
    "CHECKPOINT",
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with a_database("bench_fleet") as url, psycopg.connect(url, autocommit=True) as base:
        bench = Bench(base, {**os.environ, **portal_environment(url)}, options)
        found: dict[str, Any] = {"each": options.each, "cores": os.cpu_count()}
        bench.fill(1, options.few)
        found["few"] = bench.rounds(options.few, workers=1)
        bench.fill(options.few + 1, options.hosts)
        found["many"] = bench.rounds(options.hosts, workers=1)
        found["together"] = bench.rounds(options.hosts, workers=options.workers)
        found["loss"] = bench.loss(options.hosts)
    for kind in KINDS:
        few, many = found["few"][kind], found["many"][kind]
        found[f"ratio_{kind}"] = round(many["per_instance_us"] / few["per_instance_us"], 2)
        found[f"ratio_cpu_{kind}"] = round(many["cpu_per_instance_us"] / few["cpu_per_instance_us"], 2)
    together = found["together"]
    mean = (together["changed"]["seconds"] * (ROUNDS_PER_BEAT - 1) + together["beats"]["seconds"]) / ROUNDS_PER_BEAT
    found |= {"round_seconds": round(mean, 2), "interval_seconds": INTERVAL_SECONDS}
    print(json.dumps(found))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--each", type=int, default=50, help="terminals on each host")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind; the median counts")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that share a round")
    return parser.parse_args(arguments)


class Bench:
    def __init__(self, base: psycopg.Connection[Any], environment: dict[str, str], options: argparse.Namespace) -> None:
        self.base, self.environment, self.options = base, environment, options
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], env=environment, check=True)

    def fill(self, first: int, last: int) -> None:
        self._done("fill", "--first", str(first), "--last", str(last))

    def rounds(self, hosts: int, *, workers: int) -> dict[str, Any]:
        found = {}
        for kind in KINDS:
            measured = [self._round(hosts, kind, workers) for _ in range(self.options.rounds)]
            found[kind] = {name: round(statistics.median(one[name] for one in measured), 3) for name in measured[0]}
            print(f"{hosts} hosts, {kind}, {workers} at once: {json.dumps(found[kind])}", flush=True)
        return found

    def loss(self, hosts: int) -> dict[str, Any]:
        self._done("settle", "--last", str(hosts), "--kind", "quiet")
        found: dict[str, Any] = json.loads(self._done("lose", "--last", str(hosts)).splitlines()[-1])
        print(f"one host of {hosts} lost: {json.dumps(found)}", flush=True)
        return found

    def _round(self, hosts: int, kind: str, workers: int) -> dict[str, float]:
        self._done("settle", "--last", str(hosts), "--kind", kind)
        for statement in SETTLE:
            self.base.execute(statement)  # what was written before this must not be paid for in what is measured
        words = ["round", "--last", str(hosts), "--kind", kind, "--parts", str(workers)]
        processes = [self._start(*words, "--part", str(part)) for part in range(workers)]
        for process in processes:
            _line(process)
        began = time.perf_counter()
        for process in processes:
            _go(process)
        shares = [json.loads(_line(process)) for process in processes]
        seconds = time.perf_counter() - began
        for process in processes:
            process.communicate()
        instances = hosts * self.options.each
        total = {name: sum(share[name] for share in shares) for name in ("cpu_seconds", "statements", "bytes")}
        return {
            "seconds": seconds,
            "per_instance_us": seconds / instances * 1e6,
            "cpu_per_instance_us": total["cpu_seconds"] / instances * 1e6,
            "statements_per_host": total["statements"] / hosts,
            "bytes_per_survey": total["bytes"] / hosts,
        }

    def _start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.fleet_once", *words, "--each", str(self.options.each)]
        return subprocess.Popen(command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _done(self, *words: str) -> str:
        process = self._start(*words)
        out, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"`{words[0]}` failed with {process.returncode}")
        return out


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a process ended with {process.wait()}")
    return line


if __name__ == "__main__":
    sys.exit(main())
