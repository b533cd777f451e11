"""The watchdog's sign of life: ``State/watchdog.json``, which it writes over itself once a second.

Over itself and of one length, in a single write: that takes no room on a full disk, and nobody reads half of it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from farm.agent.lease import SILENT_SECONDS, Moment

NAME = "watchdog.json"
BYTES = 256


@dataclass(frozen=True, kw_only=True)
class Pulse:
    watchdog: str
    """Which run of it: another one started none of the terminals that this one did."""
    boot_id: str
    since_boot: float
    stopping: bool = False
    """It is stopping live terminals, and starts none meanwhile."""
    stops_within: float = 0.0
    """The longest that it takes for that, by the settings that it was started with."""

    def age(self, now: Moment) -> float:
        """Seconds since the tick; without end after a reboot, and for one that says it comes from the future."""
        seconds = now.since_boot - self.since_boot
        return seconds if now.boot_id == self.boot_id and seconds >= 0 else float("inf")

    def is_silent(self, now: Moment) -> bool:
        return self.age(now) > SILENT_SECONDS


def load(folder: Path) -> Pulse | None:
    try:
        data = json.loads((folder / NAME).read_bytes())
        return Pulse(
            watchdog=str(data["watchdog"]),
            boot_id=str(data["boot_id"]),
            since_boot=float(data["since_boot"]),
            stopping=bool(data["stopping"]),
            stops_within=float(data["stops_within"]),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def save(folder: Path, pulse: Pulse) -> None:
    """Write it; raises OSError."""
    content = json.dumps(asdict(pulse), separators=(",", ":")).encode().ljust(BYTES)
    descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        os.write(descriptor, content)
    finally:
        with suppress(OSError):
            os.close(descriptor)
