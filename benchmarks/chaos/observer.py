"""Counts terminals per broker account, from outside: the process table and the paper terminal's own files. No other.

    python observer.py SEATS MARK LOG

SEATS is the folder where every paper terminal leaves a file <server>-<login>/<pid> before it asks for that account;
MARK is what BITTEN_STACK says in the environment of the stack's processes. Twice a second a line of JSON goes to LOG:
how many terminals there are, how many run an account, and every account that more than one runs. Ends with SIGTERM.
A copy is any process that is there, stopped ones included: a terminal that merely hangs can still trade.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

SAMPLE_SECONDS = 0.5
PORTABLE = b"\0/portable\0"
SLACK_SECONDS = 0.1
"""What the table's own clock, in hundredths since boot, may be off by against the file's."""

Terminals = dict[int, float]


def boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise SystemExit("/proc/stat does not say when the machine was booted")


class Table:
    """The process table, looked at again and again."""

    def __init__(self, mark: str) -> None:
        self._mark = b"BITTEN_STACK=" + mark.encode() + b"\0"
        self._booted = boot_time()
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._known: dict[tuple[int, int], bool] = {}

    def terminals(self) -> Terminals:
        """The pid of every terminal of the stack, and when it began. Zombies are no more."""
        found: Terminals = {}
        known: dict[tuple[int, int], bool] = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                state, ticks = self._stat(name)
                key = (int(name), ticks)
                ours = self._known.get(key)
                if ours is None or not ours:
                    ours = self._is_terminal(name)
            except (OSError, ValueError, IndexError):
                continue  # gone while we looked
            known[key] = ours
            if ours and state not in "ZXx":
                found[key[0]] = self._booted + ticks / self._hertz
        self._known = known
        return found

    def _stat(self, pid: str) -> tuple[str, int]:
        fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])

    def _is_terminal(self, pid: str) -> bool:
        """Asked again while it is not: a process is a copy of its parent before it becomes a terminal."""
        words = Path("/proc", pid, "cmdline").read_bytes()
        return PORTABLE in words and self._mark in Path("/proc", pid, "environ").read_bytes() + b"\0"


def copies(seats: Path, terminals: Terminals) -> dict[str, list[int]]:
    """The processes that run each account. A pid that was given to another since its file was written is not one."""
    found: dict[str, list[int]] = {}
    for account in os.scandir(seats):
        for seat in os.scandir(account.path):
            began = terminals.get(int(seat.name)) if seat.name.isdigit() else None
            if began is not None and began <= seat.stat().st_mtime + SLACK_SECONDS:
                found.setdefault(account.name, []).append(int(seat.name))
    return found


def sample(seats: Path, table: Table) -> dict[str, object]:
    terminals = table.terminals()
    running = copies(seats, terminals)
    return {
        "at": round(time.time(), 3),
        "since_boot": round(time.monotonic(), 3),
        "terminals": len(terminals),
        "accounts": dict(sorted(running.items())),
        "doubled": sorted(account for account, pids in running.items() if len(pids) > 1),
    }


def main(seats: Path, mark: str, log: Path) -> None:
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    seats.mkdir(parents=True, exist_ok=True)
    table = Table(mark)
    due = time.monotonic()
    with log.open("a", encoding="utf-8") as lines:
        while not stopping:
            lines.write(json.dumps(sample(seats, table)) + "\n")
            lines.flush()
            due = max(due + SAMPLE_SECONDS, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
