"""Ready clones, made before anyone asks: a customer's clone is then one rename.

A ready clone is a folder ``Pool/ready-<start of the master's digest>-<n>``; whoever renames it has it, so two can never
get the same one. Clones of a master that is no more are discarded.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from farm.agent import build, errors, faults, purge, terminal_user, tree
from farm.agent import master as masters
from farm.agent.copying import Modes
from farm.agent.master import Master

READY = "ready-"
NICE = 10
RATE_WINDOW_SECONDS = 3600.0
RETRY_SECONDS = 30.0
"""After a refill that failed: a full disk does not get better by trying."""

_log = logging.getLogger(__name__)


@dataclass
class Pool:
    """The warm clones of one host. Any thread may take; one thread of its own refills."""

    root: Path
    size: int
    modes: Modes
    now: Callable[[], float] = time.monotonic
    misses: int = 0
    taken: int = 0
    _filled_at: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    _last_seconds: float = 0.0
    _not_before: float = float("-inf")
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def folder(self) -> Path:
        return self.root / "Pool"

    def take(self, final: Path, digest: str) -> bool:
        """Make a ready clone of the master ``digest`` appear at ``final``; False: there is none, build one.

        Raises :class:`errors.AlreadyThere` if something stands at ``final``.
        """
        for name in self._ready(digest):
            try:
                build.publish(self.folder / name, final)
            except errors.AlreadyThere:
                raise
            except errors.FolderTrouble:
                # Another took it first, or it is held open: the next one will do.
                continue
            with self._counting:
                self.taken += 1
            return True
        with self._counting:
            self.misses += self.size > 0
        return False

    def clean(self) -> int:
        """Discard what earlier runs left half-built; return how many. Call it when the worker starts."""
        names = [name for name in self._names() if name.startswith(tree.HALF_BUILT) and tree.is_abandoned(name)]
        return sum(self._discard(name) for name in names)

    def refill(self) -> bool:
        """Do one step towards a full pool of the present master; True: it did something, call again soon.

        Raises the typed error of a master that cannot be cloned or a disk that is full; the next steps then do nothing
        for a while.
        """
        if self.now() < self._not_before:
            return False
        try:
            return self._step()
        except errors.AgentError:
            self._not_before = self.now() + RETRY_SECONDS
            raise

    def facts(self) -> dict[str, int | float]:
        """What the survey says of the pool; the rate is of the last hour, the misses since the start."""
        with self._counting:
            recent = sum(1 for at in self._filled_at if self.now() - at < RATE_WINDOW_SECONDS)
            return {
                "size": self.size,
                "ready": sum(name.startswith(READY) for name in self._names()),
                "misses": self.misses,
                "taken": self.taken,
                "refilled_last_hour": recent,
                "refill_seconds": round(self._last_seconds, 3),
            }

    # --- inside ---

    def _step(self) -> bool:
        with errors.typed("making the pool's folder"):
            self.folder.mkdir(exist_ok=True)
        master = masters.load(self.root)
        ready = self._ready(master.digest)
        surplus = [name for name in self._names() if name.startswith(READY) and name not in ready]
        surplus += ready[self.size :]
        if surplus:
            return self._discard(surplus[0])
        if len(ready) >= self.size or not self._has_room(master):
            return False
        return self._add(master)

    def _add(self, master: Master) -> bool:
        place = self.folder / tree.half_built_name()
        built = build.build_if_idle(master, place, self.modes)
        if built is None:
            return False
        if masters.load(self.root, max_age_seconds=0).digest != master.digest:
            return self._discard(place.name)
        with errors.typed("writing a ready clone out"):
            _settle(place)
        faults.point("settle")
        build.publish(place, self.folder / f"{_prefix(master.digest)}{uuid4().hex[:8]}")
        with self._counting:
            self._filled_at.append(self.now())
            self._last_seconds = built.seconds
        return True

    def _has_room(self, master: Master) -> bool:
        """Leave customers' own clones the space for at least two plain copies of the master."""
        return shutil.disk_usage(self.folder).free > 3 * master.manifest.size

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise errors.from_os_error(error, "reading the pool") from error

    def _ready(self, digest: str) -> list[str]:
        """Those that can be taken: not one of another master, nor one made for another user than terminals have now."""
        user = self.modes.terminal_user
        mine = [name for name in self._names() if name.startswith(_prefix(digest))]
        return [name for name in mine if terminal_user.is_made_for(self.folder / name, user)]

    def _discard(self, name: str) -> bool:
        return purge.discard(self.root, self.folder / name) is not None


def _prefix(digest: str) -> str:
    return f"{READY}{digest[:8]}-"


# --- at low priority, and lasting ------------------------------------------------------------------------------------


def lower_priority() -> None:
    """Have the calling thread yield to all others, for good: only the thread that refills calls this."""
    if sys.platform == "linux":
        # On Linux a thread has a priority of its own, under its own id.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    elif sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32")
        background_begin = 0x00010000
        kernel.SetThreadPriority(ctypes.c_void_p(kernel.GetCurrentThread()), background_begin)


def _settle(folder: Path) -> None:
    """Get a ready clone onto the disk while nobody waits for it, so that one taken survives a power cut whole."""
    if sys.platform != "linux":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync = getattr(ctypes.CDLL(None), "syncfs", None)
        if sync is not None:
            sync(handle)
    finally:
        os.close(handle)
