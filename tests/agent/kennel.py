"""A watchdog as a process for one test, over the farm of a house: the house in the test is its agent."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from farm.agent import clocks, lease_file, pulse
from farm.agent.lease import Lease
from farm.agent.protocol import Policy
from tests.agent.house import House
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
LONG = 600.0
"""Seconds of a lease that no test sees the end of."""


@dataclass
class Kennel:
    """A fenced house, and its watchdogs."""

    house: House
    watchdogs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.house.anew(policy=Policy.FENCED)

    @property
    def state(self) -> Path:
        return self.house.settings.state_folder

    def environment(self, **changes: str) -> dict[str, str]:
        return {
            **os.environ,
            "FARM_ROOT": str(self.house.root),
            "FARM_TERMINAL_COMMAND": self.house.settings.terminal_command,
            "FARM_STOP_SECONDS": str(self.house.settings.stop_grace_seconds),
            **changes,
        }

    def watch(self, **changes: str) -> subprocess.Popen[bytes]:
        """Start a watchdog and wait until it has ticked."""
        before = pulse.load(self.state)
        dog = self.spawn(**changes)
        until(lambda: (now := pulse.load(self.state)) and now.watchdog != (before.watchdog if before else ""))
        until((self.state / "watchdog.key").exists)
        return dog

    def spawn(self, **changes: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "farm.agent", "watchdog"]
        with (self.house.root.parent / "watchdog.log").open("ab") as log:
            dog = subprocess.Popen(
                command, env=self.environment(**changes), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=log
            )
        self.watchdogs.append(dog)
        return dog

    def grant(self, seconds: float, *, wait: bool = True) -> Lease:
        """A lease from now on, as the agent would have written it; ``wait`` until it is of use."""
        lease = Lease(nonce="n", seconds=seconds, sent=clocks.moment())
        lease_file.save(self.state, lease)
        if wait and seconds > 0 and any(dog.poll() is None for dog in self.watchdogs):
            until(lambda: not self.house.context.fence.bars("live"))
            if seconds >= LONG:  # a round of stopping may have begun before it, in which none is started
                granted = clocks.moment().since_boot
                until(lambda: (tick := pulse.load(self.state)) and tick.since_boot > granted and not tick.stopping)
        return lease

    def end(self) -> None:
        for dog in self.watchdogs:
            dog.kill()
            dog.wait()
