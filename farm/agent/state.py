"""What a host remembers of each instance, outside its clone: ``State/<instance>.json``.

It holds the highest (epoch, generation) seen, so that an old order delivered late is refused; what the instance is
meant to be, so that it comes up again after a crash or a reboot; and the sealed order that its account came in, never
the password. It is written to a temporary file, synced and renamed *before* the host acts, under the instance's lock
(farm.agent.locks). The one that it replaces is kept beside it, for a disk that loses what it had promised to keep.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from farm.agent import faults, locks, reserve, tree
from farm.agent.errors import AgentError, DiskFull, typed
from farm.agent.protocol import Order, Reason, unreadable_state

log = logging.getLogger(__name__)


CLOCK_SLEW_SECONDS = 5.0
"""A clock that goes back by less is being corrected, and was not set."""


class StateUnreadable(AgentError):
    """What the host remembers of this instance cannot be read, so nothing is done with it."""


class Goal(StrEnum):
    """What the last order wants the instance to be."""

    STOPPED = "stopped"
    RUNNING = "running"
    DESTROYED = "destroyed"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One start of the terminal's process."""

    pid: int
    """0 while the process is about to be started."""
    created: float
    started_at: float
    account: str = ""
    """``login@server``, or "" without one: a start with another account is another terminal."""
    journal: dict[str, Any] | None = None
    """Where the journal stood before: nothing older says anything about this launch."""
    watchdog: str = ""
    """Which watchdog's child it is, and dies with it; "" for the agent's own."""

    def waited(self, now: float) -> float:
        """Return how long ago it was; without end, if it was after ``now``: the clock was set back, and can't tell."""
        seconds = now - self.started_at
        return seconds if seconds > -CLOCK_SLEW_SECONDS else math.inf


@dataclass(kw_only=True)
class State:
    instance: int
    folder: str
    epoch: int = 0
    generation: int = 0
    verb: str = ""
    """Of the last order; with ``answer`` empty it is still to be answered."""
    goal: Goal = Goal.STOPPED
    built: str = ""
    """``building`` from before the clone is visible, ``built`` after: a folder that stands before is not ours."""
    digest: str = ""
    injected: dict[str, Any] | None = None
    """The last ``inject`` order, sealed as it came."""
    run: dict[str, Any] | None = None
    """The last ``start`` order: port, magic number and account that a restart uses again."""
    launch: Launch | None = None
    crashes: list[float] = field(default_factory=list)
    reason: Reason = Reason.NONE
    """Why it is not as it was told to be."""
    tombstone: bool = False
    destroyed_at: float | None = None
    answer: str = ""
    """The body of the report that answered the last order."""

    @property
    def age(self) -> tuple[int, int]:
        return (self.epoch, self.generation)

    @property
    def awaits_start(self) -> bool:
        """Whether a start was obeyed and nobody has said yet how it went."""
        return self.verb == "start" and not self.answer and self.goal is Goal.RUNNING

    def inject_order(self) -> Order | None:
        return Order(**self.injected) if self.injected else None

    def start_order(self) -> Order | None:
        return Order(**self.run) if self.run else None

    def bury(self, *, at: float) -> None:
        """Keep of a destroyed instance only what refuses a clone that comes after."""
        self.goal, self.tombstone, self.destroyed_at = Goal.DESTROYED, True, at
        self.built, self.injected, self.run, self.launch, self.crashes = "", None, None, None, []
        self.reason = Reason.NONE


_FIELDS = frozenset(f.name for f in fields(State))


def _parsed(data: Mapping[str, Any]) -> State:
    known = {name: value for name, value in data.items() if name in _FIELDS}
    launch = known.get("launch")
    return State(
        **{
            **known,
            "goal": Goal(known.get("goal", "stopped")),
            "reason": Reason(known.get("reason", "")),
            "launch": Launch(**launch) if launch else None,
        }
    )


def _path(folder: Path, instance: int) -> Path:
    return folder / f"{instance}.json"


def load(folder: Path, instance: int) -> State | None:
    """Read the state of ``instance`` from ``folder`` (``State``), or None if the host never heard of it.

    One that is gone or cannot be read is taken from before its last change. That too unreadable:
    :class:`StateUnreadable`, and not a new instance, for nobody knows then what runs.
    """
    try:
        return _read(_path(folder, instance), instance)
    except _UNREADABLE as error:
        with suppress(*_UNREADABLE):
            return _read(_before(folder, instance), instance)
        if isinstance(error, FileNotFoundError):
            return None
        raise StateUnreadable(f"State/{instance}.json cannot be read: {type(error).__name__}") from error


