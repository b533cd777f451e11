"""Is what was built a clone at all? Equal to its master, and nobody's but its own when it is written to."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from farm.agent import build, manifest, tree
from farm.agent.copying import Modes
from farm.agent.manifest import Manifest
from farm.agent.master import Master


class NotAClone(Exception):
    """The builder made something that is not what it promises."""


def is_equal(clone: Path, wanted: Manifest, *, history: bool) -> None:
    """Raise :class:`NotAClone` unless ``clone`` holds exactly the files of the manifest, byte for byte."""
    expected = {file.path: file.digest for file in wanted.files if history or not file.history}
    seen = manifest.current(clone, None)
    found = {file.path: file.digest for file in seen.files}
    if found != expected:
        differ = sorted(expected.items() ^ found.items())
        raise NotAClone(f"{clone.name}: {len(differ)} files differ, first {differ[0][0]}")
    if set(seen.folders) != set(wanted.folders):
        raise NotAClone(f"{clone.name}: other folders than the master's")


def stays_apart(master: Master, folder: Path, modes: Modes) -> dict[str, int]:
    """Write to every file of a clone that the terminals' user can write; nothing else may change.

    Every mutable file must have been writable, and every file that is shared must not. Returns how many were of each.
    """
    mine, other = folder / "proof-written", folder / "proof-other"
    build.build(master, mine, modes)
    build.build(master, other, modes)
    given = {file.path for file in master.manifest.files if modes.history or not file.history}
    shared = {path for path in given if os.stat(mine / path).st_nlink > 1}
    written = set(_written(mine, sorted(given), modes))
    if written != given - shared:
        wrong = sorted(written ^ (given - shared))
        raise NotAClone(
            f"{wrong[0]} could {'' if wrong[0] in written else 'not '}be written, and {len(wrong) - 1} more"
        )
    if manifest.current(master.path, None).digest != master.digest:
        raise NotAClone("writing to a clone changed the master")
    is_equal(other, master.manifest, history=modes.history)
    return {"written": len(written), "shared_and_refused": len(shared)}


def _written(clone: Path, paths: list[str], modes: Modes) -> list[str]:
    """Have the user that terminals run as write; return the files that let themselves be written."""
    if not modes.hands_over or sys.platform == "win32":
        return _write_all(clone, paths)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        group = modes.terminal_group if modes.terminal_group is not None else os.getegid()
        os.setgroups([])
        os.setgid(group)
        os.setuid(modes.terminal_user if modes.terminal_user is not None else os.geteuid())
        with open(writing, "w", encoding="utf-8") as answer:
            json.dump(_write_all(clone, paths), answer)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        written: list[str] = json.load(answer)
    os.waitpid(child, 0)
    return written


def _write_all(clone: Path, paths: list[str]) -> list[str]:
    """Spoil the first byte in place and append one, as MetaTrader's update and its option files do."""
    written = []
    for path in paths:
        try:
            with open(clone / path, "r+b") as file:
                first = file.read(1)
                file.seek(0)
                file.write(bytes([first[0] ^ 0xFF]) if first else b"!")
                file.seek(0, os.SEEK_END)
                file.write(b"!")
        except PermissionError:
            continue
        written.append(path)
    return written


def leaves_nothing(folder: Path) -> None:
    """Raise :class:`NotAClone` if something half-built is left in ``folder``."""
    left = [name for name in os.listdir(folder) if name.startswith(tree.HALF_BUILT)]
    if left:
        raise NotAClone(f"left behind: {left[0]}")
