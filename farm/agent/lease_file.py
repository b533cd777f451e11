"""The lease that this host has, on its disk: ``State/lease.json``. Written by the agent, read by the watchdog too.

Whatever is not exactly a lease is none. A full disk must not cost a host its live terminals: there the file is written
over itself, which takes no new block; torn by a power cut it is no lease, and after that none would count anyway.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from farm.agent import tree
from farm.agent.errors import DiskFull, typed
from farm.agent.lease import Lease, Moment

NAME = "lease.json"
BYTES = 512
"""Always as long, so that it can be written over itself."""


def load(folder: Path) -> Lease | None:
    try:
        content = (folder / NAME).read_bytes()
        return _parsed(json.loads(content)) if len(content) == BYTES else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _parsed(data: Any) -> Lease:
    sent = data["sent"]
    since_boot, wall, seconds = (float(number) for number in (sent["since_boot"], sent["wall"], data["seconds"]))
    if not all(map(math.isfinite, (since_boot, wall, seconds))):
        raise ValueError("not a lease")
    moment = Moment(boot_id=str(sent["boot_id"]), since_boot=since_boot, wall=wall)
    return Lease(nonce=str(data["nonce"]), seconds=seconds, sent=moment)


def save(folder: Path, lease: Lease) -> None:
    """Write ``lease``; raise :class:`farm.agent.errors.FolderTrouble` if the disk will not have it."""
    content = json.dumps(asdict(lease), separators=(",", ":")).encode().ljust(BYTES)
    with typed(f"writing State/{NAME}"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with typed(f"writing State/{NAME}"):
            tree.write(folder / NAME, content, mode=0o600)
    except DiskFull:
        with typed(f"writing State/{NAME}"):
            _overwrite(folder / NAME, content)


def _overwrite(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
