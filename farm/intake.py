"""A CSV file of demo accounts is read, looked over line by line, and taken into the vault.

The web does this without being able to read a password again: it closes them to the portal worker's public key.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from enum import StrEnum

from django.db import transaction
from django.utils.dateparse import parse_date, parse_datetime

from farm import clock, vault
from farm.models import BrokerAccount, Seat

COLUMNS = ("server", "login", "password")
MOST_BYTES = 2 << 20
MOST_LINES = 5_000
LARGEST_LOGIN = 2**63 - 1


class What(StrEnum):
    NEW = "new"
    KNOWN = "known already"
    TWICE = "in this file twice"
    EXPIRED = "expired"
    MALFORMED = "malformed"


class Unreadable(ValueError):
    """It is no CSV file of demo accounts; says why."""


@dataclass(frozen=True)
class Line:
    """One line of the file. Its password is shown nowhere."""

    number: int
    what: What
    server: str = ""
    login: int | None = None
    expires_at: datetime | None = None
    problem: str = ""
    password: str = field(default="", repr=False)


def read(raw: bytes) -> list[Line]:
    """What each line would do. Raise :class:`Unreadable`. No message quotes a line: it may hold a password."""
    if len(raw) > MOST_BYTES:
        raise Unreadable(f"The file is bigger than {MOST_BYTES >> 20} MiB.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("The file is not UTF-8 text.") from None
    rows = csv.DictReader(io.StringIO(text, newline=None), skipinitialspace=True)  # some write \r alone for a new line
    try:
        names = [name.strip().lower() for name in rows.fieldnames or []]
        if not set(COLUMNS) <= set(names):
            raise Unreadable(
                "The first line must name the columns: server,login,password,expires_at (the last may lack)."
            )
        rows.fieldnames = names
        found = [_parsed(rows.line_num, row) for row in rows]
    except csv.Error:
        raise Unreadable("The file cannot be read as CSV.") from None
    if len(found) > MOST_LINES:
        raise Unreadable(f"The file has more than {MOST_LINES:,} lines.")
    return list(_compared(found))


def _parsed(number: int, row: dict[str, str | list[str] | None]) -> Line:
    cells = {name: value.strip() for name, value in row.items() if isinstance(name, str) and isinstance(value, str)}
    server, login, password = (cells.get(name, "") for name in COLUMNS)
    problem = _problem(server, login, password, too_long=None in row)
    try:
        expires_at = _moment(cells.get("expires_at", ""))
    except ValueError:
        expires_at, problem = None, problem or "expires_at is no date"
    if problem:
        return Line(number, What.MALFORMED, problem=problem)
    what = What.EXPIRED if expires_at is not None and expires_at <= clock.now() else What.NEW
    return Line(number, what, server, int(login), expires_at, password=password)


def _problem(server: str, login: str, password: str, *, too_long: bool) -> str:
    if too_long:
        return "it has more fields than the first line"
    if not server or len(server) > 64 or not server.isprintable():
        return "the server's name is missing or too long"
    if not (login.isascii() and login.isdigit()) or len(login) > 20 or not 0 < int(login) <= LARGEST_LOGIN:
        return "the login is not a number"
    if not password or len(password) > 128 or not password.isprintable():
        return "the password is missing, too long, or holds signs that cannot be typed"
    return ""


def _moment(text: str) -> datetime | None:
    """A moment or a day, whose end it is; UTC unless it says otherwise."""
    if not text:
        return None
    day = parse_date(text)
    if day is not None:
        return datetime.combine(day, time(23, 59, 59), tzinfo=UTC)
    moment = parse_datetime(text)
    if moment is None:
        raise ValueError
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _compared(lines: list[Line]) -> Iterator[Line]:
    """Mark what the vault, or an earlier line, has already."""
    logins = {line.login for line in lines if line.login is not None}
    there: set[tuple[str, int]] = set()
    for chunk in _chunks(sorted(logins), 500):
        seats = Seat.objects.filter(login__in=chunk).values_list("server_key", "login")
        there.update(seats)
    seen: set[tuple[str, int]] = set()
    for line in lines:
        key = (vault.server_key(line.server), line.login or 0)
        if line.what is not What.NEW:
            yield line
        elif key in there or key in seen:
            yield Line(line.number, What.KNOWN if key in there else What.TWICE, line.server, line.login)
        else:
            seen.add(key)
            yield line


def _chunks(values: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def sealed(lines: list[Line]) -> list[list[object]]:
    """The new ones in a form that may wait in a session: every password closed. Raises ``KeysMissing``."""
    return [
        [line.server, line.login, vault.sealed(line.password), line.expires_at and line.expires_at.isoformat()]
        for line in lines
        if line.what is What.NEW
    ]


@transaction.atomic
def put(waiting: list[list[object]]) -> int:
    """Take in what :func:`sealed` made; what has come in otherwise meanwhile is left as it is. Return how many."""
    added = 0
    for server, typed, password, expires_at in waiting:
        login = int(str(typed))
        seat, new = Seat.objects.get_or_create(server_key=vault.server_key(str(server)), login=login)
        if not new:
            continue
        seat.vault_account = BrokerAccount.objects.create(
            server=str(server),
            login=login,
            password=str(password),
            expires_at=datetime.fromisoformat(str(expires_at)) if expires_at else None,
        )
        seat.save(update_fields=["vault_account"])
        added += 1
    return added
