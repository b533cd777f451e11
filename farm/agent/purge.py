"""Getting rid of clones: out of sight by one rename, deleted later and slowly.

Deleting thousands of files at once slows all else that the disk has to do, so it never happens while anybody waits.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from farm.agent import errors, faults, tree

IN_USE_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between tries to move a folder that a program, a virus scanner perhaps, has open on Windows."""
LONGEST_WAIT_SECONDS = 3600.0

_log = logging.getLogger(__name__)


def discard(
    root: Path, folder: Path, *, waits: Iterable[float] = IN_USE_WAITS, sleep: Callable[[float], None] = time.sleep
) -> Path | None:
    """Move ``folder`` to ``Trash`` and return where it lies now; None: it was gone already, which is success.

    Tries again after each of ``waits`` while files in it are in use, then raises :class:`errors.FilesInUse`.
    """
    target = root / "Trash" / f"{folder.name}-{uuid4().hex[:12]}"
    with errors.typed("making the trash folder"):
        target.parent.mkdir(exist_ok=True)
    pauses = iter(waits)
    while True:
        try:
            os.rename(folder, target)
            break
        except FileNotFoundError:
            return None
        except OSError as error:
            typed = errors.from_os_error(error, f"moving {folder.name} to the trash")
            pause = next(pauses, None)
            if not isinstance(typed, errors.FilesInUse) or pause is None:
                raise typed from error
            sleep(pause)
    faults.point("discard")
    return target


@dataclass
class Backoff:
    """Which entries of the trash would not go, how often, and when to try each again."""

    tries: dict[str, int] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)

    def failed(self, name: str, now: float) -> None:
        self.tries[name] = self.tries.get(name, 0) + 1
        self.due[name] = now + min(2.0 ** self.tries[name], LONGEST_WAIT_SECONDS)

    def is_due(self, name: str, now: float) -> bool:
        return now >= self.due.get(name, now)

    def forget(self, name: str) -> None:
        self.tries.pop(name, None)
        self.due.pop(name, None)


_backoff = Backoff()


@dataclass(kw_only=True)
class Purged:
    """What one call did, and what is left to do."""

    things: int = 0
    """Files, links and folders removed."""
    entries: int = 0
    """Whole entries of the trash that are gone now."""
    left: int = 0
    failing: list[str] = field(default_factory=list)
    """Entries that would not go; each is tried again later."""


def purge(
    root: Path,
    *,
    things: int = 1000,
    seconds: float = 0.5,
    backoff: Backoff = _backoff,
    now: Callable[[], float] = time.monotonic,
) -> Purged:
    """Delete from ``Trash`` until ``things`` or ``seconds`` are used up; call it again, after a pause, to go on.

    Never follows a link or a junction. An entry that will not go is left for later, and does not stop the others.
    """
    done = Purged()
    end = now() + seconds
    names = _listed(root / "Trash")
    for name in names:
        if not backoff.is_due(name, now()):
            done.failing.append(name)
            continue
        if done.things >= things or now() >= end:
            break
        try:
            if _removed(root / "Trash" / name, done, things, end, now):
                done.entries += 1
                backoff.forget(name)
        except OSError as error:
            backoff.failed(name, now())
            done.failing.append(name)
            _log.warning("a discarded folder will not go", extra={"event": "purge", "entry": name, "why": str(error)})
    done.left = len(names) - done.entries
    return done


def _listed(trash: Path) -> list[str]:
    try:
        return sorted(os.listdir(trash))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise errors.from_os_error(error, "reading the trash") from error


def _removed(entry: Path, done: Purged, things: int, end: float, now: Callable[[], float]) -> bool:
    """Remove ``entry`` as far as the budget lasts; tell whether all of it is gone."""
    for _ in tree.removing(entry):
        done.things += 1
        if done.things >= things or now() >= end:
            return not os.path.lexists(entry)
    return True
