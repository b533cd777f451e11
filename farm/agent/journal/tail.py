"""The journal of one terminal, followed for the account that it is expected to run."""

from __future__ import annotations

from pathlib import Path

from farm.agent.journal.facts import Expected, Fact, fact
from farm.agent.journal.reader import CHUNK_BYTES, Position, checkpoint, read

MOST_BYTES = 64 * CHUNK_BYTES
"""One poll reads no more than that, so that a terminal that floods its journal does not hold up the survey."""


class Journal:
    """Follows the journal in ``folder`` (``<clone>/logs``), from ``position`` or else from its present end on."""

    def __init__(self, folder: Path, expected: Expected, *, position: Position | None = None) -> None:
        self.folder = folder
        self.expected = expected
        self.position = checkpoint(folder) if position is None else position
        self.behind = False
        """The last poll left something unread."""
        self.trouble = ""
        """Why the last poll could not read; it is tried again by the next."""

    def poll(self, *, most_bytes: int = MOST_BYTES) -> list[Fact]:
        """Return the facts that were added since the last poll, in the journal's order."""
        facts: list[Fact] = []
        for _ in range(max(1, most_bytes // CHUNK_BYTES)):
            reading = read(self.folder, self.position)
            self.position = reading.position
            self.behind, self.trouble = reading.more, reading.trouble
            facts.extend(found for line in reading.lines if (found := fact(line, self.expected)))
            if not reading.more:
                break
        return facts
