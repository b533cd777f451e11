"""Which clones hold live terminals, as far as that is known. What nobody knows counts as live: doubt stops it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from farm.agent import processes
from farm.agent.processes import Scan
from farm.agent.protocol import ProtocolError
from farm.agent.state import Memory, State

DEMO = "press pass"


def is_live(kind: str) -> bool:
    """Whether a terminal of that kind may only run under a lease."""
    return kind != DEMO


class Living:
    """Remembers what it once read: a state that cannot be read any more makes no demo terminal a live one.

    It has a memory of its own, for whoever uses it must wait for no lock that others hold.
    """

    def __init__(self, state_folder: Path) -> None:
        self._memory = Memory(state_folder)
        self._live: dict[str, bool] = {}

    def among(self, seen: Scan) -> list[str]:
        """Return which of the folders in ``seen`` hold a live terminal."""
        self._learn(self._memory.every(), seen.by_folder)
        return sorted(folder for folder in seen.by_folder if self._live.get(folder, True))

    def _learn(self, states: list[State], running: Iterable[str]) -> None:
        folders = {processes.key(state.folder): state for state in states if not state.tombstone}
        known = {folder: live for folder, live in self._live.items() if folder in folders or folder in running}
        for folder, state in folders.items():
            try:
                order = state.start_order()
            except (ProtocolError, TypeError):  # its state is readable, what it was started with is not
                continue
            if order is not None:
                known[folder] = is_live(order.kind)
        self._live = known
