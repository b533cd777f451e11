"""What one seed stands for: how big the farm is, how it is set, and how far off its clocks are."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from farm import fencing
from farm.agent.lease import MOST_GRACE_SECONDS, longest_stop

RATE = fencing.CLOCK_RATE
STEPS = [0.001 * n for n in range(1, 5000)]
MOST_STOP = longest_stop(MOST_GRACE_SECONDS, 10.0)
"""As the hosts of the simulation take it."""


def least_drift(longest_lease: float, longest_stop: float) -> float:
    """The smallest drift that ``farm.fencing`` lets pass: the one that leaves nothing over."""
    return next(d for d in STEPS if fencing.drift_covers(d, longest_lease=longest_lease, longest_stop=longest_stop))


@dataclass(frozen=True, kw_only=True)
class Plan:
    seed: int
    sharp: bool
    """Everything takes as long as it may on the hosts, and no time at all at the portal."""
    hosts: int
    slots: int
    one_machine: bool
    """Portal and database share a clock."""
    rules: fencing.Rules
    held: float
    """Seconds for which staff hold leases; 0: never."""
    customers: int
    lossy: float
    doubled: float
    late: float
    hangs: float
    """So often a start is told as failed while the terminal runs."""
    lasts: float
    """Seconds until the faults stop."""


def plan(seed: int, chance: Random) -> Plan:
    sharp = chance.random() < 0.4
    lease = chance.choice([30.0, 60.0, 60.0, 120.0])
    held = chance.choice([300.0, 600.0]) if chance.random() < 0.2 else 0.0
    longest = max(lease, held)
    drift = least_drift(longest, MOST_STOP) if sharp else 15.0
    rules = fencing.Rules(
        lease=lease, suspect=chance.choice([15.0, 20.0, 30.0]), move=40.0, drift=drift,
        grace=chance.choice([20.0, 60.0]),
        brake_hosts=3, brake_window=chance.choice([60.0, 300.0]),
    )  # fmt: skip
    rough = chance.random() < 0.5
    hosts = chance.randint(2, 5)
    return Plan(
        seed=seed,
        sharp=sharp,
        hosts=hosts,
        slots=chance.randint(2, 4),
        one_machine=chance.random() < 0.5,
        rules=rules,
        held=held,
        customers=chance.randint(3, 10) if hosts > 2 else chance.randint(3, 6),
        lossy=chance.choice([0.02, 0.1]) if rough else 0.0,
        doubled=chance.choice([0.05, 0.2]) if rough else 0.0,
        late=chance.choice([0.02, 0.15]) if rough else 0.0,
        hangs=chance.choice([0.0, 0.2, 0.5]),
        lasts=chance.uniform(250, 400) + lease + held,
    )
