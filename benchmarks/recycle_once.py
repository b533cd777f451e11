"""What cron starts, and then the sweep that it rings for, in one process: until an order is due in the queue for each.

A part of benchmarks.recycle, which says in the environment on what. The last line is one JSON object.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.db import connection  # noqa: E402

from bitten_portal.celery import app  # noqa: E402
from farm import lifecycle as farm_lifecycle  # noqa: E402
from presspass import lifecycle  # noqa: E402
from presspass.lifecycle.looking import BATCH  # noqa: E402


@dataclass
class Counter:
    statements: int = 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.statements += 1
        return execute(sql, params, many, context)


def one_run() -> dict[str, Any]:
    app.set_current()
    connection.ensure_connection()
    counter = Counter()
    with connection.execute_wrapper(counter):
        begun = time.perf_counter()
        summary = lifecycle.recycle_idle(older_than=timedelta(hours=24))
        recycled = time.perf_counter()
        queued = farm_lifecycle.sweep()
        ended = time.perf_counter()
    return {
        "seconds": ended - begun,
        "recycled_seconds": recycled - begun,
        "queued_seconds": ended - recycled,
        "queries": counter.statements,
        "batches": -(-len(summary.recycled) // BATCH),
        "queued": queued,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "ids": summary.recycled,
    }


if __name__ == "__main__":
    print(json.dumps(one_run()))
