"""A file that is given up when the disk is full: a destroy has to be written down, too, before it can make room."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from farm.agent import tree

NAME = "reserve"
BYTES = 1 << 20

log = logging.getLogger(__name__)


def keep(folder: Path) -> None:
    """Have the file at hand in ``folder`` (``State``); on a disk that is full already it waits until there is room."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / NAME).exists():
            tree.write(folder / NAME, os.urandom(BYTES))
    except OSError as error:
        log.warning("no reserve could be kept", extra={"event": "reserve", "errno": error.errno})


def given_up(folder: Path) -> bool:
    """Make what room there is; False if it was used up before."""
    try:
        (folder / NAME).unlink()
    except OSError:
        return False
    log.warning("the disk is full: the reserve is given up", extra={"event": "reserve"})
    return True
