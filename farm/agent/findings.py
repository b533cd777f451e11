"""What is wrong with a master, item by item, and why it would hurt.

A master is made by hand, in a terminal that somebody used: it carries that somebody's traces unless one looks.
"""

from __future__ import annotations

import fnmatch
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from farm.agent import options, tree
from farm.agent.options import Rule

LONGEST_PATH = 259
"""Of Windows, unless long paths are switched on; a terminal does not ask for them."""
LONGEST_FOLDER = r"C:\MT5_Farm\Users\user_1234567890-99" + "\\"
EMPTY_SERVERS_DAT = 50_544
"""Bytes of the ``servers.dat`` in MetaQuotes' own installer, which knows no broker at all."""


class Severity(StrEnum):
    ERROR = "error"
    """Clones of it would leak, fail or trade wrongly."""
    WARNING = "warning"


class Cure(StrEnum):
    NONE = ""
    MOVE_ASIDE = "move aside"
    OPTIONS = "set options"


@dataclass(frozen=True, kw_only=True)
class Finding:
    item: str
    """The file or setting, as a person would look for it."""
    severity: Severity
    wrong: str
    hurts: str
    path: str = ""
    """Relative to the master."""
    cure: Cure = Cure.NONE

    @property
    def mendable(self) -> bool:
        return self.cure is not Cure.NONE


def check_folder(master: Path) -> list[Finding]:
    """Return everything that is wrong with the folder ``master``; reads names and option files, no contents."""
    if not master.is_dir() or not any(master.iterdir()):
        return [_error("BITTEN_MASTER", "The master is absent or empty.", "There is nothing to clone.")]
    rows = list(tree.walk(master))
    names = {row.path.casefold(): row for row in rows}
    return [*_missing(names), *_traces(rows), *_unclonable(rows), *_option_files(master, names)]


def _error(item: str, wrong: str, hurts: str, *, path: str = "", cure: Cure = Cure.NONE) -> Finding:
    return Finding(item=item, severity=Severity.ERROR, wrong=wrong, hurts=hurts, path=path, cure=cure)


def _warning(item: str, wrong: str, hurts: str, *, path: str = "", cure: Cure = Cure.NONE) -> Finding:
    return Finding(item=item, severity=Severity.WARNING, wrong=wrong, hurts=hurts, path=path, cure=cure)


# --- what has to be there --------------------------------------------------------------------------------------------


def _missing(names: dict[str, tree.Entry]) -> Iterator[Finding]:
    if "terminal64.exe" not in names:
        yield _error("terminal64.exe", "There is no terminal64.exe.", "No clone can start.")
    if "mql5/experts/bittenbridge.ex5" not in names:
        yield _error(
            "MQL5/Experts/BittenBridge.ex5",
            "The bridge EA is not there in compiled form.",
            "The terminal loads no .mq5: no heartbeat, no balance, no way to talk to the account. docs/bridge.md.",
        )
    brokers = names.get("config/servers.dat")
    if brokers is None or brokers.seen.st_size == EMPTY_SERVERS_DAT:
        yield _error(
            "Config/servers.dat",
            "There is no servers.dat." if brokers is None else "servers.dat is the installer's, without any broker.",
            "The terminal finds a server by this file; one it does not know it never tries, and says nothing.",
        )
    sources = any(name.startswith("mql5/") and name.endswith(".mq5") for name in names)
    if sources and not any(name.startswith("mql5/") and name.endswith(".ex5") for name in names):
        yield _warning(
            "MQL5/*.ex5",
            "Nothing under MQL5 has been compiled.",
            "Each clone compiles the whole library at its first start: about two minutes. Run the master once.",
        )


# --- what somebody left ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trace:
    pattern: str
    severity: Severity
    wrong: str
    hurts: str


_TRACES = (
    _Trace("config/accounts.dat", Severity.ERROR, "Saved accounts.", "Somebody's passwords, in every clone."),
    _Trace("config/accounts.ini", Severity.ERROR, "Saved accounts.", "Somebody's passwords, in every clone."),
    _Trace("config/bitten-start.ini", Severity.ERROR, "A start-up file.", "It holds a login and its password."),
    _Trace("bases/*/trades/*", Severity.ERROR, "Trades of an account.", "A customer would find a stranger's trades."),
    _Trace("bases/*/mail/*", Severity.ERROR, "Mail of an account.", "A customer would find a stranger's mail."),
    _Trace("bases/mail/*", Severity.ERROR, "Mail of an account.", "A customer would find a stranger's mail."),
    _Trace("mql5/files/bitten/*", Severity.WARNING, "Bridge files.", "An old heartbeat looks like a running EA."),
    _Trace("logs/*", Severity.WARNING, "Journals.", "They name accounts, and the agent reads journals as facts."),
    _Trace("mql5/logs/*", Severity.WARNING, "Journals of EAs.", "They name accounts."),
    _Trace("tester/logs/*", Severity.WARNING, "Journals of the tester.", "They name accounts."),
    _Trace("temp/ebwebview", Severity.WARNING, "A browser's cache.", "Hundreds of files, cookies among them."),
)


