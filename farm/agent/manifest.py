"""The manifest of a master: every file that a clone gets, its hash, and whether clones may share it.

It is made once, by reading everything, and kept beside the master. From then on one walk over sizes, times and inodes
tells whether the master is still the one that was read; only what moved is read again.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from farm.agent import errors, tree

SCHEMA = 1
_TRIES = 3

_log = logging.getLogger(__name__)


# --- what clones may share, and what no clone gets -------------------------------------------------------------------

IMMUTABLE = (
    # What MetaQuotes' help calls immutable: a running terminal only reads these. Its update writes them, which is why
    # sharing them needs the proof of farm.agent.probe besides.
    "terminal64.exe",
    "metaeditor64.exe",
    "metatester64.exe",
    "uninstall.exe",
    "terminal.ico",
    "sounds/*.wav",
    "terminal.lic",
    "config/terminal.lic",
    # Sources of the standard library, read by the compiler alone; only the update refreshes them. Never an .ex5: the
    # terminal recompiles those in place.
    "mql5/*.mqh",
    "mql5/*.mq5",
    "mql5/images/*.bmp",
)
ALWAYS_MUTABLE = ("bases/*", "mql5/files/*", "mql5/profiles/*", "mql5/presets/*", "mql5/logs/*")

HISTORY = ("bases/*/history/*", "bases/*/ticks/*")
"""Price history: written in place, so never shared; big; and the terminal fetches from its broker what it lacks."""

LEFT_OUT = (
    # Somebody's account, or the trace of somebody: a master should hold none (findings), a clone never does.
    "config/accounts.dat",
    "config/accounts.ini",
    "config/bitten-start.ini",
    "logs/*",
    "tester/logs/*",
    "mql5/logs/*",
    "mql5/files/bitten/*",
    "bases/*/mail/*",
    "bases/mail/*",
    "bases/*/trades/*",
    "temp/*",
)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in patterns))


_IMMUTABLE = _any_of(IMMUTABLE)
_MUTABLE = _any_of(ALWAYS_MUTABLE)
_HISTORY = _any_of(HISTORY)
_LEFT_OUT = _any_of(LEFT_OUT)


def is_immutable(path: str) -> bool:
    """Tell whether clones may share this file. What no pattern names is mutable."""
    small = path.casefold()
    return bool(_IMMUTABLE.match(small)) and not _MUTABLE.match(small)


def is_history(path: str) -> bool:
    return bool(_HISTORY.match(path.casefold()))


def is_left_out(path: str) -> bool:
    return bool(_LEFT_OUT.match(path.casefold()))


# --- the manifest ----------------------------------------------------------------------------------------------------


class Stamp(NamedTuple):
    """What one look at a file tells without reading it."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    mode: int
    owner: int


class File(NamedTuple):
    stamp: Stamp
    digest: str
    immutable: bool
    history: bool

    @property
    def path(self) -> str:
        return self.stamp.path

    @property
    def size(self) -> int:
        return self.stamp.size


@dataclass(frozen=True, eq=False)
class Manifest:
    """What one reading of a master found; two are compared by their digests."""

    folders: tuple[str, ...]
    """Each after the one that it is in."""
    files: tuple[File, ...]
    """The files of one folder stand together."""

    @cached_property
    def digest(self) -> str:
        """Names the master by content: a touched file does not change it, a changed byte, name or class does."""
        total = hashlib.blake2b(digest_size=20)
        for folder in sorted(self.folders):
            total.update(f"{folder}/\n".encode())
        for file in sorted(self.files):
            total.update(f"{file.path}\0{file.size}\0{file.digest}\0{file.immutable:d}\n".encode())
        return total.hexdigest()

    @cached_property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @cached_property
    def by_folder(self) -> tuple[tuple[str, tuple[File, ...]], ...]:
        """Every folder ("" first) with its files, in the order in which they can be made."""
        inside: dict[str, list[File]] = {"": [], **{folder: [] for folder in self.folders}}
        for file in self.files:
            inside[file.path.rpartition("/")[0]].append(file)
        return tuple((folder, tuple(files)) for folder, files in inside.items())


@dataclass(frozen=True)
class Look:
    """What one walk over a master saw."""

    folders: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    strange: tuple[str, ...]
    """Links and what is neither file nor folder: nothing that a clone could be given."""


def look(master: Path) -> Look:
    folders, stamps, strange = [], [], []
    for path, seen in ((entry.path, entry.seen) for entry in tree.walk(master)):
        if tree.is_folder(seen):
            folders.append(path)
        elif is_left_out(path):
            continue
        elif stat.S_ISREG(seen.st_mode) and not tree.is_link(seen):
            stamps.append(Stamp(path, seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_mode, seen.st_uid))
        else:
            strange.append(path)
    left_out = [folder for folder in folders if is_left_out(folder)]
    return Look(tuple(f for f in folders if f not in left_out), tuple(stamps), tuple(strange))


def current(master: Path, known: Manifest | None) -> Manifest:
    """Return the manifest of ``master`` as it stands, reading only what differs from ``known``.

    Raises :class:`errors.MasterUnfit` for a master that holds links or keeps changing while it is read.
    """
    for _ in range(_TRIES):
        seen = look(master)
        if seen.strange:
            raise errors.MasterUnfit(f"{seen.strange[0]} is a link or no plain file; prepare-master removes it")
        if known and known.folders == seen.folders and tuple(file.stamp for file in known.files) == seen.stamps:
            return known
        known = _read(master, seen, known)
    raise errors.MasterUnfit("the master changes while it is read")


def _read(master: Path, seen: Look, known: Manifest | None) -> Manifest:
    kept = {file.stamp: file for file in known.files} if known else {}
    return Manifest(seen.folders, tuple(kept.get(stamp) or _hashed(master, stamp) for stamp in seen.stamps))


def _hashed(master: Path, stamp: Stamp) -> File:
    with open(master / stamp.path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
    return _file(stamp, digest)


def _file(stamp: Stamp, digest: str) -> File:
    return File(stamp, digest, is_immutable(stamp.path), is_history(stamp.path))


# --- on disk ---------------------------------------------------------------------------------------------------------


def beside(master: Path, what: str) -> Path:
    """Return the path of ``what`` about this master, e.g. ``Masters/BITTEN_MASTER.manifest.json``."""
    return master.with_name(f"{master.name}.{what}.json")


def save(master: Path, manifest: Manifest) -> None:
    """Keep the manifest. A disk that takes none costs the next start one reading of the master, no more."""
    rows = [[*file.stamp, file.digest] for file in manifest.files]
    content = {"schema": SCHEMA, "digest": manifest.digest, "folders": manifest.folders, "files": rows}
    try:
        tree.write(beside(master, "manifest"), json.dumps(content, separators=(",", ":")).encode())
    except OSError as error:
        _log.warning("the master's manifest could not be kept", extra={"event": "manifest", "errno": error.errno})


def saved(master: Path) -> Manifest | None:
    """Return the kept manifest, or None if there is none or it is not what we wrote."""
    try:
        content = json.loads(beside(master, "manifest").read_bytes())
        files = (_file(Stamp(*row[:-1]), row[-1]) for row in content["files"])
        manifest = Manifest(tuple(content["folders"]), tuple(files))
        trusted = content["schema"] == SCHEMA and content["digest"] == manifest.digest
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    return manifest if trusted else None
