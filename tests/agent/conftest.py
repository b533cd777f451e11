"""Fixtures of the agent's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.house import House, a_house


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("PAPER_ACCOUNTS", str(tmp_path / "accounts.json"))
    monkeypatch.delenv("PAPER_QUIRKS", raising=False)
    with a_house(tmp_path) as made:
        yield made


@pytest.fixture
def needs_root() -> None:
    """For what only root can do: give files to another user, start programs as one, mount a disk."""
    if os.geteuid() == 0:
        return
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail("needs root")
    pytest.skip("needs root")
