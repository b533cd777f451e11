"""``make bench-recycle``: how long until every idle terminal is queued for its destruction, on PostgreSQL.

Ten thousand idle ones among a hundred thousand at rest, and then among a million, in the same run and by the same
processes: the ratio shows what rows at rest cost. At last two runs at once, which must take none twice. A run is a
process of its own, as cron would start it. Wants BENCH_DATABASE_URL, or makes a database on 127.0.0.1:5432 and drops
it.
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

HOSTS = 1000
ROUNDS = 3

USERS = """INSERT INTO presspass_user (id, password, is_superuser, email, time_zone, sign_up_mark, mailbox, date_joined,
        is_active, is_staff)
    SELECT n, '!', false, 'bench' || n || '@example.com', '', '', '', now() - interval '3 days', true, false
    FROM generate_series(%(first)s::int, %(last)s::int) n"""
HOST_ROWS = """INSERT INTO farm_host (id, name, state, slots, taken, port_first, port_last, verify_key, seal_key,
        previous_verify_key, epoch, surveyed_at, boot_id, agent, master_ok, master_reason, master_digest, servers, load,
        clock_off_seconds)
    SELECT n, 'bench' || n, 'online', 20000, 20000, 9000, 9999, '', '', '', 1, now() + interval '1 day', '', '', true,
        '', '', '[]', '{}', 0
    FROM generate_series(1, %(hosts)s::int) n"""
# Of those at rest 7 in 10 are gone, 5 in 100 are live, and the others are demos that somebody used today.
INSTANCES = """INSERT INTO farm_instance (id, customer_id, kind, status, goal, connection, refusal, refusal_text,
        reason, reason_detail, host_id, folder, first_in_line, digest, generation, attempts, created_at, status_since,
        first_running_at, heartbeat_at, activity_at, facts, ends_at, warn_end_at)
    SELECT n, n, CASE WHEN n %% 20 = 0 THEN 'live' ELSE 'press pass' END,
        CASE WHEN n %% 10 < 7 AND n %% 20 > 0 THEN 'destroyed' ELSE 'running' END,
        CASE WHEN n %% 10 < 7 AND n %% 20 > 0 THEN 'destroyed' ELSE 'running' END,
        'no account', '', '', '', '', 1 + n %% %(hosts)s::int, 'user_' || n, false, '', 4, 0, now() - interval '3 days',
        now() - interval '2 days', now() - interval '3 days', now() + interval '1 day',
        now() - interval '1 hour' * (n %% 17), '{}', now() + interval '4 days', now() + interval '2 days'
    FROM generate_series(%(first)s::int, %(last)s::int) n"""
IDLE = """UPDATE farm_instance SET kind = 'press pass', status = 'running', goal = 'running', generation = 4,
        next_at = NULL, claimed_until = NULL,
        activity_at = now() - interval '25 hours' - interval '1 second' * (id %% 3600)
    WHERE id <= %(idle)s"""
FORGET = "TRUNCATE farm_transition, presspass_notice CASCADE"
SETTLE = ("VACUUM ANALYZE farm_instance", "VACUUM ANALYZE presspass_user", "CHECKPOINT")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with a_database("bench_recycle") as url, psycopg.connect(url, autocommit=True) as base:
        environment = {**os.environ, **portal_environment(url)}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], env=environment, check=True)
        base.execute(HOST_ROWS, {"hosts": HOSTS})
        found: dict[str, Any] = {"idle": options.idle, "at_rest": options.rest}
        there = 0
        for name, rest in (("few", options.few), ("many", options.rest)):
            _fill(base, first=there + 1, last=rest + options.idle)
            there = rest + options.idle
            rounds = [_measured(base, environment, options.idle) for _ in range(ROUNDS)]
            found[name] = {"at_rest": rest, **_median(rounds)}
            print(f"{rest:>9} at rest: {json.dumps(found[name])}", flush=True)
        found |= _two_at_once(base, environment, options.idle)
    found["ratio"] = round(found["many"]["seconds"] / found["few"]["seconds"], 2)
    print(json.dumps(found))
    complete = found["many"]["taken"] == found["few"]["taken"] == found["together"] == options.idle
    return 0 if complete and found["taken_twice"] == 0 else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=100_000)
    parser.add_argument("--idle", type=int, default=10_000)
    return parser.parse_args(arguments)


def _fill(base: psycopg.Connection[Any], *, first: int, last: int) -> None:
    words = {"first": first, "last": last, "hosts": HOSTS}
    base.execute(USERS, words)
    base.execute(INSTANCES, words)


def _prepare(base: psycopg.Connection[Any], idle: int) -> None:
    base.execute(FORGET)
    base.execute(IDLE, {"idle": idle})
    for statement in SETTLE:
        base.execute(statement)  # what was written before this must not be paid for in what is measured


def _measured(base: psycopg.Connection[Any], environment: dict[str, str], idle: int) -> dict[str, Any]:
    _prepare(base, idle)
    return _result(_start(environment))


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.recycle_once"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run failed with {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("seconds", "recycled_seconds", "queued_seconds", "peak_mb")
    found = {name: round(statistics.median(one[name] for one in rounds), 2) for name in names}
    last = rounds[-1]
    return found | {name: last[name] for name in ("queries", "queued", "batches")} | {"taken": len(last["ids"])}


def _two_at_once(base: psycopg.Connection[Any], environment: dict[str, str], idle: int) -> dict[str, Any]:
    _prepare(base, idle)
    begun = time.perf_counter()
    both = [_start(environment) for _ in range(2)]
    first, second = (set(_result(process)["ids"]) for process in both)
    lines = base.execute("SELECT count(*), count(DISTINCT instance_id) FROM farm_transition").fetchone()
    twice = len(first & second) + (lines[0] - lines[1] if lines else 0)
    return {
        "together": len(first | second),
        "shares": sorted([len(first), len(second)]),
        "taken_twice": twice,
        "together_seconds": round(time.perf_counter() - begun, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
