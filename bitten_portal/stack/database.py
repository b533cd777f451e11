"""What the launcher itself asks of the stack's database, whichever it is: it runs no Django."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any
from urllib.parse import unquote

import psycopg

from bitten_portal.stack.environments import Environments

_SQLITE = "SELECT name FROM farm_host WHERE surveyed_at >= datetime(?, 'unixepoch')"
_POSTGRES = "SELECT name FROM farm_host WHERE surveyed_at >= to_timestamp(%s)"


def heard(environments: Environments, *, since: float) -> set[str]:
    """The hosts whose surveys have arrived after that moment: they are given terminals."""
    rows: list[tuple[Any, ...]]
    url = environments.database_url
    if url.startswith("sqlite:///"):
        path = unquote(url.removeprefix("sqlite:///"))
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as base:
            rows = base.execute(_SQLITE, (since,)).fetchall()
    else:
        with psycopg.connect(url, connect_timeout=5) as server:
            rows = server.execute(_POSTGRES, (since,)).fetchall()
    return {str(row[0]) for row in rows}
