"""``python -m tests.simulation --first 1 --seeds 10000``, or one of them to be read: ``--seed N --trace``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import Outcome, run

PORTION = 25


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--trace", action="store_true", help="print what happened, line by line")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed, trace=options.trace)
    return _many(options.first, options.seeds)


def _one(seed: int, *, trace: bool) -> int:
    outcome = run(seed, trace=trace)
    print(*outcome.lines, sep="\n")
    print(json.dumps({"seed": seed, "broken": outcome.broken, "happened": dict(outcome.count)}))
    return 1 if outcome.broken else 0


def _several(seeds: range) -> tuple[list[Outcome], Counter[str]]:
    count: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        outcome = run(seed)
        count.update(outcome.count)
        if outcome.broken:
            failed.append(outcome)
    return failed, count


def _many(first: int, seeds: int) -> int:
    began, count = time.monotonic(), Counter[str]()
    failed: list[Outcome] = []
    portions = [range(at, min(at + PORTION, first + seeds)) for at in range(first, first + seeds, PORTION)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for some, counted in pool.map(_several, portions):
            failed += some
            count.update(counted)
            for outcome in some:
                print(f"seed {outcome.seed}: {outcome.broken}", flush=True)
    if failed:
        print("To read one: python -m tests.simulation --seed", failed[0].seed, "--trace")
    seconds = round(time.monotonic() - began, 1)
    result = {"schedules": seeds, "first": first, "seconds": seconds, "broken": [o.seed for o in failed][:20]}
    print(json.dumps(result | {"happened": dict(sorted(count.items()))}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
