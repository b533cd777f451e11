"""Points at which a test may kill this process, to prove that any of them leaves nothing half-made.

``point(name)`` stands after every side effect and does nothing in production. With ``FARM_CRASH_AT=<n>`` the n-th point
passed, with ``FARM_CRASH_AT=<name>`` the first point of that name, kills the process at once. With
``FARM_CRASH_LIST=<file>`` every point passed is written to that file, one name a line: so the points are found.
"""

from __future__ import annotations

import os
import signal
from threading import Lock
from typing import NoReturn

_CRASH_AT = os.environ.get("FARM_CRASH_AT", "")
_LIST = os.environ.get("FARM_CRASH_LIST", "")
_ARMED = bool(_CRASH_AT or _LIST)

_passed = 0
_counting = Lock()


def point(name: str) -> None:
    """Mark that the side effect ``name`` has just happened."""
    if _ARMED:
        _pass(name)


def _pass(name: str) -> None:
    global _passed
    with _counting:
        _passed += 1
        if _LIST:
            with open(_LIST, "a", encoding="utf-8") as names:
                names.write(f"{name}\n")
        if _CRASH_AT in (str(_passed), name):
            _die()


def _die() -> NoReturn:
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)
