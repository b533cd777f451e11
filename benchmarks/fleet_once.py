"""One process of benchmarks.fleet, which says in the environment on what: it fills the farm, records its share of a
survey round, or loses a host. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import django

django.setup()

from django.db import connection  # noqa: E402

from benchmarks import fleet_loss, fleet_world  # noqa: E402
from bitten_portal.celery import app  # noqa: E402
from farm import lifecycle  # noqa: E402


@dataclass
class Counter:
    statements: int = 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.statements += 1
        return execute(sql, params, many, context)


def main() -> None:
    options = _options()
    app.set_current()
    app.autodiscover_tasks(force=True)
    connection.ensure_connection()
    if options.command == "fill":
        fleet_world.fill(options.first, options.last, each=options.each)
    elif options.command == "settle":
        fleet_world.settle(options.kind)
    elif options.command == "lose":
        print(json.dumps(fleet_loss.lose_one(app, hosts=options.last)))
    else:
        print(json.dumps(one_round(options)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["fill", "settle", "round", "lose"])
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int, required=True)
    parser.add_argument("--each", type=int, required=True)
    parser.add_argument("--kind", default="quiet")
    parser.add_argument("--part", type=int, default=0, help="of --parts processes that share the round")
    parser.add_argument("--parts", type=int, default=1)
    return parser.parse_args()


def one_round(options: argparse.Namespace) -> dict[str, Any]:
    """Record every survey of this process's hosts, once the word is given on standard input."""
    hosts = range(options.first + options.part, options.last + 1, options.parts)
    envelopes = fleet_world.surveys(hosts, options.kind, each=options.each)
    print("ready", flush=True)
    sys.stdin.readline()
    counter = Counter()
    began, cpu = time.perf_counter(), time.process_time()
    with connection.execute_wrapper(counter):
        for envelope in envelopes:
            lifecycle.record_survey(envelope)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "statements": counter.statements,
        "surveys": len(envelopes),
        "bytes": sum(len(envelope["body"]) for envelope in envelopes),
    }


if __name__ == "__main__":
    main()
