"""Which call does what: the register that selling and keeping fill."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from presspass.paper.book import Book
from presspass.paper.parameters import TEXT, Each, Hash, Json, Reader

Act = Callable[[Book, Json, str], Json]
Wrap = Callable[[Act], Act]
ROUTES: list[tuple[str, re.Pattern[str], Hash, Act]] = []


def route(method: str, path: str, fields: Mapping[str, Reader] | None = None, *, needs: tuple[str, ...] = ()) -> Wrap:
    known = Hash({**(fields or {}), "expand": Each(TEXT)}, needs=needs)

    def keep(act: Act) -> Act:
        ROUTES.append((method, re.compile("/v1/" + path.replace("ID", r"(?P<id>[^/]+)")), known, act))
        return act

    return keep


def merged(about: Json, given: Json) -> Json:
    """Metadata is added to; an empty value takes a key away."""
    if "metadata" not in given:
        return {}
    both = about["metadata"] | given["metadata"] if given["metadata"] else {}
    return {"metadata": {key: value for key, value in both.items() if value}}
