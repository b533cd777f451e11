"""One line of JSON per event on stderr, from which secrets and customers' addresses are kept."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NEVER = frozenset({"args", "data", "email", "envelope", "kwargs", "password", "request", "secret", "token"})
"""Extras that hold what a log must not: Celery puts a task's arguments into `data`, Django the request itself."""

_ADDRESS = re.compile(r"[^\s@\"'<>()=,;:]+@[^\s@\"'<>()=,;:]+\.\w+")
_LONG = re.compile(r"(?<=[/=])[A-Za-z0-9_:-]{20,}")
"""A word of a path or query that is long enough to be a sign-in token."""
_URL_PASSWORD = re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*@")


def redacted(text: str) -> str:
    text = _URL_PASSWORD.sub("[cut]@", text)
    return _LONG.sub("[cut]", _ADDRESS.sub("[address]", text))


class Line(logging.Formatter):
    """The event's text, its extras, and the traceback if there is one, as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name.startswith(("celery", "kombu")):
            # What follows the first line of theirs is a message's body, or the traceback that comes below anyway.
            message = message.partition("\n")[0]
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(message),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in _NEVER:
                line[name] = value if isinstance(value, bool | int | float | None) else redacted(str(value))
        if record.exc_info:
            line["traceback"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)
