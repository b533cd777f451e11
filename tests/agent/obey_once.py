"""A worker for one order: read an envelope from standard input, obey it, wait for its report and print that.

It is a process of its own so that it can be killed at any fault point, as a power cut would (FARM_CRASH_AT).
"""

from __future__ import annotations

import json
import sys
import time

from farm.agent import context as contexts
from farm.agent import keys, orders, supervise
from farm.agent.settings import Settings


def main() -> None:
    settings = Settings.from_environment()
    assert settings.key_file
    context = contexts.opened(settings, keys.load(settings.key_file))
    supervise.clear_leftovers(context)
    envelope = json.load(sys.stdin)
    instance = orders.opened(context, envelope).instance
    report = orders.obey(context, envelope)
    while report is None:
        report = orders.conclude(context, instance)
        time.sleep(0.01)
    print(report.body())


if __name__ == "__main__":
    main()
