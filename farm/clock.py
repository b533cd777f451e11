"""The one clock. Everything that asks for the time asks here, so that tests move it instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_offset = timedelta()


def now() -> datetime:
    """The current moment, aware, in UTC."""
    return datetime.now(UTC) + _offset


def shifted(moment: datetime) -> datetime:
    """A reading of another clock, moved as ours is: without a move, what it was."""
    return moment + _offset


def since_boot() -> float:
    """Seconds since this machine booted, awake or asleep: a clock that nobody sets. Moved as ours is."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    seconds = time.monotonic() if kind is None else time.clock_gettime(kind)
    return seconds + _offset.total_seconds()


def boot() -> str:
    """Which boot :func:`since_boot` counts from; "" where that cannot be told."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


def move(by: timedelta) -> None:
    """Set the clock forward (or back) for this process. For tests and simulations."""
    global _offset
    _offset += by


@contextmanager
def moved(by: timedelta) -> Iterator[None]:
    """The clock is off by ``by`` inside the block, also by what is moved inside it, and as before after it."""
    global _offset
    before = _offset
    _offset += by
    try:
        yield
    finally:
        _offset = before
