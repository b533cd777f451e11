"""The bridge: the JSON files through which the outside and an instance's Expert Advisor know of each other.

They lie in ``<clone>/MQL5/Files/bitten/``, the one place that an Expert Advisor can reach. docs/bridge.md is the
contract. What the Expert Advisor's side writes is in the customer's hands, so everything read here is doubted: its
size, its type, its numbers, its clock, and whose account it speaks of.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from farm.agent import inside
from farm.agent.errors import typed
from farm.agent.faults import point
from farm.agent.inside import Side
from farm.agent.protocol import Heartbeat
from farm.agent.startup import HIGHEST_LOGIN, is_address

T = TypeVar("T")

SCHEMA = 1
TIMER_MS = 1000

IDENTITY, BRIDGE = "identity.json", "bridge.json"
ACCOUNT, POSITIONS, HEARTBEAT = "account.json", "positions.json", "heartbeat.json"
COMMANDS = "commands"
FOLDER = "MQL5/Files/bitten"
JOURNALS = ("logs", "MQL5/Logs")
"""Where the terminal, and where its Expert Advisors, write their journals."""

PERMISSIONS = ("terminal_trade_allowed", "account_trade_allowed", "algo_trading")
"""The switches of the terminal, of the account and of the Expert Advisor: all must be on for an order to pass."""

MOST_BYTES = {IDENTITY: 16 << 10, ACCOUNT: 16 << 10, HEARTBEAT: 16 << 10, POSITIONS: 1 << 20}
MOST_COMMANDS = 10_000
MOST_MONEY = 1e15
LONGEST_WORD = 128
NEVER = 0.0
CLOCK_SKEW_SECONDS = 120.0
"""A time further in the future is nobody's clock: what bears it would stay fresh for ever, and is refused."""


class _Unfit(ValueError):
    """What is in the file is not what the contract says."""


def folder(clone: Path) -> Path:
    return clone / FOLDER


# --- written by the agent ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which instance a clone is."""

    instance: int
    host: str
    folder: str
    kind: str
    magic: int
    port: int
    server: str = ""
    login: int | None = None
    digest: str = ""
    """Of the master that it was cloned from."""


def write_identity(clone: Path, identity: Identity) -> None:
    """Tell the Expert Advisor, and whoever looks into the clone, which instance it is."""
    _write(clone, IDENTITY, {"schema": SCHEMA, **asdict(identity)})


def read_identity(clone: Path) -> int | None:
    """Return the instance that ``clone`` says it is, None if it does not say. An Expert Advisor can change it."""
    try:
        with inside.opened(clone, FOLDER) as into:
            said, _ = _read(into, IDENTITY)
        return _instance(said.get("instance"))
    except (OSError, ValueError, RecursionError):
        return None


def write_bridge(clone: Path, *, magic: int, port: int, timer_ms: int = TIMER_MS) -> None:
    """Tell the Expert Advisors their magic number, their port and how often to report."""
    _write(clone, BRIDGE, {"schema": SCHEMA, "timer_ms": timer_ms, "magic": magic, "port": port})


def _write(clone: Path, name: str, said: Mapping[str, Any]) -> None:
    """Put ``name`` there at once and whole: as one line, for that is all that the Expert Advisor needs to read."""
    draft = f"{name}.tmp"
    with typed(f"writing {name}"), inside.opened(clone, FOLDER, make=True) as into:
        _make_commands(into)
        into.remove(draft)
        with open(into.make(draft, 0o644), "wb") as file:
            file.write(json.dumps(said, separators=(",", ":"), allow_nan=False).encode())
            file.flush()
            os.fsync(file.fileno())
        point(f"bridge.{name}.drafted")
        into.replace(name, by=draft)
    point(f"bridge.{name}.written")


def _make_commands(into: Side) -> None:
    """Make the folder for commands, dated so that only a command can make it look used."""
    try:
        into.look(COMMANDS)
    except FileNotFoundError:
        into.make_folder(COMMANDS)
        with inside.deeper(into, COMMANDS) as commands:
            os.utime(commands.path if commands.handle is None else commands.handle, (NEVER, NEVER))


def clear_stale(clone: Path) -> None:
    """Remove what an earlier run's Expert Advisor wrote. The heartbeat goes first: without it nothing else is read."""
    with typed("removing an earlier run's files"), suppress(FileNotFoundError), inside.opened(clone, FOLDER) as into:
        for name in (HEARTBEAT, ACCOUNT, POSITIONS):
            into.remove(name)
            into.remove(f"{name}.tmp")
            point(f"bridge.{name}.cleared")


# --- read by the agent ------------------------------------------------------------------------------------------------


