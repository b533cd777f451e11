"""What one line of the journal says about the expected account, or nothing.

A line has five columns with tabs between: a two-letter code, a level, the local time, the source, the message. About
the account only the source ``Network`` is believed, only with the expected login in quotes and, where a server is
named, the expected server: ``MQL5.community  authorization failed`` is nobody's broker, and a terminal may name other
accounts that it knows. The messages are those seen in real journals; where only a project's word stands for one, the
pattern is looser rather than stricter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from farm.agent.errors import one_line
from farm.agent.journal.reader import Line
from farm.agent.startup import EXPERT, is_address


class Kind(StrEnum):
    STARTED = "started"
    FROM_INI = "from ini"
    """The start-up ini was read: it may be removed."""
    NETWORK = "network"
    """A sign that the terminal tries to reach its broker, and no more."""
    AUTHORISED = "authorised"
    SYNCHRONISED = "synchronised"
    TRADING_ENABLED = "trading enabled"
    INVESTOR = "investor"
    """Trading is disabled: the password is the one for looking on."""
    TRADING_DISABLED = "trading disabled"
    REFUSED = "refused"
    NO_CONNECTION = "no connection"
    CONNECTION_LOST = "connection lost"
    DISCONNECTED = "disconnected"
    UPDATING = "updating"
    UPDATED = "updated"
    EXPERT_LOADED = "expert loaded"
    EXPERT_REMOVED = "expert removed"
    EXPERT_FAILED = "expert failed"
    ALGO_ENABLED = "algo enabled"
    ALGO_DISABLED = "algo disabled"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Fact:
    kind: Kind
    at: float | None = None
    """Unix seconds, by this machine's clock and zone; None if the line's time is unreadable."""
    text: str = ""
    """The words that say why or what, made fit to print: a reason, a path, a server, an expert's name."""
    build: int | None = None
    ping_ms: float | None = None
    positions: int | None = None
    orders: int | None = None
    code: int | None = None
    """Exit code of the terminal."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Whose lines are read."""

    login: int | None = None
    """None: a terminal without account, whose ``Network`` lines mean nothing."""
    server: str = ""
    expert: str = EXPERT

    def is_server(self, named: str) -> bool:
        """Whether ``named`` can be the expected server: by name, or one of the two is an address, which has no name."""
        return named.casefold() == self.server.casefold() or is_address(self.server) or is_address(named)


def fact(line: Line, expected: Expected) -> Fact | None:
    """Return what ``line`` says; None for the many that say nothing here. Never raises, whatever the line holds."""
    columns = line.text.split("\t", 4)
    if len(columns) != 5:
        return None
    _, _, time, source, message = columns
    read = _SOURCES.get(source)
    found = read(message, expected) if read else None
    return replace(found, at=_seconds(line.day, time), text=one_line(found.text)) if found else None


_MOMENT = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?\Z")


def _seconds(day: str, time: str) -> float | None:
    found = _MOMENT.match(f"{day} {time}")
    if found is None:
        return None
    *whole, thousandths = found.groups(default="0")
    try:
        return datetime(*map(int, whole)).timestamp() + int(thousandths) / 1000  # type: ignore[arg-type]
    except (ValueError, OverflowError, OSError):
        return None


def _whole(digits: str | None) -> int | None:
    return int(digits) if digits and len(digits) < 10 else None


# --- Network ----------------------------------------------------------------------------------------------------------

_OF_LOGIN = re.compile(r"'([0-9]{1,20})': (.*)\Z", re.DOTALL)
_AUTHORISED = re.compile(r"authorized on (.+)")
_PING = re.compile(r" \(ping: ([0-9]{1,9}(?:\.[0-9]{1,9})?) ms")
_BUILD_AT_END = re.compile(r" \((?:ping: [^()]*|build [0-9]+)\)\Z")
_REFUSED = re.compile(r"authorization on (.+?) failed(?: \((.*)\))?\Z")
_SYNCHRONISED = re.compile(r"terminal synchronized with (?:.*: ([0-9]+) positions?, ([0-9]+) orders?)?")
_LOST = re.compile(r"connection to (.+) lost\b")
_DISCONNECTED = re.compile(r"disconnected from (.+)\Z")
_NO_CONNECTION = re.compile(r"no connection to (.+)\Z")
_TRADING = re.compile(r"trading has been (enabled|disabled)\b[ ,-]*(.*)\Z")


def _network(message: str, expected: Expected) -> Fact | None:
    if expected.login is None:
        return None
    found = _OF_LOGIN.match(message)
    if found is None:
        return None if message.startswith("'") else Fact(Kind.NETWORK)
    if found[1] != str(expected.login):
        return None
    said = found[2]
    for read in (_authorised, _refused, _synchronised, _trading, _unreached):
        pattern_found, heard = read(said, expected)
        if pattern_found:
            return heard
    return Fact(Kind.NETWORK)


_Heard = tuple[bool, Fact | None]
"""Whether the message is of that form, and what it says if it is about the expected server."""


