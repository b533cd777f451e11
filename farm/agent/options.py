"""The terminal's own option files (``common.ini``, ``assistant.ini``): what a master's must say, and mending one.

They are UTF-16LE with a byte-order mark and CRLF. Only wrong lines are touched: the rest is the terminal's.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.agent import tree


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``[section] key`` must be ``wanted``; None: it must not be there, or be empty."""

    section: str
    key: str
    wanted: str | None
    hurts: str


_SOMEBODYS = "Every clone would start as this account, and the broker sees one account from many machines."
_ACCOUNT_CHANGE = (
    "At the first login the terminal switches algo trading off, because the account or profile has changed, "
    "and writes that back."
)
_MCP = "The terminal's own server on 127.0.0.1 can trade, and the clones of a host fight for its port."

COMMON = (
    Rule(section="Common", key="Login", wanted=None, hurts=_SOMEBODYS),
    Rule(section="Common", key="Server", wanted=None, hurts=_SOMEBODYS),
    Rule(section="Common", key="Password", wanted=None, hurts="A password in clear in every clone."),
    Rule(section="Common", key="Environment", wanted=None, hurts="It belongs to one machine and account."),
    Rule(section="Experts", key="Account", wanted="0", hurts=_ACCOUNT_CHANGE),
    Rule(section="Experts", key="Profile", wanted="0", hurts=_ACCOUNT_CHANGE),
    Rule(section="Experts", key="Enabled", wanted="1", hurts="No clone may trade by algorithm, whatever is injected."),
)
ASSISTANT = (
    Rule(section="MCP.MetaTrader", key="Enable", wanted="0", hurts=_MCP),
    Rule(section="MCP.MetaEditor", key="Enable", wanted="0", hurts=_MCP),
)


@dataclass(frozen=True)
class Options:
    """One option file as lines, with whether it was in the encoding that the terminal itself writes."""

    lines: tuple[str, ...]
    well_encoded: bool = True

    def values(self, section: str, key: str) -> list[str]:
        """Every value of this key: names are matched without regard to case, and a file may repeat one."""
        return [value for _, at, name, value in self._settings() if (at, name) == (section.casefold(), key.casefold())]

    def breaks(self, rule: Rule) -> bool:
        values = self.values(rule.section, rule.key)
        if rule.wanted is None:
            return any(values)
        return not values or any(value != rule.wanted for value in values)

    def mended(self, rules: Iterable[Rule]) -> Options:
        fixed = self
        for rule in rules:
            if fixed.breaks(rule):
                fixed = fixed._with(rule)
        return fixed

    def encoded(self) -> bytes:
        return codecs.BOM_UTF16_LE + "".join(f"{line}\r\n" for line in self.lines).encode("utf-16-le")

    def _settings(self) -> Iterator[tuple[int, str, str, str]]:
        section = ""
        for number, line in enumerate(self.lines):
            text = line.strip()
            if text.startswith("[") and text.endswith("]"):
                section = text[1:-1].strip().casefold()
            elif "=" in text and not text.startswith(";"):
                key, _, value = text.partition("=")
                yield number, section, key.strip().casefold(), value.strip()

    def _with(self, rule: Rule) -> Options:
        wrong = {
            number
            for number, section, key, _ in self._settings()
            if (section, key) == (rule.section.casefold(), rule.key.casefold())
        }
        kept = [line for number, line in enumerate(self.lines) if number not in wrong]
        if rule.wanted is None:
            return Options(tuple(kept))
        heading = f"[{rule.section}]".casefold()
        heads = [number for number, line in enumerate(kept) if line.strip().casefold() == heading]
        if not heads:
            kept.append(f"[{rule.section}]")
        at = heads[0] + 1 if heads else len(kept)
        return Options((*kept[:at], f"{rule.key}={rule.wanted}", *kept[at:]))


def read(path: Path) -> Options:
    """Read an option file in whatever encoding a person may have saved it; no file is an empty one."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Options(())
    well = raw.startswith(codecs.BOM_UTF16_LE)
    encoding = "utf-16" if well or raw.startswith(codecs.BOM_UTF16_BE) else "utf-8-sig"
    return Options(tuple(raw.decode(encoding, errors="replace").splitlines()), well)


def mend(path: Path, rules: Iterable[Rule]) -> None:
    """Rewrite the file in place so that it breaks none of ``rules``."""
    fixed = read(path).mended(rules)
    path.parent.mkdir(parents=True, exist_ok=True)
    tree.write(path, fixed.encoded())