_UNREADABLE = (OSError, ValueError, TypeError, AttributeError)


def _read(path: Path, instance: int) -> State:
    found = _parsed(json.loads(path.read_text(encoding="utf-8")))
    if found.instance != instance:
        raise ValueError("another instance's")
    return found


def _before(folder: Path, instance: int) -> Path:
    return folder / f"{instance}.before"


def mend(folder: Path, *, now: float) -> None:
    """Put what cannot be read aside, where there is a state from before; say of the others that they are lost."""
    for instance, path in _files(folder):
        with suppress(AgentError), locks.held(folder, instance, seconds=0.0):
            try:
                _read(path, instance)
            except _UNREADABLE as error:
                known = {"event": "state_unreadable", "instance": instance, "why": type(error).__name__}
                log.error("a state cannot be read", extra=known)
                restored = load(folder, instance)
                if restored is not None:
                    os.replace(path, path.with_suffix(f".unreadable-{now:.0f}"))
                    save(folder, restored)
                    log.warning("it was restored from before its last change", extra=known)


def save(folder: Path, state: State) -> None:
    """Write ``state`` so that it survives a power cut from the moment this returns. Its lock must be held.

    On a full disk the reserve is used up first: a destroy has to be written down too, before it makes room.
    """
    try:
        _save(folder, state)
    except DiskFull:
        if not reserve.given_up(folder):
            raise
        _save(folder, state)


def _save(folder: Path, state: State) -> None:
    path = _path(folder, state.instance)
    # One name is enough, for the instance's lock is held; what a killed agent left under it is written over.
    temporary = folder / f".{state.instance}.tmp"
    with typed(f"writing State/{path.name}"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(state), file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            faults.point("state written")
            _keep_before(path, _before(folder, state.instance), tombstone=state.tombstone)
            _replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        tree.sync_folder(folder)
    faults.point("state saved")


def _keep_before(path: Path, before: Path, *, tombstone: bool) -> None:
    """Keep what is about to be replaced, by a second name: no byte is written. A tombstone keeps no account."""
    with suppress(OSError):  # a disk without links goes without
        before.unlink(missing_ok=True)
        if not tombstone:
            os.link(path, before)


def _replace(source: Path, target: Path, *, tries: int = 20) -> None:
    """Rename over ``target``; on Windows somebody who reads it at this moment makes that fail for a while."""
    for left in reversed(range(tries)):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or not left:
                raise
            time.sleep(0.02)


class Memory:
    """Every state of a farm, read again only when its file has changed: a survey looks at all of them each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[int, tuple[tuple[int, int, int], State]] = {}
        self._lock = threading.Lock()
        self.unreadable: list[int] = []
        """Instances that nothing is known of but that they were here."""

    def every(self) -> list[State]:
        """Return all states, tombstones too, in order of their ids; they are shared, so do not change them."""
        with self._lock:
            self.unreadable = []
            self._seen = dict(self._fresh())
            return [state for _, (_, state) in sorted(self._seen.items())]

    def lost(self) -> list[str]:
        """Return the files that were not readable the last time, by what staff can find them."""
        with self._lock:
            return [unreadable_state(instance) for instance in self.unreadable]

    def _fresh(self) -> Iterator[tuple[int, tuple[tuple[int, int, int], State]]]:
        for instance, path in _files(self._folder):
            try:
                stat = path.stat()
                mark = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
                known = self._seen.get(instance)
                if known and known[0] == mark:
                    yield instance, known
                elif (state := load(self._folder, instance)) is not None:
                    yield instance, (mark, state)
            except FileNotFoundError:
                continue
            except AgentError as error:
                self.unreadable.append(instance)
                log.error("state lost", extra={"event": "state_lost", "instance": instance, "detail": error.detail})


def _files(folder: Path) -> list[tuple[int, Path]]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return [(int(stem), folder / f"{stem}.json") for stem in stems if stem.isascii() and stem.isdigit()]


def forget(folder: Path, instance: int) -> None:
    """Remove a tombstone that no order can be older than any more. Its lock must be held."""
    for name in (f"{instance}.json", f"{instance}.before", f"{instance}.lock"):
        with suppress(OSError):  # Windows keeps the lock file, which is open just now; it is empty and does no harm
            (folder / name).unlink()


def leftovers(folder: Path, *, older_than_seconds: float, now: float) -> list[Path]:
    """Return temporary files that a killed agent left behind."""
    found = []
    with suppress(FileNotFoundError):
        for path in folder.glob(".*.tmp"):
            with suppress(OSError):
                if now - path.stat().st_mtime > older_than_seconds:
                    found.append(path)
    return found
