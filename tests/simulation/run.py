"""One schedule, from its seed to its verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.clocks import Clock
from tests.simulation.customers import Customers
from tests.simulation.faults import Faults
from tests.simulation.hosts import Host
from tests.simulation.network import Network
from tests.simulation.plan import RATE, Plan, plan
from tests.simulation.portal import Portal
from tests.simulation.rest import at_rest, demand_all_well
from tests.simulation.rows import HostRow
from tests.simulation.staff import Staff
from tests.simulation.watching import WATCH_SECONDS, Watcher
from tests.simulation.world import Broken, World

SWEEP_SECONDS = 10.0
SETTLES_WITHIN = 7200.0


@dataclass
class Outcome:
    seed: int
    broken: str = ""
    count: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)


def run(seed: int, *, trace: bool = False) -> Outcome:
    world = World(seed, trace=trace)
    made = plan(seed, world.chance)
    world.note("%s", made)
    try:
        _play(world, made)
    except Broken as broken:
        return Outcome(seed, str(broken), world.count, world.lines)
    return Outcome(seed, "", world.count, world.lines)


def _play(world: World, made: Plan) -> None:
    network = Network(world, lossy=made.lossy, doubled=made.doubled, late=made.late, quick=made.sharp)
    portal = _portal(world, network, made)
    for number in range(1, made.hosts + 1):
        _add_host(world, network, portal, made, number)
    watcher = Watcher(portal)
    customers = Customers(world, portal)
    faults, staff = Faults(world, portal, watcher), Staff(world, portal, watcher)
    for host in portal.machines.values():
        host.begin()
    world.every(WATCH_SECONDS, watcher.look)
    world.every(SWEEP_SECONDS, portal.sweep)
    customers.begin()
    faults.begin()
    staff.begin()
    world.run(made.lasts)
    faults.stop()
    customers.stop()
    staff.faults_are_over()
    world.note("the faults stop")
    world.run(made.lasts + SETTLES_WITHIN, enough=lambda: at_rest(portal))
    demand_all_well(portal)


def _rate(world: World, made: Plan, *, fast: bool) -> float:
    """How fast a clock runs; in a sharp run the worst that is permitted: the portal's fast, the hosts' slow."""
    if made.sharp:
        return 1 + RATE if fast else 1 - RATE
    return 1 + world.chance.uniform(-RATE, RATE)


def _portal(world: World, network: Network, made: Plan) -> Portal:
    clock = Clock(_rate(world, made, fast=True))
    other = clock if made.one_machine else Clock(clock.rate, off=world.chance.uniform(-1.5, 1.5))
    return Portal(world, network, made, clock, other)


def _add_host(world: World, network: Network, portal: Portal, made: Plan, number: int) -> None:
    chance = world.chance
    fenced = chance.random() < 0.92
    off = chance.choice([0.0, 0.0, -3600.0, 50_000.0])
    clock = Clock(_rate(world, made, fast=False), off=off, counts_sleep=chance.random() < 0.7)
    portal.db.hosts[number] = HostRow(number, made.slots, fenced)
    portal.machines[number] = Host(
        world, network, portal, id=number, clock=clock, grace=chance.choice([2.0, 5.0, 20.0]),
        kill=chance.choice([1.0, 10.0]), every=chance.choice([5.0, 8.0]), sharp=made.sharp, fenced=fenced,
    )  # fmt: skip
