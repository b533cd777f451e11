"""Reaching into a clone, whose every name is in its customer's hands: step by step, and never through a link.

The agent may run as root. A link that an Expert Advisor puts in place of ``Config`` would have it write a password into
/etc, one in place of ``logs`` would have it prune /var/log. So each folder on the way is opened in the one before, and
everything is done relative to the last. What is made there belongs to whom its folder belongs. Windows can open nothing
relative to a folder: there each step is looked at, and the agent runs as the terminals' own user.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from farm.agent import tree

RELATIVE = os.open in os.supports_dir_fd
"""The system can name a file relative to an open folder."""
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _BINARY
_READ = os.O_RDONLY | _BINARY | _NO_LINK | getattr(os, "O_NONBLOCK", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY


@dataclass(frozen=True)
class Side:
    """One folder, open where the system can name files relative to an open folder; that spares a walk per file, too."""

    path: str
    handle: int | None

    def named(self, name: str) -> str:
        return name if self.handle is not None else os.path.join(self.path, name)

    def look(self, name: str) -> os.stat_result:
        return os.stat(self.named(name), dir_fd=self.handle, follow_symlinks=False)

    def itself(self) -> os.stat_result:
        return os.stat(self.path if self.handle is None else self.handle)

    def entries(self, *, most: int) -> list[os.DirEntry[str]]:
        """Return at most ``most`` of what is in it: nobody knows how much a customer's program put there."""
        with os.scandir(self.path if self.handle is None else self.handle) as found:
            return list(islice(found, most))

    def read(self, name: str) -> int:
        """Open a plain file; OSError for a link, and for a pipe or a device, which could hold up the reader."""
        if not stat.S_ISREG(self.look(name).st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        handle = os.open(self.named(name), _READ, dir_fd=self.handle)
        if not stat.S_ISREG(os.fstat(handle).st_mode):  # it was put there since
            os.close(handle)
            raise OSError(errno.EINVAL, "not a plain file")
        return handle

    def make(self, name: str, mode: int) -> int:
        """Make a new file that belongs to whom this folder belongs, and open it for writing."""
        handle = os.open(self.named(name), _NEW, mode, dir_fd=self.handle)
        self._hand_over(handle)
        return handle

    def make_folder(self, name: str) -> None:
        """Make a folder that belongs to whom this one belongs, unless it is there."""
        with suppress(FileExistsError):
            os.mkdir(self.named(name), dir_fd=self.handle)
            if self.handle is not None:
                made = os.open(name, FOLDER | _NO_LINK, dir_fd=self.handle)
                try:
                    self._hand_over(made)
                finally:
                    os.close(made)

    def remove(self, name: str) -> None:
        """Remove a file, or a link itself; nothing there is success."""
        with suppress(FileNotFoundError):
            os.unlink(self.named(name), dir_fd=self.handle)

    def replace(self, name: str, by: str) -> None:
        os.replace(self.named(by), self.named(name), src_dir_fd=self.handle, dst_dir_fd=self.handle)

    def _hand_over(self, made: int) -> None:
        if sys.platform != "win32" and self.handle is not None:
            ours = os.fstat(self.handle)
            if ours.st_uid != os.geteuid():
                os.fchown(made, ours.st_uid, ours.st_gid)


@contextmanager
def trusted(folder: Path | str) -> Iterator[Side]:
    """Open a folder of the agent's own, where no name is anybody else's."""
    handle = os.open(folder, FOLDER) if RELATIVE else None
    try:
        yield Side(str(folder), handle)
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def opened(clone: Path, folder: str = "", *, make: bool = False) -> Iterator[Side]:
    """Open ``folder`` (with ``/``) of ``clone``, with ``make`` making what is missing of it on the way.

    FileNotFoundError if it is not there, NotADirectoryError where a link or a file is in place of a folder.
    """
    side = _step(None, str(clone))
    try:
        for part in folder.split("/") if folder else ():
            if make:
                side.make_folder(part)
            deeper = _step(side, part)
            _close(side)
            side = deeper
        yield side
    finally:
        _close(side)


@contextmanager
def deeper(side: Side, name: str) -> Iterator[Side]:
    """Open the folder ``name`` in ``side``."""
    below = _step(side, name)
    try:
        yield below
    finally:
        _close(below)


def _step(side: Side | None, name: str) -> Side:
    path = os.path.join(side.path, name) if side else name
    if RELATIVE:
        try:
            return Side(path, os.open(name, FOLDER | _NO_LINK, dir_fd=side.handle if side else None))
        except OSError as error:
            if error.errno == errno.ELOOP:  # some systems' word for a link
                raise NotADirectoryError(errno.ENOTDIR, "a link in place of a folder") from error
            raise
    if not tree.is_folder(os.lstat(path)):
        raise NotADirectoryError(errno.ENOTDIR, "a link or a file in place of a folder")
    return Side(path, None)


def _close(side: Side) -> None:
    if side.handle is not None:
        os.close(side.handle)
