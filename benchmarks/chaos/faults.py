"""What is broken, one thing at a time. Every fault mends what it broke, also when the run is ended in its midst."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.chaos.services import Postgres, Redis, SmallDisk, Wire
from bitten_portal.stack import Stack

SPANS = (5, 15, 45, 300)
"""Seconds that a host is cut off, before they are scaled."""
PORTAL = ("portal", "reports", "leases", "beat", "web")


@dataclass
class World:
    stack: Stack
    postgres: Postgres
    redis: Redis
    wires: dict[str, Wire]
    """By the host's name."""
    disk: SmallDisk | None
    rng: random.Random
    scale: float
    began: float = field(default_factory=time.monotonic)
    done: list[dict[str, object]] = field(default_factory=list)

    @property
    def hosts(self) -> list[str]:
        return [host.name for host in self.stack.places.hosts]

    def suffix(self, host: str) -> str:
        return next(one.suffix for one in self.stack.places.hosts if one.name == host)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Fault:
    name: str
    act: Callable[[World], str]
    """Breaks, waits, mends; returns to whom."""

    def happen(self, world: World) -> None:
        at = time.monotonic()
        whom = self.act(world)
        took = round(time.monotonic() - at, 1)
        world.done.append({"at": round(at - world.began, 1), "fault": self.name, "whom": whom, "seconds": took})
        print(f"{at - world.began:7.1f} s  {self.name}: {whom}, {took} s", flush=True)


def one_round(world: World) -> list[Fault]:
    """Every fault once, in an order of its own."""
    faults = [
        Fault("agent killed", killed("host")),
        Fault("watchdog killed", killed("watchdog")),
        Fault("agent stopped", paused("host", 15, 45)),
        Fault("agent stopped for long", paused("host", 300)),
        Fault("watchdog stopped", paused("watchdog", 15, 45, 300)),
        Fault("broker stopped", broker_stopped),
        Fault("broker killed and restarted", broker_restarted),
        Fault("broker emptied", broker_emptied),
        Fault("PostgreSQL restarted", postgres_restarted(crash=False)),
        Fault("PostgreSQL crashed", postgres_restarted(crash=True)),
        Fault("a process of the portal killed", portal_killed),
        *(Fault(f"host cut off for {span} s", cut_off(span)) for span in SPANS),
    ]
    if world.disk is not None:
        faults.append(Fault("disk full", disk_full))
    world.rng.shuffle(faults)
    return faults


# --- one host ---------------------------------------------------------------------------------------------------------


def killed(what: str) -> Callable[[World], str]:
    """kill -9 of its whole group; the stack starts it again, as systemd would."""

    def act(world: World) -> str:
        host = world.rng.choice(world.hosts)
        world.stack.processes[what + world.suffix(host)].signal(signal.SIGKILL)
        return host

    return act


def paused(what: str, *spans: float) -> Callable[[World], str]:
    """SIGSTOP for one of these spans, by lot, and SIGCONT."""

    def act(world: World) -> str:
        host = world.rng.choice(world.hosts)
        with _paused(world, what + world.suffix(host)):
            world.wait(world.rng.choice(spans) / world.scale)
        return host

    return act


@contextmanager
def _paused(world: World, name: str) -> Iterator[None]:
    child = world.stack.processes[name]
    child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.signal(signal.SIGCONT)


def cut_off(seconds: float, *, host: str | None = None) -> Callable[[World], str]:
    def act(world: World) -> str:
        whom = host or world.rng.choice(world.hosts)
        world.wires[whom].cut()
        try:
            world.wait(seconds / world.scale)
        finally:
            world.wires[whom].mend()
        return whom

    return act


def disk_full(world: World) -> str:
    assert world.disk is not None
    try:
        world.disk.fill()
        world.wait(60 / world.scale)
    finally:
        world.disk.free()
    return world.hosts[-1]


# --- what is there once -----------------------------------------------------------------------------------------------


def broker_stopped(world: World) -> str:
    world.redis.end()
    try:
        world.wait(30 / world.scale)
    finally:
        world.redis.begin()
    return "broker"


def broker_restarted(world: World) -> str:
    world.redis.end(signal.SIGKILL)
    world.redis.begin()
    return "broker"


def broker_emptied(world: World) -> str:
    return f"broker, {world.redis.empty()} keys"


def postgres_restarted(*, crash: bool) -> Callable[[World], str]:
    def act(world: World) -> str:
        world.postgres.restart(crash=crash)
        return "database"

    return act


def portal_killed(world: World) -> str:
    name = world.rng.choice(PORTAL)
    world.stack.processes[name].signal(signal.SIGKILL)
    return name
