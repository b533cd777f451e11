"""What the bridge last reported, and what the terminal and its place are called."""

from __future__ import annotations

from typing import Any

from farm.models import Instance
from farm.states import Connection, Status
from presspass import moments
from presspass.telling.situation import Fact, Situation

NOT_KNOWN = "not known yet"

_HAS_FACTS = frozenset({Status.RUNNING, Status.STOPPING, Status.STOPPED, Status.LOST})


def facts(row: Instance, its: Situation) -> tuple[Fact, ...]:
    if row.status not in _HAS_FACTS and not row.facts:
        return ()
    if row.status in {Status.DESTROYING, Status.DESTROYED}:
        return ()
    return (*_account(row), _balance(row), _positions(row), _heartbeat(row, its))


def _account(row: Instance) -> tuple[Fact, ...]:
    if row.account is None:
        return (Fact("Account", "none in it yet"), Fact("Server", "none yet"))
    login, server = str(row.account.login), row.account.server
    return (Fact("Account", login, login), Fact("Server", server, server))


def _balance(row: Instance) -> Fact:
    amount = _number(row.facts.get("balance"))
    if amount is None or row.connection == Connection.NO_ACCOUNT:
        return Fact("Balance", "none yet" if row.account is None else NOT_KNOWN)
    currency = str(row.facts.get("currency") or "")
    return Fact("Balance", f"{amount:,.2f} {currency}".strip(), f"{amount:.2f}")


def _positions(row: Instance) -> Fact:
    count = _number(row.facts.get("positions"))
    if count is None:
        return Fact("Open positions", "none" if row.connection == Connection.NO_ACCOUNT else NOT_KNOWN)
    return Fact("Open positions", f"{count:.0f}" if count else "none")


def _heartbeat(row: Instance, its: Situation) -> Fact:
    if row.heartbeat_at is None:
        return Fact("Last heartbeat", NOT_KNOWN)
    said = moments.ago(row.heartbeat_at, now=its.now)
    return Fact("Last heartbeat", said.text, at=said)


def names(row: Instance) -> tuple[Fact, ...]:
    if row.status == Status.DESTROYED or row.host is None:
        return (_copied("Instance", row.pk),)
    port = row.port_number
    return (
        _copied("Instance", row.pk),
        _copied("Host", row.host.name),
        *([_copied("Port", port)] if port is not None else []),
        _copied("Magic number", row.magic),
        _copied("Folder", row.folder),
    )


def _copied(term: str, value: object) -> Fact:
    return Fact(term, str(value), str(value))


def open_positions(row: Instance) -> int:
    return int(_number(row.facts.get("positions")) or 0)


def _number(value: Any) -> float | None:
    """A host's word is not trusted to be of the right type."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
