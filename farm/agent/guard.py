"""The agent's watch over the watchdog: silent for ten seconds, the agent stops the live terminals itself.

They die with a watchdog that dies; this is for one that hangs, and for a terminal that forked and so is its child no
more. One that hangs in the middle of stopping them would be noticed too late: what is still there some seconds after
the lease's end the agent stops as well, beside it. It takes no lock, and shares no memory with the rest of the agent,
so that nothing there can hold it up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from farm.agent import clocks, lease, lease_file, processes, pulse
from farm.agent.context import Context
from farm.agent.errors import AgentError
from farm.agent.lease import SILENT_SECONDS, TICK_SECONDS, Lease, Moment
from farm.agent.living import Living
from farm.agent.processes import Scan

log = logging.getLogger(__name__)

LOOK_SECONDS = TICK_SECONDS / 2
"""Silence has to be seen twice: after the machine slept, the watchdog needs a moment for its first tick, too."""
LATE_SECONDS = SILENT_SECONDS / 2
"""So long the end of a lease is the watchdog's alone; within the time that is allowed for noticing its own silence."""


class Guard:
    def __init__(self, context: Context, *, moment: Callable[[], Moment] = clocks.moment) -> None:
        self._context = context
        self._moment = moment
        self._living = Living(context.settings.state_folder)
        self._needed_before = False
        self._lease: Lease | None = None
        self._cleared: Lease | None = None
        """The lease after whose end nothing live was there any more."""

    def serve(self, stopping: threading.Event) -> None:
        """Look twice a second until ``stopping``; for a thread of its own."""
        while not stopping.is_set():
            try:
                self.look()
            except AgentError as error:
                log.error("live terminals will not stop", extra={"event": "guard", "detail": error.detail})
            except Exception:  # the edge of a thread: a defect in one look must not end all looks
                log.exception("a defect in the guard", extra={"event": "guard"})
            stopping.wait(LOOK_SECONDS)

    def look(self) -> list[str]:
        """Stop the live terminals if this look and the last found that needed; return what was stopped."""
        if not self._context.fence.is_on:
            return []
        settings, now = self._context.settings, self._moment()
        mark = pulse.load(settings.state_folder)
        silent, over = mark is None or mark.is_silent(now), self._is_long_over(now)
        needed, before = silent or over, self._needed_before
        self._needed_before = needed
        if not (needed and before):
            return []
        stopped = processes.stop_those(
            settings.users, self._chosen, grace_seconds=lease.polite_seconds(settings.stop_grace_seconds)
        )
        if stopped:
            log.error("live terminals stopped", extra={"event": "guard", "folders": stopped, "silent": silent})
        elif over:
            self._cleared = self._lease  # without another lease none is started
        return stopped

    def _is_long_over(self, now: Moment) -> bool:
        """Whether the watchdog has had its time since the lease's end, and nobody has looked yet that all are gone."""
        known = [one for one in (self._lease, lease_file.load(self._context.settings.state_folder)) if one is not None]
        self._lease = max(known, key=lambda one: one.left(now), default=None)
        if self._lease is None or self._lease == self._cleared:
            return False
        return self._lease.left(now) <= -LATE_SECONDS

    def _chosen(self, seen: Scan) -> list[str]:
        folders = self._living.among(seen)
        self._context.fence.note_taken(folders)
        return folders