def _traces(rows: list[tree.Entry]) -> Iterator[Finding]:
    """One finding for each topmost thing that a pattern names, not one for each file in it."""
    for trace in _TRACES:
        depth = trace.pattern.count("/")
        for row in rows:
            if row.path.count("/") == depth and fnmatch.fnmatchcase(row.path.casefold(), trace.pattern):
                yield Finding(
                    item=row.path,
                    severity=trace.severity,
                    wrong=trace.wrong,
                    hurts=trace.hurts,
                    path=row.path,
                    cure=Cure.MOVE_ASIDE,
                )


# --- what cannot be cloned, or not to Windows ------------------------------------------------------------------------

_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)


def _unclonable(rows: list[tree.Entry]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for row in rows:
        name = row.path.rpartition("/")[2]
        if _FORBIDDEN.search(name) or _DEVICE.match(name) or name.endswith((".", " ")):
            yield _error(ascii(row.path), "Windows cannot hold this name.", "A clone of it would lack the file.")
        twin = seen.setdefault(row.path.casefold(), row.path)
        if twin != row.path:
            yield _error(row.path, f"It differs from {twin} in case alone.", "On Windows these are one file.")
        if len(LONGEST_FOLDER) + len(row.path) > LONGEST_PATH:
            yield _error(row.path, "The path is too long for Windows.", f"Over {LONGEST_PATH} characters in a clone.")
        if tree.is_link(row.seen):
            yield _error(
                row.path,
                "A link or junction.",
                "It leaves the clone or follows the master: what one customer writes there, another reads.",
                path=row.path,
                cure=Cure.MOVE_ASIDE,
            )
        elif not (stat.S_ISREG(row.seen.st_mode) or stat.S_ISDIR(row.seen.st_mode)):
            yield _error(row.path, "Neither file nor folder.", "No clone gets it.", path=row.path, cure=Cure.MOVE_ASIDE)


# --- option files ----------------------------------------------------------------------------------------------------


def _option_files(master: Path, names: dict[str, tree.Entry]) -> Iterator[Finding]:
    for name, rules in RULES.items():
        row = names.get(name.casefold())
        path = row.path if row else _in_its_case(name, names)
        if row is None:
            yield _warning(
                path,
                "There is no such file.",
                "The terminal writes one with its own defaults, which are not ours.",
                path=path,
                cure=Cure.OPTIONS,
            )
            continue
        found = options.read(master / path)
        if not found.well_encoded:
            wrong = "Not UTF-16LE with a byte-order mark."
            yield _warning(path, wrong, "The terminal may not read it.", path=path, cure=Cure.OPTIONS)
        for rule in rules:
            if found.breaks(rule):
                yield _broken(path, rule)
    yield from _passwords(master, names)


def _in_its_case(path: str, names: dict[str, tree.Entry]) -> str:
    """On a disk that knows case, a new file goes into the folder that is there, not beside it."""
    folder, _, name = path.rpartition("/")
    row = names.get(folder.casefold())
    return f"{row.path}/{name}" if row else path


def _broken(path: str, rule: Rule) -> Finding:
    wrong = "It must not be set." if rule.wanted is None else f"It must be {rule.wanted}."
    item = f"{path} [{rule.section}] {rule.key}"
    return _error(item, wrong, rule.hurts, path=path, cure=Cure.OPTIONS)


RULES = {"Config/common.ini": options.COMMON, "Config/assistant.ini": options.ASSISTANT}
"""What each option file must say; these two are made when they are not there."""

_LOOKED_AT = {"config/common.ini", "config/assistant.ini", "config/bitten-start.ini", "config/accounts.ini"}


def _passwords(master: Path, names: dict[str, tree.Entry]) -> Iterator[Finding]:
    """Start-up files that somebody once used lie in the root or in Config and hold a password."""
    for name, row in names.items():
        plain = name.endswith(".ini") and name.rpartition("/")[0] in ("", "config") and stat.S_ISREG(row.seen.st_mode)
        if not plain or name in _LOOKED_AT:
            continue
        if any(options.read(master / row.path).values("Common", "Password")):
            yield _error(
                row.path,
                "A start-up file with a password.",
                "Somebody's password, in every clone.",
                path=row.path,
                cure=Cure.MOVE_ASIDE,
            )
