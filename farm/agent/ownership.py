"""Whose process is it: what :mod:`processes` asks of one process.

On Windows its executable lies in the clone's folder; elsewhere (Wine, the stand-in) its first argument does, or its
working folder is the clone and it was given ``/portable``. The terminal's own updater, which runs from another folder
and starts the terminal again, belongs to the clone that it updates.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

WINDOWS = sys.platform == "win32"
PORTABLE, UPDATE = "/portable", "/update"
TERMINAL_NAMES = ("terminal64.exe", "terminal.exe")
NEWBORN_LOOKS = 10

# What psutil raises for a process that went away or cannot be looked at; plain OSError is what it lets through of
# Windows, and of Wine, which lacks the call behind exe() and name().
GONE = (psutil.NoSuchProcess, ProcessLookupError)
TROUBLE = (psutil.Error, OSError)


class Hidden(Exception):
    """It looks like a terminal, but whose it is cannot be seen."""


@dataclass(frozen=True)
class Base:
    """``Users``, ready to be compared with what processes say."""

    prefix: str

    @classmethod
    def of(cls, users: Path) -> Base:
        return cls(_plain(os.path.realpath(users)).rstrip("/") + "/")

    def folder(self, path: str) -> str | None:
        """Return the clone that ``path`` is, or lies in."""
        path = _plain(path)
        if not path.startswith(self.prefix):
            return None
        return path[len(self.prefix) :].split("/", 1)[0] or None


_WINE_DRIVE = re.compile(r"^[zZ]:(?=[\\/])")


def _plain(path: str) -> str:
    """Write a path one way: Windows ignores case and takes both strokes; Wine shows the root folder as drive Z."""
    if WINDOWS:
        return path.replace("\\", "/").lower()
    if _WINE_DRIVE.match(path):
        return path[2:].replace("\\", "/")
    return path


def owner(process: psutil.Process, base: Base) -> str | None:
    """Return the name of the clone that ``process`` belongs to, or None; :class:`Hidden` if it cannot be seen."""
    if WINDOWS:
        return _windows_owner(process, base)
    argv = process.cmdline() or _argv_of_newborn(process)
    if not argv:  # a kernel thread or a zombie
        return None
    if is_updater(argv):
        return _unless_zombie(process, _named(argv, "/path:", base))
    owner = base.folder(argv[0])
    if owner is not None or not _is_portable(argv):
        return _unless_zombie(process, owner)
    try:
        cwd = process.cwd()
    except psutil.AccessDenied as error:
        return _named_in_config(argv, base, error)
    return _unless_zombie(process, base.folder(cwd) if _is_clone(cwd, base) else None)


def _argv_of_newborn(process: psutil.Process) -> list[str]:
    """Our own child has no arguments for a moment while it becomes the terminal: a stop must not overlook it then."""
    argv: list[str] = []
    for _ in range(NEWBORN_LOOKS):
        if argv or process.ppid() != os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.002)
        argv = process.cmdline()
    return argv


def _is_portable(argv: Sequence[str]) -> bool:
    return any(word.lower() == PORTABLE for word in argv[1:])


def _is_clone(cwd: str, base: Base) -> bool:
    return _plain(cwd).rstrip("/").rpartition("/")[0] + "/" == base.prefix


def _unless_zombie(process: psutil.Process, owner: str | None) -> str | None:
    return None if owner is None or process.status() == psutil.STATUS_ZOMBIE else owner


def _named_in_config(argv: Sequence[str], base: Base, error: psutil.AccessDenied) -> str:
    """Another user's terminal: its working folder is hidden, but its start-up file names the clone."""
    if owner := _named(argv, "/config:", base):
        return owner
    raise Hidden from error


def _named(argv: Sequence[str], option: str, base: Base) -> str | None:
    for word in argv[1:]:
        if word.lower().startswith(option):
            return base.folder(word[len(option) :].strip('"'))
    return None


def is_updater(argv: Sequence[str]) -> bool:
    return UPDATE in (word.lower() for word in argv[1:])


def _windows_owner(process: psutil.Process, base: Base) -> str | None:
    program = _windows_program(process)
    owner = base.folder(program)
    if owner is None and program.lower().endswith(TERMINAL_NAMES):
        argv = process.cmdline()
        return _named(argv, "/path:", base) if is_updater(argv) else None
    return owner


def _windows_program(process: psutil.Process) -> str:
    try:
        return process.exe()
    except GONE:
        raise
    except TROUBLE:
        # Under Wine exe() does not exist; on Windows it is refused for other users' protected processes.
        try:
            argv = process.cmdline()
        except psutil.AccessDenied:
            if _may_be_terminal(process):
                raise Hidden from None
            raise
        return argv[0] if argv else ""


def _may_be_terminal(process: psutil.Process) -> bool:
    try:
        return process.name().lower() in TERMINAL_NAMES
    except GONE:
        return False
    except TROUBLE:
        return False
