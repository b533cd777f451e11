r"""The start-up ini: how a terminal is told its account, its Expert Advisor and that it may trade.

It holds a password, so it exists for seconds only: written 0600 just before the start, removed as soon as the journal
shows that it was read, and on every failure path. It is UTF-16LE with byte order mark and CRLF, as the terminal's own
files are.

The format is one ``Key=Value`` a line without any quoting, so a line break inside a value would be a new key or a new
section (``AllowDllImport=1``, a script, a proxy). Every value is therefore checked here, right before it is written,
whoever checked it before; what is refused is never repeated in the error.

What MetaTrader's own parser does with ``;``, quotes, ``#``, ``=`` or ``%`` *inside* a value is not documented. Brokers
demand such characters in passwords, so they are let through as they are; a terminal that is refused with such a
password may have been given another one than we wrote. Blanks at either end, which a parser is most likely to trim,
are refused.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from farm.agent import inside
from farm.agent.errors import AgentError, typed
from farm.agent.faults import point
from farm.agent.protocol import Reason

EXPERT = "BittenBridge"
SYMBOL = "EURUSD"

LOWEST_LOGIN, HIGHEST_LOGIN = 100, 10**19 - 1
SHORTEST_PASSWORD, LONGEST_PASSWORD = 4, 32
LONGEST_SERVER = 64
HIGHEST_PORT = 65535

_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?: [A-Za-z0-9._-]+)*\Z")
_SERVER_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?:([1-9][0-9]{0,4})\Z")
_EXPERT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9 ._-]{0,62}(?:\\[A-Za-z0-9_-][A-Za-z0-9 ._-]{0,62}){0,3}\Z")
_SYMBOL = re.compile(r"[A-Za-z0-9#_.][A-Za-z0-9._#+&!-]{0,31}\Z")
_PRINTABLE = re.compile(r"[\x20-\x7e]*\Z")


class BadValue(AgentError):
    """A value cannot be written into a start-up ini."""

    reason = Reason.NOT_INJECTED

    def __init__(self, field: str, why: str) -> None:
        """``why`` describes the rule and never quotes the value: it may be a password."""
        self.field = field
        self.why = why
        super().__init__(f"{field}: {why}")

    def __reduce__(self) -> tuple[type[BadValue], tuple[str, str]]:  # type: ignore[override]
        return (type(self), (self.field, self.why))


def ini_path(clone: Path) -> Path:
    return clone / "Config" / "bitten-start.ini"


def is_address(server: str) -> bool:
    """Whether ``server`` is ``host:port``, which MetaTrader takes without looking it up in ``servers.dat``."""
    found = _SERVER_ADDRESS.match(server)
    return found is not None and int(found[1]) <= HIGHEST_PORT


# --- what may stand in it ---------------------------------------------------------------------------------------------


def checked_login(login: int) -> int:
    if type(login) is not int or not LOWEST_LOGIN <= login <= HIGHEST_LOGIN:
        raise BadValue("login", "not a number of 3 to 19 digits")
    return login


def checked_password(password: str) -> str:
    """Return ``password`` if the terminal can be given it.

    MetaTrader's servers allow 8 to 16 characters, brokers deviate either way, hence 4 to 32. How the terminal reads
    other than ASCII here is not known, and a wrong guess would look like a wrong password.
    """
    if not isinstance(password, str) or not _PRINTABLE.match(password):
        raise BadValue("password", "has a character other than the printable ones of ASCII")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise BadValue("password", f"not {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters long")
    if password != password.strip(" "):
        raise BadValue("password", "begins or ends with a blank")
    return password


def checked_server(server: str) -> str:
    """Return ``server`` if it is a name as brokers give their servers, or ``host:port``."""
    if not isinstance(server, str) or len(server) > LONGEST_SERVER:
        raise BadValue("server", f"longer than {LONGEST_SERVER} characters")
    if not (_SERVER_NAME.match(server) or is_address(server)):
        raise BadValue("server", "neither a name of letters, digits, '.', '_', '-' and single blanks nor host:port")
    return server


def checked_expert(expert: str) -> str:
    r"""Return ``expert`` if it is a path under ``MQL5\Experts``, without ``.ex5``."""
    if not isinstance(expert, str) or not _EXPERT.match(expert) or ".." in expert or expert != expert.strip():
        raise BadValue("expert", r"not a plain path under MQL5\Experts")
    if expert.lower().endswith((".ex5", ".mq5")):
        raise BadValue("expert", "named with its extension, which the terminal does not expect")
    return expert


def checked_symbol(symbol: str) -> str:
    if not isinstance(symbol, str) or not _SYMBOL.match(symbol):
        raise BadValue("symbol", "not a symbol's name of at most 32 plain characters")
    return symbol


# --- the file ---------------------------------------------------------------------------------------------------------


def text(
    *,
    server: str = "",
    login: int | None = None,
    password: str | None = None,
    expert: str = EXPERT,
    symbol: str = SYMBOL,
) -> str:
    """Return the ini's text, with CRLF and without byte order mark; raise :class:`BadValue`.

    Without ``login`` the terminal starts without an account, and ``server`` is not told to it.
    """
    account = _account(server=server, login=login, password=password)
    # KeepPrivate: the terminal keeps the password "between connections". Without it, neither a reconnection at night
    # nor the relaunch that its own update does, which comes without this file, can be relied on to find the account
    # again. The price: Config\accounts.dat of this clone holds the password, in MetaTrader's own encryption, until
    # the clone is destroyed.
    common = ["[Common]", *account, "KeepPrivate=1"]
    # Account and Profile: at 1 the terminal switches automated trading off at its first login, for good.
    experts = ["[Experts]", "AllowLiveTrading=1", "AllowDllImport=0", "Enabled=1", "Account=0", "Profile=0"]
    startup = ["[StartUp]", f"Expert={checked_expert(expert)}", f"Symbol={checked_symbol(symbol)}", "Period=H1"]
    return "".join(f"{line}\r\n" for line in (*common, *experts, *startup))


def _account(*, server: str, login: int | None, password: str | None) -> list[str]:
    if login is None:
        if password is not None:
            raise BadValue("login", "absent, though there is a password")
        return []
    if password is None:
        raise BadValue("password", "absent, though there is a login")
    return [
        f"Login={checked_login(login)}",
        f"Server={checked_server(server)}",
        f"Password={checked_password(password)}",
    ]


def write(
    path: Path,
    *,
    server: str = "",
    login: int | None = None,
    password: str | None = None,
    expert: str = EXPERT,
    symbol: str = SYMBOL,
) -> None:
    """Put the ini at ``path`` in place of an old one; nothing is left at ``path`` if that fails."""
    remove(path)
    content = text(server=server, login=login, password=password, expert=expert, symbol=symbol)
    with typed("writing the start-up ini"), inside.opened(path.parent.parent, path.parent.name, make=True) as config:
        file = config.make(path.name, 0o600)
        try:
            with open(file, "wb") as ini:
                point("ini.created")
                ini.write(b"\xff\xfe" + content.encode("utf-16-le"))
                ini.flush()
                os.fsync(ini.fileno())
        except BaseException:
            config.remove(path.name)
            raise
    point("ini.written")


def remove(path: Path) -> None:
    """Remove the ini, if it is there.

    On Windows that fails with :class:`~farm.agent.errors.FilesInUse` while the terminal reads it: call again.
    """
    config = inside.opened(path.parent.parent, path.parent.name)
    with typed("removing the start-up ini"), suppress(FileNotFoundError), config as folder:
        folder.remove(path.name)
    point("ini.removed")
