"""A folder on disk: walked, removed and written without ever following a link out of it."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

import psutil

from farm.agent import faults

_NAME_SURROGATE = 0x20000000
"""Bit of a Windows reparse tag: the entry stands for another one, as a symbolic link and a junction do."""

HALF_BUILT = ".tmp-"


def is_link(seen: os.stat_result) -> bool:
    """Tell whether this ``lstat`` is of a symbolic link, or of a junction on Windows."""
    return stat.S_ISLNK(seen.st_mode) or bool(getattr(seen, "st_reparse_tag", 0) & _NAME_SURROGATE)


def is_folder(seen: os.stat_result) -> bool:
    return stat.S_ISDIR(seen.st_mode) and not is_link(seen)


def links(path: Path) -> bool:
    """Whether ``path`` itself is a link or a junction, wherever it leads."""
    try:
        return is_link(os.lstat(path))
    except OSError:
        return False


@dataclass(frozen=True)
class Entry:
    """One thing below a folder; ``path`` is relative to it, with ``/``."""

    path: str
    seen: os.stat_result


def walk(root: Path | str, *, most: int | None = None) -> Iterator[Entry]:
    """Yield all below ``root``, a folder before what is in it and its files together; links are not followed.

    At most ``most`` things of one folder: one that somebody filled without end would fill the memory, too.
    """
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(os.path.join(root, inside) if inside else root) as scan:
            rows = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in islice(scan, most))
        for name, seen in rows:
            path = f"{inside}/{name}" if inside else name
            if is_folder(seen):
                waiting.append(path)
            yield Entry(path, seen)


def remove(path: Path) -> None:
    """Remove ``path`` and all below it; nothing there is success. OSError at the first thing that will not go."""
    for _ in removing(path):
        pass


def removing(path: Path) -> Iterator[str]:
    """Remove ``path`` from its leaves up, yielding each path just removed: the caller can pause or stop there.

    What is in it may be hostile, and still be written to: no link is ever followed, not even one that takes a folder's
    place at this moment; folders of any depth and any number of files cost the same few handles and little memory.
    """
    try:
        seen = os.lstat(path)
    except FileNotFoundError:
        return
    if not is_folder(seen):
        _unlink(str(path), None, seen)
        yield str(path)
        return
    trail: list[_Level] = []
    try:
        trail.append(_Level(str(path), None))
        while trail:
            yield from _step(trail)
    finally:
        for level in trail:
            level.close()


def _step(trail: list[_Level]) -> Iterator[str]:
    """Remove one thing of the deepest folder, or step down into it, or remove the folder itself and step up."""
    here = trail[-1]
    below = here.next()
    if below is None:
        here.close()
        trail.pop()
        if _remove_folder(here.path, trail[-1] if trail else None):
            yield here.path
        else:
            trail.append(_Level(here.path, trail[-1] if trail else None))  # something came into it meanwhile
        return
    name, seen = below
    if not is_folder(seen):
        _unlink(here.named(name), here.handle, seen)
        yield os.path.join(here.path, name)
    elif len(trail) < _DEPTH or here.handle is None:
        with suppress(FileNotFoundError):
            trail.append(_Level(os.path.join(here.path, name), here))
    else:
        os.rename(name, f".deep-{uuid4().hex}", src_dir_fd=here.handle, dst_dir_fd=trail[0].handle)
        trail[0].whole = False


_DEPTH = 64
"""Folders that lie deeper are first moved up: no path grows too long, and no handle is lacking."""
_LISTED = 1000
"""So many things of one folder are looked at before the next are."""


class _Level:
    """One folder on the way down, open where the system can do things relative to it, and what is still in it."""

    def __init__(self, path: str, above: _Level | None) -> None:
        self.path = path
        self.handle = _opened(path, above) if os.open in os.supports_dir_fd else None
        self.rows: list[tuple[str, os.stat_result]] = []
        self.whole = False
        """All that is in it has been listed."""

    def named(self, name: str) -> str:
        return name if self.handle is not None else os.path.join(self.path, name)

    def next(self) -> tuple[str, os.stat_result] | None:
        if not self.rows and not self.whole:
            with suppress(FileNotFoundError), os.scandir(self.path if self.handle is None else self.handle) as found:
                self.rows = [(e.name, e.stat(follow_symlinks=False)) for e in islice(found, _LISTED)]
            self.whole = len(self.rows) < _LISTED
        return self.rows.pop() if self.rows else None

    def close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def _opened(path: str, above: _Level | None) -> int:
    """Open a folder, and make it one from which things can be removed, if it is not."""
    name, inside = (path, None) if above is None else (os.path.basename(path), above.handle)
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(name, flags, dir_fd=inside)
    except PermissionError:
        os.chmod(name, stat.S_IRWXU, dir_fd=inside)
        handle = os.open(name, flags, dir_fd=inside)
    if sys.platform != "win32" and os.fstat(handle).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(handle, stat.S_IRWXU)
    return handle


def _remove_folder(path: str, above: _Level | None) -> bool:
    """Remove an empty folder; False if it is not empty."""
    try:
        with suppress(FileNotFoundError):
            if above is None:
                os.rmdir(path)
            else:
                os.rmdir(above.named(os.path.basename(path)), dir_fd=above.handle)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    faults.point("unlink")
    return True


def _unlink(path: str, inside: int | None, seen: os.stat_result) -> None:
    """Remove a file or a link itself. No chmod on POSIX: the mode is the inode's, and another clone may share it."""
    with suppress(FileNotFoundError):
        if sys.platform == "win32" and not is_link(seen) and not seen.st_mode & stat.S_IWRITE:
            os.chmod(path, stat.S_IREAD | stat.S_IWRITE)
        os.unlink(path, dir_fd=inside)
    faults.point("unlink")


def write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put ``content`` at ``path`` in one step and synced: a reader sees the old or the new, also after a power cut."""
    beside = path.with_name(f"{HALF_BUILT}{path.name}-{uuid4().hex[:8]}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(beside, flags, mode), "wb") as new:
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power cut; Windows has no such call and journals names itself."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- half-built things -----------------------------------------------------------------------------------------------


def half_built_name() -> str:
    """A new name for something being built, telling by whom, so that a start throws away only what no one works on."""
    return f"{HALF_BUILT}{os.getpid()}-{_started(os.getpid())}-{uuid4().hex[:8]}"


def is_abandoned(name: str) -> bool:
    """Tell whether the process that gave this name to its work has ended."""
    parts = name.removeprefix(HALF_BUILT).split("-")
    if len(parts) != 3 or not parts[0].isdigit() or not parts[1].isdigit():
        return True
    # A corrected clock moves the start time that the system computes by a little; a pid does not come round so soon.
    return abs(_started(int(parts[0])) - int(parts[1])) > 2


def _started(pid: int) -> int:
    try:
        return int(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return 0
