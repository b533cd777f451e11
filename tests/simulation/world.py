"""One run: a heap of events in true time, a seeded source of chance, and what must hold after every event.

Nothing here knows the farm. ``Broken`` is raised by whatever sees that something which must hold does not.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any


class Broken(Exception):
    """Something that must hold did not."""


class World:
    def __init__(self, seed: int, *, trace: bool = False):
        self.seed, self.chance, self.tracing = seed, Random(seed), trace
        self.t, self.steps = 0.0, 0
        self.events: list[tuple[float, int, Callable, tuple]] = []
        self.lines: list[str] = []
        self.count: Counter[str] = Counter()
        self.running: dict[str, Any] = {}
        """By account, the terminal that runs it: seen from above, which nobody in the simulation can."""

    def at(self, t: float, act: Callable, *args: Any) -> None:
        self.steps += 1
        heapq.heappush(self.events, (max(t, self.t), self.steps, act, args))

    def after(self, seconds: float, act: Callable, *args: Any) -> None:
        self.at(self.t + seconds, act, *args)

    def every(self, seconds: float, act: Callable) -> None:
        act()
        self.after(seconds, self.every, seconds, act)

    def run(self, until: float, *, enough: Callable[[], bool] | None = None) -> bool:
        """Let everything happen until then, or until it is enough, which is asked each ten seconds."""
        asked = self.t
        while self.events and self.events[0][0] <= until:
            self.t, _, act, args = heapq.heappop(self.events)
            act(*args)
            if enough is not None and self.t - asked >= 10:
                asked = self.t
                if enough():
                    return True
        self.t = max(self.t, until)
        return enough is not None and enough()

    def note(self, what: str, *args: Any) -> None:
        """A line of the trace, and nothing at all without one."""
        if self.tracing:
            self.lines.append(f"{self.t:10.3f}  {what % args if args else what}")

    def happened(self, what: str) -> None:
        self.count[what] += 1
        if self.tracing:
            self.lines.append(f"{self.t:10.3f}  -- {what}")

    def demand(self, holds: bool, what: str, *args: Any) -> None:
        if not holds:
            self.note("BROKEN: " + what, *args)
            raise Broken(f"at {self.t:.3f}: " + (what % args if args else what))

    # --- the one promise ----------------------------------------------------------------------------------------------

    def starts(self, terminal: Any) -> None:
        if terminal.account is None:
            return
        other = self.running.get(terminal.account)
        self.demand(other is None, "%s runs twice: as %s, and now as %s", terminal.account, other, terminal)
        self.running[terminal.account] = terminal

    def ends(self, terminal: Any) -> None:
        if self.running.get(terminal.account) is terminal:
            del self.running[terminal.account]
