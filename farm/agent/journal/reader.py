"""The journal's files: whole lines, each once, however the bytes arrive.

MetaTrader writes ``logs/YYYYMMDD.log``: UTF-16LE, a byte order mark at the start, CRLF, one file for each local day,
flushed when it likes. Nothing is kept between reads but a :class:`Position`, which is plain data: a restarted agent
goes on where the last one stopped, and a line that is not finished is simply read again.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from farm.agent import inside
from farm.agent.inside import Side

CHUNK_BYTES = 256 << 10
"""At most so much of a journal is in memory at a time."""
LONGEST_LINE = 32 << 10
"""Bytes. No line of MetaTrader comes near it; a longer one is passed over, or it could fill the memory."""
MOST_FILES = 10_000
HEAD_BYTES = 256
"""So much of a file's beginning tells it from another of the same name: the first lines have times and random codes."""

_NAME = re.compile(r"[0-9]{8}\.log\Z")
_NEWLINE = b"\n\x00"


@dataclass(frozen=True, kw_only=True)
class Position:
    """Up to where the journal has been read; the empty one stands before the first file."""

    file: str = ""
    offset: int = 0
    """In bytes. A character begins here: so after a writer that died within one, it may be odd."""
    head: str = ""
    """Digest of the file's first bytes, up to ``offset`` and ``HEAD_BYTES``."""
    skipping: bool = False
    """Within a line that is too long: the next line break ends it."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_dict` gave, e.g. back from JSON; raise :class:`ValueError` on anything else."""
        kinds = {"file": str, "offset": int, "head": str, "skipping": bool}
        if not isinstance(data, Mapping) or data.keys() != kinds.keys():
            raise ValueError("not a position in a journal")
        if any(type(data[name]) is not kind for name, kind in kinds.items()):
            raise ValueError("not a position in a journal")
        if (data["file"] and not _NAME.match(data["file"])) or data["offset"] < 0:
            raise ValueError("not a position in a journal")
        return cls(**data)


@dataclass(frozen=True)
class Line:
    day: str
    """``YYYYMMDD``: from the file's name, since lines bear a time only."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    lines: tuple[Line, ...]
    position: Position
    more: bool
    """There is more to read now."""
    trouble: str = ""
    """Why nothing could be read this time. The position stands, so the next read tries again."""


def checkpoint(folder: Path) -> Position:
    """Return the end of the journal as it is now, at the cost of one directory listing and a few bytes.

    For a terminal that is about to start: whatever an earlier one left unfinished is not the beginning of its lines.
    """
    name = ""
    try:
        with inside.opened(folder.parent, folder.name) as logs:
            name = max(_journals(logs), default="")
            if not name:
                return Position()
            with open(logs.read(name), "rb") as file:
                offset = file.seek(0, os.SEEK_END)
                return Position(file=name, offset=offset, head=_head(file, offset))
    except (FileNotFoundError, NotADirectoryError):
        return Position(file=name)


def read(folder: Path, position: Position, *, limit: int = CHUNK_BYTES) -> Reading:
    """Return the finished lines after ``position``, from at most ``limit`` bytes (and never less than one line's).

    A file is left for the next day's when that one is there and this one was read to its end *after* it had been seen:
    one writer fills them one after the other. (Accepted: should it still add to the old one later, that is lost.)
    A file that is now shorter, or begins otherwise, is a new one and is read from its beginning.
    """
    try:
        with inside.opened(folder.parent, folder.name) as logs:
            return _read(logs, position, limit=max(limit, LONGEST_LINE + len(_NEWLINE)))
    except FileNotFoundError:
        return Reading(lines=(), position=position, more=False)
    except OSError as error:  # Windows: someone shares it with nobody for a moment
        return Reading(lines=(), position=position, more=False, trouble=error.strerror or type(error).__name__)


def _read(logs: Side, position: Position, *, limit: int) -> Reading:
    names = sorted(_journals(logs))
    if position.file not in names:  # none yet, or it was pruned
        if names and position.file > _today():  # the clock was set back, to before the file that was being read
            position = Position(file=names[-1])
        position = next((Position(file=name) for name in names if name > position.file), position)
    if position.file not in names:
        return Reading(lines=(), position=position, more=False)
    following = next((name for name in names if name > position.file), "")
    lines, after, at_end = _read_file(logs, position, limit=limit)
    if at_end and following:
        after = Position(file=following)
    return Reading(lines=lines, position=after, more=not at_end or bool(following))


def _read_file(logs: Side, position: Position, *, limit: int) -> tuple[tuple[Line, ...], Position, bool]:
    """Return the lines, the position after them, and whether that is the end of what is finished."""
    with open(logs.read(position.file), "rb") as file:
        if _head(file, position.offset) != position.head:
            position = Position(file=position.file)
        file.seek(position.offset)
        window = file.read(limit)
        used = _past_last_newline(window)
        rest = len(window) - used
        skipping = position.skipping
        lines = _lines(window[:used], day=position.file[:8], skipping=skipping)
        if used:
            skipping = False
        if rest - rest % 2 > LONGEST_LINE or (skipping and rest):
            used, skipping = len(window) - rest % 2, True
        offset = position.offset + used
        after = Position(file=position.file, offset=offset, head=_head(file, offset), skipping=skipping)
        return lines, after, len(window) < limit


def _lines(block: bytes, *, day: str, skipping: bool) -> tuple[Line, ...]:
    """Return the lines of ``block``, which ends in a line break or is empty."""
    found = []
    start = 0
    while start < len(block):
        end = _next_newline(block, start)
        if not skipping and end - start <= LONGEST_LINE:
            # Only "\n" ends a line: str.splitlines would also break at characters that a name may contain. The byte
            # order mark is dropped from any line, for a writer that opens the file again may add another.
            text = block[start:end].decode("utf-16-le", "replace").removesuffix("\r").lstrip("\ufeff")
            if text:
                found.append(Line(day, text))
        skipping = False
        start = end + len(_NEWLINE)
    return tuple(found)


def _next_newline(block: bytes, start: int) -> int:
    found = block.index(_NEWLINE, start)
    while found % 2:  # the second half of one character and the first of the next
        found = block.index(_NEWLINE, found + 1)
    return found


def _past_last_newline(window: bytes) -> int:
    found = window.rfind(_NEWLINE)
    while found % 2 and found > 0:
        found = window.rfind(_NEWLINE, 0, found + 1)
    return found + len(_NEWLINE) if found >= 0 and not found % 2 else 0


def _head(file: BinaryIO, offset: int) -> str:
    """Return a digest of the file's beginning, or a word that is none if it is shorter than ``offset``."""
    if file.seek(0, os.SEEK_END) < offset:
        return "cut"
    file.seek(0)
    return hashlib.blake2b(file.read(min(offset, HEAD_BYTES)), digest_size=8).hexdigest() if offset else ""


def _journals(logs: Side) -> list[str]:
    """Return the journals up to today's: one of a later day is of a clock that has been set back since."""
    today = _today()
    names = [entry.name for entry in logs.entries(most=MOST_FILES) if entry.is_file(follow_symlinks=False)]
    return [name for name in names if _NAME.match(name) and name <= today]


def _today() -> str:
    return time.strftime("%Y%m%d.log")
