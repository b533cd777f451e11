"""Giving one file of the master to a clone, in the cheapest way that is safe and that this disk can do."""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from farm.agent import errors, terminal_user
from farm.agent.inside import Side
from farm.agent.manifest import File

if sys.platform != "win32":
    import fcntl

_FICLONE = 0x40049409
_CHUNK = 1 << 20
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_READ = os.O_RDONLY | _BINARY | getattr(os, "O_NOFOLLOW", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY


class Way(StrEnum):
    LINK = "link"
    REFLINK = "reflink"
    COPY_RANGE = "copy_file_range"
    COPY = "copy"


@dataclass(frozen=True, kw_only=True)
class Modes:
    """What may be used on this host; :func:`farm.agent.probe.probe` finds out, on the real folder."""

    link: bool = False
    reflink: bool = False
    copy_range: bool = False
    history: bool = True
    """Clones get the master's price history; without, the terminal fetches what it needs from its broker."""
    terminal_user: int | None = None
    """User id that terminals run as; None: the agent's own."""
    terminal_group: int | None = None
    barred: str = ""
    """Why no terminal can be run as that user; then none is."""
    notes: tuple[str, ...] = ()
    """Why a way is not used, for the person who wonders."""

    @property
    def best(self) -> Way:
        allowed = ((self.link, Way.LINK), (self.reflink, Way.REFLINK), (self.copy_range, Way.COPY_RANGE))
        return next((way for may, way in allowed if may), Way.COPY)

    @property
    def hands_over(self) -> bool:
        """The clone's own files have to be given to the user that terminals run as."""
        return terminal_user.is_another(self.terminal_user)


def share(file: File, source: Side, target: Side, modes: Modes) -> Way:
    """Link ``file``, which :func:`may_be_shared`, into ``target``; copy it where it takes no further link."""
    name = file.path.rpartition("/")[2]
    try:
        os.link(source.named(name), target.named(name), src_dir_fd=source.handle, dst_dir_fd=target.handle)
    except OSError as error:  # too many of them, another disk, not ours to link
        if _helps_another_way(error):
            return give(file, source, target, modes)
        raise
    return Way.LINK


def may_be_shared(file: File, master: Path, modes: Modes) -> bool:
    """Tell whether the terminals' user provably cannot write this very file, nor give itself the right to."""
    if not (modes.link and file.immutable):
        return False
    if sys.platform == "win32":
        # A read-only attribute would be all clones' at once, and has to be cleared to delete any of them.
        return bool(file.stamp.mode & stat.S_IWRITE) and _refuses_us(os.path.join(master, file.path))
    user = os.geteuid() if modes.terminal_user is None else modes.terminal_user
    # The group's bits are also the mask of an access list: without them no list lets anyone else write. And what that
    # user cannot read either is of no use to it.
    mode = file.stamp.mode & (stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH)
    return user not in (0, file.stamp.owner) and mode == stat.S_IROTH


def _refuses_us(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | _BINARY))
    except PermissionError as error:
        return getattr(error, "winerror", 5) != 32
    except OSError:
        return False
    return False


_ANOTHER_WAY = {
    errno.EMLINK,
    errno.EXDEV,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOTTY,
    errno.EPERM,
    errno.EACCES,
}
_ANOTHER_WAY_ON_WINDOWS = {1, 17, 50, 1142}


def _helps_another_way(error: OSError) -> bool:
    return error.errno in _ANOTHER_WAY or getattr(error, "winerror", None) in _ANOTHER_WAY_ON_WINDOWS


# --- copies ----------------------------------------------------------------------------------------------------------


def give(file: File, source: Side, target: Side, modes: Modes) -> Way:
    """Put a copy of ``file`` of the folder ``source`` into ``target`` and return how it was done.

    Raises :class:`errors.MasterChanged` if it is not the file of the manifest any more, and OSError for what no other
    way would help: a full or read-only disk.
    """
    name = file.path.rpartition("/")[2]
    mode = 0o644 | file.stamp.mode & 0o111
    old = os.open(source.named(name), _READ, dir_fd=source.handle)
    try:
        new = os.open(target.named(name), _NEW, mode, dir_fd=target.handle)
        try:
            way = fill(old, new, file.size, modes)
            if modes.hands_over:
                hand_over(new, modes)
        finally:
            os.close(new)
        seen = os.fstat(old)
        if (seen.st_size, seen.st_mtime_ns) != (file.size, file.stamp.mtime_ns):
            raise errors.MasterChanged(f"{file.path} was changed while it was being cloned")
    finally:
        os.close(old)
    return way


def hand_over(what: int | str | Path, modes: Modes) -> None:
    """Give a file or folder of the clone, not one that is shared, to the user that terminals run as."""
    if sys.platform != "win32" and modes.terminal_user is not None:
        os.chown(what, modes.terminal_user, -1 if modes.terminal_group is None else modes.terminal_group)


def fill(old: int, new: int, size: int, modes: Modes) -> Way:
    """Copy ``size`` bytes between two open files, in the best way that works for this pair."""
    if modes.reflink and _reflink(old, new):
        return Way.REFLINK
    if modes.copy_range and _copy_range(old, new, size):
        return Way.COPY_RANGE
    _plain(old, new, size)
    return Way.COPY


if sys.platform == "win32":

    def _reflink(old: int, new: int) -> bool:
        return False

else:

    def _reflink(old: int, new: int) -> bool:
        try:
            fcntl.ioctl(new, _FICLONE, old)
        except OSError as error:
            if _helps_another_way(error):
                return False
            raise
        return True


def _copy_range(old: int, new: int, size: int) -> bool:
    """Return False, with both files as before, where the kernel will not copy between these two."""
    if not hasattr(os, "copy_file_range"):
        return False
    left = size
    try:
        while left:
            copied = os.copy_file_range(old, new, left)
            if not copied:
                raise errors.MasterChanged
            left -= copied
    except OSError as error:
        if not _helps_another_way(error):
            raise
        os.lseek(old, 0, os.SEEK_SET)
        os.lseek(new, 0, os.SEEK_SET)
        os.ftruncate(new, 0)
        return False
    return True


def _plain(old: int, new: int, size: int) -> None:
    left = size
    while left:
        chunk = memoryview(os.read(old, min(left, _CHUNK)))
        if not chunk:
            raise errors.MasterChanged
        left -= len(chunk)
        while chunk:
            chunk = chunk[os.write(new, chunk) :]
