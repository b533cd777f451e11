"""This machine's clocks, read together, and what changes with each of its boots."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from farm.agent import lease, windows
from farm.agent.lease import Moment

_LINUX = Path("/proc/sys/kernel/random/boot_id")


def moment() -> Moment:
    return Moment(boot_id=boot_id(), since_boot=lease.since_boot(), wall=time.time())


def boot_id() -> str:
    """Return what changes with every boot of this machine, the same in each of its processes."""
    try:
        return _LINUX.read_text(encoding="ascii").strip()
    except OSError:
        # The time of the boot is reckoned from the wall's clock, so it moves with that: only where nothing better is.
        return windows.boot_id() or f"boot-{psutil.boot_time():.0f}"
