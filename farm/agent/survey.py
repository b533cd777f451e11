"""What a host reports of itself: every instance, its master, its pool, its machine. One look at all processes."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from farm.agent import bridge, clocks, errors, inside, master, processes
from farm.agent.context import Context
from farm.agent.processes import Proc, Scan
from farm.agent.protocol import Observation, Process, Survey
from farm.agent.settings import VERSION
from farm.agent.state import State

log = logging.getLogger(__name__)

DISK_SECONDS = 900.0
"""A clone's disk use is measured again after so long: it is a walk over more than a thousand files."""
MOST_MEASURED = 100_000


class Surveyor:
    """Builds surveys. Keeps between them only what is dear to measure."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._disk: dict[int, tuple[float, int]] = {}
        self._boot_id = clocks.boot_id()

    def survey(self) -> Survey:
        context = self._context
        scan = processes.scan(context.settings.users)
        states = [state for state in context.memory.every() if not state.tombstone]
        digest, trouble = self._master()
        rows = [self._row(state, scan) for state in states]
        self._measure_one(states)
        return Survey(
            host=context.settings.host,
            sent_at=context.now(),
            nonce=secrets.token_hex(8),
            boot_id=self._boot_id,
            agent=VERSION,
            master_ok=not trouble,
            master_reason=trouble,
            master_digest=digest,
            servers=master.servers(context.settings.root),
            pool=context.pool_facts(),
            load=load(context.settings.root),
            instances=rows,
            policy=context.settings.policy,
            watchdog_ok=not context.fence.is_on or context.fence.watchdog_ok(),
            lease_left=context.fence.lease_left() if context.fence.is_on else None,
            since_boot=context.moment().since_boot,
            strangers=[*strangers(context.settings.users, states), *context.memory.lost()],
        )

    def _master(self) -> tuple[str, str]:
        try:
            return master.load(self._context.settings.root).digest, ""
        except errors.AgentError as error:
            return "", error.detail

    def _row(self, state: State, scan: Scan) -> Observation:
        """What is in one clone is a customer's: where it brings out a defect of ours, that one is unknown, not all."""
        try:
            return self._instance(state, scan)
        except Exception:
            log.exception("a defect while looking", extra={"event": "survey", "instance": state.instance})
            return _unknown(state)

    def _instance(self, state: State, scan: Scan) -> Observation:
        seen = self._context.watch.observe(state, scan=scan)
        cpu, memory = consumption(scan.of(state.folder))
        known = self._disk.get(state.instance)
        return replace(
            seen,
            cpu_seconds=cpu,
            memory_bytes=memory,
            disk_bytes=known[1] if known and seen.present else None,
            log_bytes=log_bytes(self._context.settings.clone(state.folder)) if seen.present else None,
        )

    def _measure_one(self, states: list[State]) -> None:
        """Measure the clone whose figure is the oldest, if it is too old: one a survey, so that none takes long."""
        now = time.monotonic()
        built = {state.instance: state.folder for state in states if state.built == "built"}
        self._disk = {instance: known for instance, known in self._disk.items() if instance in built}
        due = [instance for instance in built if now - self._disk.get(instance, (-DISK_SECONDS, 0))[0] >= DISK_SECONDS]
        if due:
            oldest = min(due, key=lambda instance: self._disk.get(instance, (float("-inf"), 0))[0])
            self._disk[oldest] = (now, disk_bytes(self._context.settings.clone(built[oldest])))


def _unknown(state: State) -> Observation:
    """What can be said of an instance without a look: neither that it runs nor that it is gone.

    Of which account it is has to be said all the same: nobody else may be given that while it may run.
    """
    known = None
    with suppress(Exception):  # its orders may be what the defect is about
        known = state.start_order() or state.inject_order()
    return Observation(
        instance=state.instance,
        folder=state.folder,
        present=bool(state.built),
        process=Process.UNKNOWN,
        digest=state.digest,
        kind=known.kind if known else "",
        server=known.server if known else "",
        login=known.login if known else None,
        epoch=state.epoch,
        generation=state.generation,
        crashes=len(state.crashes),
        reason=state.reason,
    )


def strangers(users: Path, states: list[State]) -> list[str]:
    """Return the folders under ``Users`` that no order known here made."""
    known = {state.folder for state in states if state.built}
    try:
        return sorted(name for name in os.listdir(users) if name not in known)
    except FileNotFoundError:
        return []


def load(root: Path) -> dict[str, Any]:
    """Return the machine's facts: bytes, plain numbers, and seconds of its clock."""
    memory = psutil.virtual_memory()
    facts: dict[str, Any] = {
        "cpus": os.cpu_count() or 1,
        "cpu_percent": psutil.cpu_percent(),
        "memory_total": memory.total,
        "memory_available": memory.available,
        "clock": time.time(),
    }
    try:
        disk = psutil.disk_usage(str(root))
        facts.update(disk_total=disk.total, disk_free=disk.free)
    except OSError:
        facts.update(disk_total=None, disk_free=None)
    if sys.platform != "win32":
        facts["load_1m"] = os.getloadavg()[0]
    return facts


def consumption(procs: list[Proc]) -> tuple[float | None, int | None]:
    """Return the processor seconds and the memory of ``procs`` together; None where nothing could be read.

    The memory is the proportional share (PSS) where the system has it: terminals share their executables' pages, and
    the plain figure would count those once for each.
    """
    cpu, memory = 0.0, 0
    seen = False
    for proc in procs:
        try:
            process = psutil.Process(proc.pid)
            with process.oneshot():
                times = process.cpu_times()
                memory += _memory(process)
            cpu += times.user + times.system
            seen = True
        except (psutil.Error, OSError):
            continue
    return (cpu, memory) if seen else (None, None)


def _memory(process: psutil.Process) -> int:
    if sys.platform == "linux":
        try:
            return int(process.memory_full_info().pss)
        except psutil.AccessDenied:
            pass
    return int(process.memory_info().rss)


def log_bytes(clone: Path) -> int:
    """Return the size of all journals; of one that is still being written, too."""
    total = 0
    for folder in bridge.JOURNALS:
        with suppress(OSError), inside.opened(clone, folder) as journals:
            total += sum(_size(entry) for entry in journals.entries(most=MOST_MEASURED))
    return total


def disk_bytes(clone: Path) -> int:
    """Return what would come free with this clone: a file that it shares with another (a hard link) is not its own.

    Of a clone that somebody filled with files without end, it is what the first of them take.
    """
    total, left = 0, MOST_MEASURED
    folders = [clone]
    while folders and left > 0:
        for entry in islice(_entries(folders.pop()), left):
            left -= 1
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                total += _own_bytes(entry)
    return total


def _own_bytes(entry: os.DirEntry[str]) -> int:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return 0
    if found.st_nlink > 1:
        return 0
    blocks = getattr(found, "st_blocks", None)  # Windows has none
    return found.st_size if blocks is None else int(blocks * 512)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else 0
    except OSError:
        return 0


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return
