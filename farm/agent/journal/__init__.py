"""The terminal's journal, read as it grows: lines from files, facts from lines, and what the facts add up to.

``reader`` knows files and bytes, ``facts`` what a line means for the expected account, ``standing`` what a row of facts
says about the terminal. :class:`Journal` joins the first two.
"""

from farm.agent.journal.facts import Expected, Fact, Kind, fact
from farm.agent.journal.reader import Line, Position, Reading, checkpoint, read
from farm.agent.journal.standing import Standing, decided_without_network, fold
from farm.agent.journal.tail import Journal

__all__ = [
    "Expected",
    "Fact",
    "Journal",
    "Kind",
    "Line",
    "Position",
    "Reading",
    "Standing",
    "checkpoint",
    "decided_without_network",
    "fact",
    "fold",
    "read",
]
