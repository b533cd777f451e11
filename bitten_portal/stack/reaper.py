"""Ends what is left of a stack whose launcher was killed. A program of its own, started by the launcher.

Its standard input is the lifeline: a pipe whose other end only the launcher holds. The launcher writes a line for each
process that it starts, and one when all is ended well. If the pipe closes without that line, the launcher is dead:
its processes are ended in the order that it would have kept, then the terminals, then their watchdogs and the broker,
and at last whatever else bears this stack's mark in its environment.

    python reaper.py DATA_DIR HOSTS

The environment is the first host's worker's; HOSTS is a JSON list of what each host's differs in.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import psutil

MARK = "BITTEN_STACK"
GRACE_SECONDS = 8.0
STOP_ALL_SECONDS = 120.0
LAST = ("watchdog", "broker")
"""Ended after the terminals: live ones die with their watchdog, and would not be asked to close."""


def read_lifeline(lines: Iterable[str]) -> list[dict[str, Any]] | None:
    """Return the newest process of each name; None if the launcher said that it ended them itself."""
    started: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            break  # cut off in the middle by the launcher's death
        if told.get("finished"):
            return None
        started[told["name"]] = told
    return list(started.values())


def running(told: dict[str, Any]) -> psutil.Process | None:
    """The process that was told of, not another that has its number now."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(told["pid"])
        if abs(process.create_time() - told["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def end(started: Iterable[dict[str, Any]]) -> None:
    """End process groups, politely and then by force. A group is signalled even if its leader is gone."""
    groups = [told["pid"] for told in started]
    processes = [process for told in started if (process := running(told))]
    _signal(groups, signal.SIGTERM)
    psutil.wait_procs(processes, timeout=GRACE_SECONDS)
    _signal(groups, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=GRACE_SECONDS)


def _signal(groups: Iterable[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def marked(data_dir: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == data_dir:
                found.append(process)
    return found


def stop_terminals(hosts: Iterable[dict[str, str]]) -> None:
    """As the agent itself stops them, so that it knows what to start again on the next run."""
    argv = [sys.executable, "-m", "farm.agent", "stop-all"]
    stopping = [subprocess.Popen(argv, env={**os.environ, **host}) for host in hosts]
    for process in stopping:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_ALL_SECONDS)


def is_last(name: str) -> bool:
    return name.startswith(LAST)


def main(data_dir: str, hosts: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    started = read_lifeline(sys.stdin)
    if started is None:
        return
    end([told for told in started if not is_last(told["name"])])
    stop_terminals(json.loads(hosts))
    end([told for told in started if is_last(told["name"])])
    for process in marked(data_dir):
        with contextlib.suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
