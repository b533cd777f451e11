"""The agent's settings, read once from the environment. What is missing or wrong is named in one plain sentence."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from nacl.signing import VerifyKey

from farm.agent import protocol
from farm.agent.protocol import Policy

VERSION = "0.1.0"
"""Of the agent, as every survey says it."""

WINDOWS_ROOT = r"C:\MT5_Farm"
WINDOWS_COMMAND = r"{folder}\terminal64.exe /portable /config:{ini}"
LINK_MODES = ("off", "auto")


MOST_FENCED_SURVEY_SECONDS = 30.0
"""A lease is asked for with each survey, and lasts 120 s unless the portal is set otherwise."""


class BadSettings(Exception):
    """The environment does not say what the agent must know."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the farm stands on this host, who the host is, and whom it obeys."""

    root: Path
    host: str
    broker_url: str = field(default="", repr=False)
    """Holds the broker's password, hence in no repr."""
    key_file: Path | None = None
    portal_keys: tuple[VerifyKey, ...] = ()
    terminal_command: str = ""
    policy: Policy = Policy.FENCED
    survey_seconds: float = 5.0
    pool: int = 3
    link: str = "off"
    terminal_user: str = ""
    """Whom terminals run as; "" for the agent's own user."""
    ready_seconds: float = 60.0
    stop_grace_seconds: float = 30.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read every ``FARM_`` variable that is there; raise :class:`BadSettings` on the first that cannot be used.

        What only some commands need (broker, keys, terminal command) may be absent here: :meth:`need` asks for it.
        """
        policy = _policy(environ.get("FARM_POLICY") or Policy.FENCED)
        return cls(
            root=_root(environ),
            host=_host(environ),
            broker_url=_broker(environ),
            key_file=Path(environ["FARM_KEY_FILE"]) if environ.get("FARM_KEY_FILE") else None,
            portal_keys=_portal_keys(environ.get("FARM_PORTAL_KEYS", "")),
            terminal_command=_command(environ),
            policy=policy,
            survey_seconds=_survey_seconds(environ, policy),
            pool=int(_number(environ, "FARM_POOL", default=3, lowest=0)),
            link=_link(environ.get("FARM_LINK", "off")),
            terminal_user=_terminal_user(environ.get("FARM_TERMINAL_USER", "")),
            ready_seconds=_number(environ, "FARM_READY_SECONDS", default=60.0, lowest=1.0),
            stop_grace_seconds=_number(environ, "FARM_STOP_SECONDS", default=30.0, lowest=0.1),
        )

    def need(self, *names: str) -> None:
        """Raise :class:`BadSettings` for the first of ``names`` (fields of this class) that is not set."""
        for name in names:
            if not getattr(self, name):
                raise BadSettings(f"FARM_{name.upper()} is not set.")

    @property
    def users(self) -> Path:
        return self.root / "Users"

    def clone(self, folder: str) -> Path:
        """Return where the clone ``folder`` stands, or would; :class:`protocol.BadName` for a name that leaves it."""
        return self.users / protocol.checked_name(folder)

    @property
    def state_folder(self) -> Path:
        return self.root / "State"


def _root(environ: Mapping[str, str]) -> Path:
    text = environ.get("FARM_ROOT") or (WINDOWS_ROOT if sys.platform == "win32" else "")
    if not text:
        raise BadSettings("FARM_ROOT is not set: it names the farm's folder on this host.")
    root = Path(text)
    if not root.is_absolute():
        raise BadSettings(f"FARM_ROOT is {text!r}, which is not an absolute path.")
    return Path(os.path.realpath(root))


def _host(environ: Mapping[str, str]) -> str:
    name = environ.get("FARM_HOST", "")
    if not name:
        return ""
    try:
        return protocol.checked_name(name)
    except protocol.BadName as error:
        raise BadSettings(f"FARM_HOST cannot be used: {error}.") from error


def _broker(environ: Mapping[str, str]) -> str:
    url = environ.get("FARM_BROKER_URL", "")
    if url and not urlsplit(url).scheme:
        raise BadSettings("FARM_BROKER_URL is not a URL such as rediss://host:6379/0.")
    return url


def _portal_keys(text: str) -> tuple[VerifyKey, ...]:
    try:
        return tuple(VerifyKey(protocol.unb64(word.strip())) for word in text.split(",") if word.strip())
    except (protocol.Malformed, ValueError, TypeError) as error:
        raise BadSettings("FARM_PORTAL_KEYS does not hold base64 Ed25519 keys, parted by commas.") from error


def _command(environ: Mapping[str, str]) -> str:
    text = environ.get("FARM_TERMINAL_COMMAND") or (WINDOWS_COMMAND if sys.platform == "win32" else "")
    try:
        words(text, folder="/folder", ini="/ini")
    except (KeyError, IndexError, ValueError) as error:
        raise BadSettings(
            "FARM_TERMINAL_COMMAND cannot be used: only {folder}, {ini} and {python} may stand in braces."
        ) from error
    return text


def words(template: str, *, folder: str, ini: str) -> list[str]:
    """Split the terminal's command template and fill every word: a path with a blank stays one argument."""
    if sys.platform == "win32":
        split = [word.strip('"') for word in shlex.split(template, posix=False)]
    else:
        split = shlex.split(template)
    return [word.format(folder=folder, ini=ini, python=sys.executable) for word in split]


def _number(environ: Mapping[str, str], name: str, *, default: float, lowest: float) -> float:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        number = float(text)
    except ValueError as error:
        raise BadSettings(f"{name} is {text!r}, which is not a number.") from error
    if not lowest <= number < float("inf"):
        raise BadSettings(f"{name} is {text}, but must be at least {lowest:g}.")
    return number


def _survey_seconds(environ: Mapping[str, str], policy: Policy) -> float:
    seconds = _number(environ, "FARM_SURVEY_SECONDS", default=5.0, lowest=0.2)
    if policy is Policy.FENCED and seconds > MOST_FENCED_SURVEY_SECONDS:
        raise BadSettings(
            f"FARM_SURVEY_SECONDS is {seconds:g}, but a fenced host asks for its lease with each survey: at most "
            f"{MOST_FENCED_SURVEY_SECONDS:g}."
        )
    return seconds


def _terminal_user(name: str) -> str:
    if name and sys.platform == "win32":
        raise BadSettings("FARM_TERMINAL_USER cannot be used on Windows: there, run the agent as the terminals' user.")
    return name


def _policy(text: str) -> Policy:
    try:
        return Policy(text)
    except ValueError as error:
        raise BadSettings(f"FARM_POLICY is {text!r}, but must be one of: {', '.join(Policy)}.") from error


def _link(text: str) -> str:
    if text not in LINK_MODES:
        raise BadSettings(f"FARM_LINK is {text!r}, but must be one of: {', '.join(LINK_MODES)}.")
    return text
