"""A host's permission to keep live terminals running, as the host counts it. The portal's side is farm/fencing.py.

The lease is counted from when the *request* was sent that the grant answers, not from when the grant came: whatever
the network did in between shortens it. Its age is the larger of two clocks, the one since boot and the wall's, so that
a clock that was set back, or one that stood still while the machine slept, cannot make it longer. It is worth nothing
after a reboot.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

TICK_SECONDS = 1.0
"""So often the watchdog looks, and shows that it does."""
SILENT_SECONDS = 10.0
"""A watchdog that has not ticked for so long is gone: the agent stops the live terminals itself."""
MOST_GRACE_SECONDS = 15.0
"""So long at most a live terminal may take to close by itself when its lease is over."""
SCAN_SECONDS = 4.0
"""Looking at all processes of a busy host, twice."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One reading of the host's clocks, in seconds."""

    boot_id: str
    since_boot: float
    """Also while the machine sleeps (CLOCK_BOOTTIME)."""
    wall: float


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A grant, with the moment when what it answers was sent."""

    nonce: str
    seconds: float
    sent: Moment

    def left(self, now: Moment) -> float:
        """Seconds until it is over; negative after that, minus infinity after a reboot."""
        if now.boot_id != self.sent.boot_id:
            return -math.inf
        age = max(now.since_boot - self.sent.since_boot, now.wall - self.sent.wall)
        return self.seconds - age

    def is_fresh(self, now: Moment) -> bool:
        return self.left(now) > 0


def polite_seconds(grace_seconds: float) -> float:
    """How long a live terminal may really take to close by itself when its lease is over, or its watchdog silent."""
    return min(grace_seconds, MOST_GRACE_SECONDS)


def longest_stop(grace_seconds: float, kill_seconds: float) -> float:
    """The longest from a lease's end until no live terminal runs, the watchdog's death just before that included.

    This is what the host tells the portal, which adds it to the lease before it starts anything elsewhere.
    """
    noticed = max(SILENT_SECONDS, TICK_SECONDS) + TICK_SECONDS
    return noticed + SCAN_SECONDS + polite_seconds(grace_seconds) + kill_seconds


def since_boot() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()
