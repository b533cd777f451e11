"""What is between a host and the portal: loses, doubles, delays, reorders, and is cut in one direction or both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulation.world import World

UP, DOWN = 1, 2
"""From a host to the portal, and back."""


class Network:
    def __init__(self, world: World, *, lossy: float, doubled: float, late: float, quick: bool):
        self.world, self.lossy, self.doubled, self.late, self.quick = world, lossy, doubled, late, quick
        self.cut: dict[int, int] = {}
        self.held: list[tuple[int, int, Callable, tuple]] = []

    def send(self, host: int, way: int, deliver: Callable, *args: Any) -> None:
        chance = self.world.chance
        if self.cut.get(host, 0) & way:
            if chance.random() < 0.5:
                self.held.append((host, way, deliver, args))
            return
        kind = chance.random()
        if kind < self.lossy:
            return
        self.world.after(self._delay(), deliver, *args)
        if kind > 1 - self.doubled:
            self.world.after(self._delay(), deliver, *args)

    def is_cut(self, host: int) -> bool:
        return self.cut.get(host, 0) != 0

    def _delay(self) -> float:
        chance = self.world.chance
        if self.late and chance.random() < self.late:
            return chance.uniform(1, 200)
        return 0.0 if self.quick else chance.uniform(0.01, 0.5)

    def sever(self, host: int, ways: int) -> None:
        self.cut[host] = ways
        self.world.note("host %s is cut off (%s)", host, {1: "up", 2: "down", 3: "both ways"}[ways])

    def heal(self, host: int) -> None:
        if self.cut.pop(host, 0):
            self.world.note("host %s is connected again", host)
            waiting, self.held = self.held, []
            for held in waiting:
                if held[0] == host:
                    self.world.after(self._delay(), held[2], *held[3])
                else:
                    self.held.append(held)

    def be_good(self) -> None:
        self.lossy = self.doubled = self.late = 0.0
        for host in list(self.cut):
            self.heal(host)