def _authorised(said: str, expected: Expected) -> _Heard:
    found = _AUTHORISED.match(said)
    if not found:
        return False, None
    ping = _PING.search(said)
    named = found[1]
    # The access point may be missing, and names may hold blanks: the expected name is looked for as a whole.
    ours = any(expected.is_server(name) for name in _names_in(named))
    heard = Fact(Kind.AUTHORISED, text=_names_in(named)[-1], ping_ms=float(ping[1]) if ping else None)
    return True, heard if ours else None


def _names_in(named: str) -> list[str]:
    """Return what of ``authorized on ...`` can be the server's name: all of it, or up to its suffixes."""
    plain = _BUILD_AT_END.sub("", named)
    return [named, plain, plain.split(" through ", 1)[0]]


def _refused(said: str, expected: Expected) -> _Heard:
    found = _REFUSED.match(said)
    if not found:
        return False, None
    return True, Fact(Kind.REFUSED, text=found[2] or "") if expected.is_server(found[1]) else None


def _synchronised(said: str, expected: Expected) -> _Heard:
    found = _SYNCHRONISED.match(said)  # names the broker's company, not its server
    if not found:
        return False, None
    return True, Fact(Kind.SYNCHRONISED, positions=_whole(found[1]), orders=_whole(found[2]))


def _trading(said: str, expected: Expected) -> _Heard:
    found = _TRADING.match(said)
    if not found:
        return False, None
    if found[1] == "enabled":
        return True, Fact(Kind.TRADING_ENABLED, text=found[2])
    kind = Kind.INVESTOR if "investor" in found[2].casefold() else Kind.TRADING_DISABLED
    return True, Fact(kind, text=found[2])


def _unreached(said: str, expected: Expected) -> _Heard:
    for pattern, kind in (
        (_LOST, Kind.CONNECTION_LOST),
        (_DISCONNECTED, Kind.DISCONNECTED),
        (_NO_CONNECTION, Kind.NO_CONNECTION),
    ):
        if found := pattern.match(said):
            return True, Fact(kind, text=found[1]) if expected.is_server(found[1]) else None
    return False, None


# --- the other sources ------------------------------------------------------------------------------------------------

_STARTED = re.compile(r"\bbuild ([0-9]+) started\b")  # a broker's own build has its name before MetaTrader's
_LAUNCHED = re.compile(r'launched with "?(.+\.ini)"?\Z', re.IGNORECASE)  # an update's relaunch has no ini
_STOPPED = re.compile(r"(?:exit with code|stopped with|shutdown with) (-?[0-9]+)\b")
_FROM_INI = re.compile(r'successfully initialized from start config "?([^"]*)"?')
_UPDATER = re.compile(r'(?:start ".*" /update\b|updating\.\.\.|\'.*\' updated\Z)')
_LOADED = re.compile(r"expert (.+) \([^()]*\) (loaded successfully|removed)\b")
_FAILED = re.compile(r"initializing of (.+) \([^()]*\) (failed\b.*)\Z")
_ALGO = re.compile(r"automated trading is (enabled|disabled)\b[ ]?(.*)\Z")


def _terminal(message: str, expected: Expected) -> Fact | None:
    if found := _STARTED.search(message):
        return Fact(Kind.STARTED, build=_whole(found[1]))
    if found := _LAUNCHED.match(message):
        return Fact(Kind.FROM_INI, text=found[1])
    if found := _STOPPED.match(message):
        return Fact(Kind.STOPPED, code=int(found[1]) if len(found[1]) < 12 else None)
    return None


def _startup(message: str, expected: Expected) -> Fact | None:
    found = _FROM_INI.match(message)
    return Fact(Kind.FROM_INI, text=found[1]) if found else None


def _live_update(message: str, expected: Expected) -> Fact | None:
    if message.startswith("updated successfully"):
        return Fact(Kind.UPDATED)
    return Fact(Kind.UPDATING) if _UPDATER.match(message) else None


def _experts(message: str, expected: Expected) -> Fact | None:
    if found := _ALGO.match(message):
        return Fact(Kind.ALGO_ENABLED if found[1] == "enabled" else Kind.ALGO_DISABLED, text=found[2])
    if found := _LOADED.match(message):
        kind = Kind.EXPERT_REMOVED if found[2] == "removed" else Kind.EXPERT_LOADED
        return Fact(kind, text=found[1]) if _is_expert(found[1], expected) else None
    if found := _FAILED.match(message):
        return Fact(Kind.EXPERT_FAILED, text=f"{found[1]} {found[2]}") if _is_expert(found[1], expected) else None
    return None


def _is_expert(named: str, expected: Expected) -> bool:
    return named.rpartition("\\")[2].casefold() == expected.expert.rpartition("\\")[2].casefold()


_SOURCES: dict[str, Callable[[str, Expected], Fact | None]] = {
    "Network": _network,
    "Terminal": _terminal,
    "Startup": _startup,
    "LiveUpdate": _live_update,
    "Experts": _experts,
}
