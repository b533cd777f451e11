"""Who may work on what: one lock for each instance, one for the worker of a farm's folder, one for its watchdog.

Each holds across threads and processes, and the system lets go of it when its holder dies, however that came.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from farm.agent.errors import AgentError, TooSlow, typed

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_SECONDS = 120.0
"""Longer than any verb may take: whoever waits longer has met a defect."""
HANDOVER_SECONDS = 5.0
"""So long a worker that is told to stop may take to be gone, when the next one is started already."""


class AnotherWorker(AgentError):
    """Another worker serves this farm's folder."""


@contextmanager
def held(folder: Path, instance: int, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of ``instance`` for the block, alone among all threads and processes of this host.

    Raises :class:`TooSlow` if another holds it for ``seconds``.
    """
    file = _waited_for(folder / f"{instance}.lock", seconds)
    if file is None:
        raise TooSlow(f"another order for instance {instance} is still being obeyed")
    try:
        yield
    finally:
        _unlock(file)


@contextmanager
def alone(folder: Path, *, name: str = "worker", seconds: float = HANDOVER_SECONDS) -> Iterator[None]:
    """Be the one worker (or other ``name``) of this farm for the block; :class:`AnotherWorker` if there is one.

    Two would each restart what the other one has just started.
    """
    file = _waited_for(folder / f"{name}.lock", seconds)
    if file is None:
        raise AnotherWorker(f"another {name} serves this farm's folder")
    try:
        yield
    finally:
        _unlock(file)


def _waited_for(path: Path, seconds: float) -> IO[bytes] | None:
    end = time.monotonic() + seconds
    pause = 0.002
    while (file := _locked(path)) is None:
        if time.monotonic() >= end:
            return None
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return file


def _locked(path: Path) -> IO[bytes] | None:
    """Open and lock the file, or return None if another has it, or has just deleted it."""
    with typed(f"locking State/{path.name}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115  closed by _unlock, at the end of held()
    try:
        _lock(file)
        if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
            return file
    except OSError:
        pass
    file.close()
    return None


if sys.platform == "win32":

    def _lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        with suppress(OSError):
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        file.close()

else:

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[bytes]) -> None:
        file.close()
