"""The simulation sees a wrong inequality: each planted fault breaks a schedule that passes without it."""

from __future__ import annotations

import pytest

from tests.simulation.mutations_around import MUTATIONS
from tests.simulation.run import run

SEEDS = range(1, 1001)
"""The same that tests/simulation/test_simulation.py runs."""


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_a_planted_fault_is_noticed(name: str):
    with MUTATIONS[name]():
        assert any(run(seed).broken for seed in SEEDS), f"nobody noticed that {name}"
