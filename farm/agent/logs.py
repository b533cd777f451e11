"""One line a record, with the facts that came with it: constant words first, then ``name=value`` of every extra."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

_USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Lines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        extras = (
            f"{name}={value!r}" for name, value in record.__dict__.items() if name not in _USUAL and name != "data"
        )
        return " ".join([super().formatMessage(record), *extras])


def to(stream: TextIO = sys.stderr, *, level: int = logging.INFO) -> None:
    """Send every record of ``level`` and above to ``stream``; standard output is for the answer alone."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    logging.basicConfig(level=level, handlers=[handler])
