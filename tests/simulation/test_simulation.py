"""A part of ``make simulate``: fixed seeds, so that what fails here fails everywhere."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.run import run
from tests.simulation.world import Broken, World

PORTION = 100
MUST_HAPPEN = (
    "a Press Pass is failed over",
    "a customer goes live",
    "a customer leaves",
    "a host dies for good",
    "a host is drained",
    "a host is given up",
    "a host is not given up after all",
    "a host reboots",
    "a host sleeps",
    "a host's clock is set",
    "a lease is granted",
    "a lease is refused",
    "a live terminal is failed over",
    "a live terminal is moved by a drain",
    "a live terminal is stopped by its host",
    "a lost host is back",
    "a payment stops",
    "a terminal is restarted",
    "leases are held",
    "moved before the fence",
    "staff release the brake",
    "the agent is stopped",
    "the brake goes on",
    "the brake lets go",
    "the portal's clock was set",
    "the watchdog hangs as the lease ends",
    "the watchdog is stopped",
)
"""A simulation in which nothing happens proves nothing."""


@pytest.mark.parametrize("first", range(1, 1001, PORTION))
def test_no_account_runs_twice_and_everything_comes_to_rest(first: int):
    count: Counter[str] = Counter()
    for seed in range(first, first + PORTION):
        outcome = run(seed)
        assert not outcome.broken, f"{outcome.broken}. To read it: python -m tests.simulation --seed {seed} --trace"
        count.update(outcome.count)
    assert [what for what in MUST_HAPPEN if not count[what]] == []


def test_a_seed_is_one_schedule_to_the_last_line():
    assert run(8, trace=True).lines == run(8, trace=True).lines


def test_a_second_copy_is_seen_at_once():
    class Terminal:
        account = "live 1"

    world = World(1)
    world.starts(Terminal())
    with pytest.raises(Broken, match="runs twice"):
        world.starts(Terminal())