def read_heartbeat(clone: Path, *, login: int | None, server: str, now: float | None = None) -> Heartbeat | None:
    """Return the Expert Advisor's last sign of life with the account's figures, or None if there is none to believe.

    None too, if the files are of another account than ``login`` on ``server`` (0 and "" without an account), or if
    the account or the positions cannot be read. How old it is, is for the caller to judge by ``at``, which is never
    later than ``now`` (the clock's, if not given) nor than the file.
    """
    now = time.time() if now is None else now
    try:
        with inside.opened(clone, FOLDER) as into:
            # Written last, so read first: the other two are then at least as fresh as it claims.
            beat, written_at = _read(into, HEARTBEAT)
            account, _ = _read(into, ACCOUNT)
            held, _ = _read(into, POSITIONS)
        for said in (beat, account):
            _check_identity(said, login=login, server=server)
        return _merged(beat, account, held, latest=min(written_at, now))
    except (OSError, ValueError, ArithmeticError, RecursionError):
        return None


def last_command_at(clone: Path, *, now: float | None = None) -> float | None:
    """Return when the last command was put into the bridge, None if none ever was.

    A command that was obeyed is gone; that it was there is known by its folder's own time.
    """
    now = time.time() if now is None else now
    times = [NEVER]
    with suppress(OSError), inside.opened(clone, f"{FOLDER}/{COMMANDS}") as commands:
        with suppress(_Unfit):
            times.append(_past(commands.itself().st_mtime, latest=now))
        for entry in commands.entries(most=MOST_COMMANDS):
            with suppress(OSError, _Unfit):  # taken away while we look
                if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False):
                    times.append(_past(entry.stat(follow_symlinks=False).st_mtime, latest=now))
    newest = max(times)
    return newest if newest > NEVER else None


def activity_at(heartbeat: Heartbeat | None, command: float | None) -> float | None:
    """Return when this instance was last active: a command, an order by its login, or a position that was open.

    A heartbeat by itself is a sign of life and no activity.
    """
    times = [command]
    if heartbeat is not None:
        times.append(heartbeat.get("last_order_at"))
        times.append(heartbeat.get("at") if heartbeat.get("positions") else None)
    return max((at for at in times if at is not None), default=None)


def _merged(
    beat: Mapping[str, Any], account: Mapping[str, Any], held: Mapping[str, Any], *, latest: float
) -> Heartbeat:
    positions = _field(held, "positions", _list)
    allowed = [_field(beat, name, _flag) for name in PERMISSIONS]
    last_order_at = held.get("last_order_at")
    return {
        "at": _past(_field(beat, "at", _time), latest=latest),
        "login": _field(beat, "login", _login),
        "server": _field(beat, "server", _word),
        "currency": _field(account, "currency", _word),
        "balance": _field(account, "balance", _money),
        "equity": _field(account, "equity", _money),
        "positions": len(positions),
        "orders": _field(held, "orders", _count),
        "last_order_at": None if last_order_at is None else min(_time(last_order_at), latest),
        "trade_allowed": all(allowed),
        "connected": _field(beat, "connected", _flag),
    }


def _check_identity(said: Mapping[str, Any], *, login: int | None, server: str) -> None:
    if _field(said, "login", _login) != (login or 0):
        raise _Unfit("another login")
    named = _field(said, "server", _word)
    # A server that was given as host:port has a name of its own, which is what the terminal says.
    if login is not None and not is_address(server) and named.casefold() != server.casefold():
        raise _Unfit("another server")


# --- doubts -----------------------------------------------------------------------------------------------------------


def _read(into: Side, name: str) -> tuple[Mapping[str, Any], float]:
    """Return what the file says and when it was written; raise OSError, ValueError or RecursionError."""
    with open(into.read(name), "rb") as file:
        found = os.fstat(file.fileno())
        raw = file.read(MOST_BYTES[name] + 1)
    if len(raw) > MOST_BYTES[name]:
        raise _Unfit("not of a fit size")
    said = json.loads(raw.decode("utf-8-sig"))
    if not isinstance(said, dict) or said.get("schema") != SCHEMA:
        raise _Unfit("not an object of this schema")
    return said, found.st_mtime


def _field(said: Mapping[str, Any], name: str, kind: Callable[[Any], T]) -> T:
    return kind(said.get(name))


def _past(at: float, *, latest: float) -> float:
    if at > latest + CLOCK_SKEW_SECONDS:
        raise _Unfit("from the future")
    return min(at, latest)


def _money(value: Any) -> float:
    # The size first: math.isfinite raises on a whole number that no float can hold.
    if type(value) not in (int, float) or abs(value) > MOST_MONEY or not math.isfinite(value):
        raise _Unfit("not an amount")
    return float(value)


def _time(value: Any) -> float:
    if _money(value) < 0:
        raise _Unfit("not a time")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 10**6:
        raise _Unfit("not a count")
    return value


def _instance(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise _Unfit("not an instance")
    return value


def _login(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= HIGHEST_LOGIN:
        raise _Unfit("not a login")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_WORD or not value.isprintable():
        raise _Unfit("not a word")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _Unfit("neither true nor false")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Unfit("not a list")
    return value
