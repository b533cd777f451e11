"""What a customer made in a clone (profiles, templates, presets, own files), taken out of it and put into another.

Only what differs from the master is taken. No link is followed on either way, and nothing that could run is moved.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from farm.agent import archive, errors, faults, inside, tree
from farm.agent.archive import AREAS, FILES, MOST_BYTES, MOST_ENTRIES, MOST_UNPACKED
from farm.agent.manifest import File, Manifest

LEFT_OUT = f"{FILES}/left-out.txt"
"""Tells the customer, in the new clone, what was too big to come along."""
MOST_NAMED = 50
_NOTICE_BYTES = 12 << 10
MOST_SEEN = 20_000
"""Things looked at in one area: an Expert Advisor that fills a folder must not occupy the host."""

_SOURCES = ("MQL5/Experts/", "MQL5/Indicators/", "MQL5/Scripts/", "MQL5/Include/")


@dataclass(frozen=True, kw_only=True)
class Packed:
    data: bytes
    files: int
    left_out: tuple[str, ...] = ()
    """What did not fit, or could not be read."""


@dataclass(frozen=True)
class _Found:
    path: str
    size: int


# --- out of a clone --------------------------------------------------------------------------------------------------


def pack(
    clone: Path, master: Manifest | None = None, *, same_master: bool = True, most_bytes: int = MOST_BYTES
) -> Packed:
    """Return what was made in ``clone``, as an archive of at most ``most_bytes``; the same for the same files.

    ``master`` is the manifest as it stands; with ``same_master`` false the clone is of an earlier one, and sources that
    the master has too (the standard library) are not taken for the customer's. The terminal may run meanwhile: a file
    that goes away is not in it, one that grows is as long as it was. What does not fit is left out, own files first
    and the biggest of them first, and named in ``left-out.txt``.
    """
    if not tree.is_folder(_lstat(clone)):
        raise errors.CloneMissing
    kept, left = _fitting(_made(clone, master, same_master), most=MOST_UNPACKED)
    contents = {}
    for file in kept:
        content = _content(clone, file)
        if content is None:
            left.append(file.path)
        else:
            contents[file.path] = content
    data = archive.packed(_with_notice(contents, left))
    if len(data) > most_bytes:
        sizes = archive.sizes(data)
        kept, more = _fitting([_Found(path, sizes[path]) for path in contents], most=most_bytes - _NOTICE_BYTES)
        left += more
        contents = {file.path: contents[file.path] for file in kept}
        data = archive.packed(_with_notice(contents, left))
    return Packed(data=data, files=len(contents), left_out=tuple(sorted(left)))


def _lstat(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError as error:
        raise errors.CloneMissing(f"{path.name} is not there") from error


def _with_notice(contents: dict[str, bytes], left: list[str]) -> dict[str, bytes]:
    if not left:
        return contents
    lines = [f"{len(left)} file(s) were too big for your keepsake, or could not be read, and did not come along:", ""]
    lines += sorted(left)[:MOST_NAMED]
    if len(left) > MOST_NAMED:
        lines.append(f"and {len(left) - MOST_NAMED} more")
    return {**contents, LEFT_OUT: ("\r\n".join(lines) + "\r\n").encode()}


def _fitting(found: Iterable[_Found], *, most: int) -> tuple[list[_Found], list[str]]:
    """Part ``found`` into what fits and the names of what is left out."""
    kept = sorted(found, key=lambda file: (file.path.startswith(f"{FILES}/"), file.size, file.path))
    size, left = sum(file.size for file in kept), []
    while kept and (size > most or len(kept) > MOST_ENTRIES - 1):
        out = kept.pop()
        size -= out.size
        left.append(out.path)
    return sorted(kept, key=lambda file: file.path), left


def _made(clone: Path, master: Manifest | None, same_master: bool) -> Iterator[_Found]:
    """Yield what the customer made or changed; names that a keepsake cannot hold are passed over."""
    known = {archive.folded(file.path): file for file in master.files} if master else {}
    names = archive.Names()
    for path, seen in _seen(clone):
        if not stat.S_ISREG(seen.st_mode) or tree.is_link(seen) or path == LEFT_OUT or names.add(path):
            continue
        if seen.st_nlink > 1:  # shared between clones, so the master's; or a link to what is nobody's to take away
            continue
        file = _Found(path, seen.st_size)
        original = known.get(archive.folded(path))
        if original is None or not _is_masters(clone, file, original, same_master=same_master):
            yield file


def _seen(clone: Path) -> Iterator[tuple[str, os.stat_result]]:
    for area in AREAS:
        try:
            # A link in place of an area is no folder of the clone.
            with inside.opened(clone, area):
                for entry in islice(tree.walk(clone / area, most=MOST_SEEN), MOST_SEEN):
                    yield f"{area}/{entry.path}", entry.seen
        except OSError:
            continue  # it went away, or changed into something else, while it was looked at


def _is_masters(clone: Path, file: _Found, original: File, *, same_master: bool) -> bool:
    if not same_master and file.path.startswith(_SOURCES):
        return True
    if file.size != original.size:
        return False
    if file.size > MOST_UNPACKED:
        return True
    content = _content(clone, file)
    return content is None or hashlib.blake2b(content, digest_size=20).hexdigest() == original.digest


def _content(clone: Path, file: _Found) -> bytes | None:
    """Return the file's first ``size`` bytes; None if it cannot be had."""
    try:
        folder, _, name = file.path.rpartition("/")
        with inside.opened(clone, folder) as side, open(side.read(name), "rb") as stream:
            return stream.read(file.size)
    except OSError:
        return None


# --- into a clone ----------------------------------------------------------------------------------------------------


def unpack(data: bytes, clone: Path) -> int:
    """Put what is in ``data`` into ``clone``, whose terminal must not run; return how many files.

    Raises :class:`errors.BadKeepsake`, with nothing written, for what is no proper keepsake or does not go with this
    clone. A file that is there is replaced, never written into: clones may share it.
    """
    files = archive.check(data)
    with errors.typed("unpacking the keepsake"):
        for path in files:
            _check_place(clone, path)
        for path in sorted(files):
            _put(clone, path, files[path])
    return len(files)


def _check_place(clone: Path, path: str) -> None:
    here = clone
    *folders, name = path.split("/")
    with suppress(FileNotFoundError):
        for folder in folders:
            here = here / folder
            if not tree.is_folder(os.lstat(here)):
                raise errors.BadKeepsake(f"{folder} in the clone is no folder")
        seen = os.lstat(here / name)
        if not stat.S_ISREG(seen.st_mode) or tree.is_link(seen):
            raise errors.BadKeepsake(f"{name} in the clone is no plain file")


def _put(clone: Path, path: str, content: bytes) -> None:
    folder, _, name = path.rpartition("/")
    beside = f"{tree.HALF_BUILT}keepsake"  # one name: a repetition clears away what a crash left
    with inside.opened(clone, folder, make=True) as side:
        side.remove(beside)
        with open(side.make(beside, 0o644), "wb") as new:
            new.write(content)
        side.replace(name, by=beside)
    faults.point("keepsake file")
