"""Making a clone: built under a name that nobody looks at, visible by one rename, or not there at all."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import Protocol

from farm.agent import copying, errors, faults, inside, protocol, tree
from farm.agent import master as masters
from farm.agent.copying import Modes, Way
from farm.agent.manifest import File, Manifest
from farm.agent.master import Master
from farm.agent.probe import probe

__all__ = ["Built", "Made", "Modes", "Way", "build", "build_if_idle", "make_clone", "probe", "publish"]

POOL_WAY = "pool"
MASTER_MAX_AGE_SECONDS = 5.0
"""Of the look at the master that a clone relies on; the pool's refill looks anew far more often."""

BIG_BYTES = 4 << 20
PARALLEL_BYTES = 32 << 20
MOST_HELPERS = 3
"""Four threads copy as fast as any number, as far as measured; a host has other things to do."""

_log = logging.getLogger(__name__)

_slots = BoundedSemaphore(os.cpu_count() or 1)
"""More builds at once than cores make each slower and all together, too."""


class Warm(Protocol):
    """Where ready clones may be had (farm.agent.pool.Pool)."""

    def take(self, final: Path, digest: str) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Built:
    digest: str
    ways: Mapping[Way, int]
    """How many files came in which way."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Made:
    digest: str
    """Of the master that the clone is of."""
    how: str
    """``pool``, or the best way that a file of it was built in."""
    seconds: float


def build(master: Master, target: Path, modes: Modes, *, deadline_at: float | None = None) -> Built:
    """Make ``target`` equal to the master's manifest; ``target`` must not exist, and does not after any error.

    Waits while as many builds run as there are cores. ``deadline_at`` is in :func:`time.monotonic`'s seconds; past it
    :class:`errors.TooSlow` is raised.
    """
    timeout = None if deadline_at is None else max(0.0, deadline_at - time.monotonic())
    if not _slots.acquire(timeout=timeout):
        raise errors.TooSlow("too many clones are being built at once")
    try:
        return _build(master, target, modes, deadline_at, most_helpers=MOST_HELPERS)
    finally:
        _slots.release()


def build_if_idle(master: Master, target: Path, modes: Modes) -> Built | None:
    """Build as :func:`build` does but on one core, or return None while all of them build for customers."""
    if not _slots.acquire(blocking=False):
        return None
    try:
        return _build(master, target, modes, None, most_helpers=0)
    finally:
        _slots.release()


def _build(master: Master, target: Path, modes: Modes, deadline_at: float | None, *, most_helpers: int) -> Built:
    began = time.monotonic()
    with errors.typed(f"building {target.name}"):
        # Others on this machine have nothing to look for in it. (On Windows that mode would lock out its own user.)
        os.mkdir(target, 0o777 if sys.platform == "win32" else 0o700)
        faults.point("folder")
        with _nothing_left(target):
            _make_folders(master, target, modes)
            plan = _plan(master.path, master.manifest, modes)
            work = _Work(master.path, target, modes, deque(plan.jobs), deadline_at)
            ways = _worked(work, plan.size, most_helpers=most_helpers)
    return Built(digest=master.digest, ways=ways, seconds=time.monotonic() - began)


def _worked(work: _Work, size: int, *, most_helpers: int) -> Counter[Way]:
    with _helpers(most_helpers if size >= PARALLEL_BYTES else 0) as helpers:
        if not helpers:
            return work.done()
        with ThreadPoolExecutor(helpers, thread_name_prefix="build") as crew:
            others = [crew.submit(work.done) for _ in range(helpers)]
            return sum((other.result() for other in others), work.done())


def _make_folders(master: Master, target: Path, modes: Modes) -> None:
    hands_over = modes.hands_over
    for folder, _ in master.manifest.by_folder:
        path = os.path.join(target, folder)
        if folder:
            os.mkdir(path)
            faults.point("folder")
        if hands_over:
            copying.hand_over(path, modes)


@dataclass(frozen=True)
class _Job:
    """Some files of one folder."""

    folder: str
    shared: tuple[File, ...]
    copied: tuple[File, ...]


@dataclass(frozen=True)
class _Plan:
    jobs: tuple[_Job, ...]
    """The longest copies first."""
    size: int
    """Bytes that have to be copied."""


@lru_cache(maxsize=4)
def _plan(path: Path, manifest: Manifest, modes: Modes) -> _Plan:
    """Say what a clone of this manifest is made of: the same for every clone, so it is thought out once."""
    big, small, size = [], [], 0
    for folder, files in manifest.by_folder:
        wanted = [file for file in files if modes.history or not file.history]
        shared = tuple(file for file in wanted if copying.may_be_shared(file, path, modes))
        linked = {file.path for file in shared}
        copied = [file for file in wanted if file.path not in linked]
        size += sum(file.size for file in copied)
        big += [_Job(folder, (), (file,)) for file in copied if file.size >= BIG_BYTES]
        rest = tuple(file for file in copied if file.size < BIG_BYTES)
        if shared or rest:
            small.append(_Job(folder, shared, rest))
    big.sort(key=lambda job: job.copied[0].size, reverse=True)
    return _Plan((*big, *small), size)


@contextmanager
def _helpers(most: int) -> Iterator[int]:
    """Lend a build that copies much the cores that no other build uses; links and small copies gain nothing by it."""
    lent = 0
    try:
        while lent < most and _slots.acquire(blocking=False):
            lent += 1
        yield lent
    finally:
        for _ in range(lent):
            _slots.release()


@dataclass
class _Work:
    """The jobs of one build, done by as many threads as call :meth:`done`."""

    master: Path
    target: Path
    modes: Modes
    jobs: deque[_Job]
    deadline_at: float | None

    def done(self) -> Counter[Way]:
        ways: Counter[Way] = Counter()
        try:
            while job := self._next():
                self._do(job, ways)
        except BaseException:
            self.jobs.clear()
            raise
        return ways

    def _next(self) -> _Job | None:
        try:
            return self.jobs.popleft()
        except IndexError:
            return None

    def _do(self, job: _Job, ways: Counter[Way]) -> None:
        if self.deadline_at is not None and time.monotonic() > self.deadline_at:
            raise errors.TooSlow("building a clone took too long")
        old_folder, new_folder = os.path.join(self.master, job.folder), os.path.join(self.target, job.folder)
        with inside.trusted(old_folder) as old, inside.trusted(new_folder) as new:
            for file in job.shared:
                ways[copying.share(file, old, new, self.modes)] += 1
                faults.point("file")
            for file in job.copied:
                ways[copying.give(file, old, new, self.modes)] += 1
                faults.point("file")


@contextmanager
def _nothing_left(target: Path) -> Iterator[None]:
    """On any error remove ``target`` at once: after a full disk the space is wanted now."""
    try:
        yield
    except FileNotFoundError as error:
        _removed(target)
        raise errors.MasterChanged from error
    except BaseException:
        _removed(target)
        raise


def _removed(target: Path) -> None:
    try:
        tree.remove(target)
    except OSError as error:
        # Its name says that it is half-built: no one takes it for a clone, and the next start throws it away.
        _log.warning("a half-built clone stays", extra={"event": "half_built", "errno": error.errno})


def publish(built: Path, final: Path) -> None:
    """Let ``built`` be seen as ``final``, whole, in one step; raise :class:`errors.AlreadyThere` if one stands there.

    POSIX lets a rename replace an empty folder. That one could appear between our look and the rename is accepted: an
    empty folder is no clone, and instances are worked on under a lock of their own.
    """
    if os.path.lexists(final):
        raise errors.AlreadyThere(f"{final.name} stands under {final.parent.name} already")
    try:
        os.rename(built, final)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise errors.AlreadyThere(f"{final.name} stands under {final.parent.name} already") from error
        raise errors.from_os_error(error, f"publishing {final.name}") from error
    faults.point("publish")


def make_clone(root: Path, folder: str, *, pool: Warm | None, modes: Modes, deadline_at: float | None = None) -> Made:
    """Put a clone of the master at ``Users/<folder>``, from the pool if it has one, else built now.

    Raises :class:`errors.AlreadyThere` if something of that name stands there: what that means is the caller's to say.
    """
    began = time.monotonic()
    final = root / "Users" / protocol.checked_name(folder)
    if os.path.lexists(final):
        raise errors.AlreadyThere(f"{folder} stands under Users already")
    with errors.typed("making the farm's folders"):
        final.parent.mkdir(exist_ok=True)
        (root / "Pool").mkdir(exist_ok=True)
    master = masters.load(root, max_age_seconds=MASTER_MAX_AGE_SECONDS)
    if pool and pool.take(final, master.digest):
        return Made(digest=master.digest, how=POOL_WAY, seconds=time.monotonic() - began)
    try:
        built = _built_at(root, final, master, modes, deadline_at)
    except errors.MasterChanged:
        master = masters.load(root, max_age_seconds=0)
        built = _built_at(root, final, master, modes, deadline_at)
    best = next(way for way in Way if built.ways[way])
    return Made(digest=master.digest, how=best.value, seconds=time.monotonic() - began)


def _built_at(root: Path, final: Path, master: Master, modes: Modes, deadline_at: float | None) -> Built:
    place = root / "Pool" / tree.half_built_name()
    built = build(master, place, modes, deadline_at=deadline_at)
    with _nothing_left(place):
        publish(place, final)
    return built
