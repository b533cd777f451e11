"""Waiting for something real (a process, a file, a page) without guessing how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], *, seconds: float = 10.0, every: float = 0.02) -> T:
    """Call ``look`` until it answers something true and return that; fail with its last answer after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s; last seen: {seen!r}")
        time.sleep(every)
