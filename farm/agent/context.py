"""What every verb is given: the settings, the keys, the pool of warm clones and the watch over running terminals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from farm.agent import clocks, errors, locks, state, terminal_user
from farm.agent.build import Modes, probe
from farm.agent.fence import Fence
from farm.agent.keys import HostKeys
from farm.agent.lease import Moment
from farm.agent.pool import Pool
from farm.agent.settings import Settings
from farm.agent.state import Memory, State
from farm.agent.watch import Watch


@dataclass(kw_only=True)
class Context:
    settings: Settings
    keys: HostKeys
    pool: Pool | None = None
    modes: Modes
    now: Callable[[], float] = time.time
    moment: Callable[[], Moment] = clocks.moment
    fence: Fence = field(init=False)
    watch: Watch = field(init=False)
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.fence = Fence(self.settings, moment=self.moment)
        self.watch = Watch(self.settings, self.fence.ending, now=self.now)
        self.memory = Memory(self.settings.state_folder)

    def load(self, instance: int) -> State | None:
        return state.load(self.settings.state_folder, instance)

    def save(self, changed: State) -> None:
        state.save(self.settings.state_folder, changed)

    @contextmanager
    def held(self, instance: int, *, seconds: float = locks.LOCK_SECONDS) -> Iterator[None]:
        with locks.held(self.settings.state_folder, instance, seconds=seconds):
            yield

    def pool_facts(self) -> dict[str, Any]:
        """Return what a survey says of the pool, and how clones are made on this host."""
        facts: dict[str, Any] = {"way": self.modes.best.value}
        return {**facts, **self.pool.facts()} if self.pool else facts


def opened(settings: Settings, keys: HostKeys) -> Context:
    """Try what the farm's folder allows and return the context to work in."""
    if not settings.root.is_dir():
        raise errors.FolderTrouble(f"{settings.root} is no folder (FARM_ROOT); nothing is made in its place")
    user = settings.terminal_user or None
    if user:
        terminal_user.close(settings.root)
    modes = probe(settings.root, link=settings.link == "auto", terminal_user=user)
    return Context(settings=settings, keys=keys, pool=Pool(settings.root, settings.pool, modes), modes=modes)
