"""The names that must never leave the farm's folder, those of queues and tasks, and what is wrong with a message."""

from __future__ import annotations

import re

ORDER_LIFETIME_SECONDS = 24 * 3600
"""An order older than this is refused by the host: its row has long moved on."""

OBEY_TASK = "host.obey"
RECORD_TASK = "farm.record"
SURVEY_TASK = "farm.record_survey"
REPORTS_QUEUE = "reports"
SURVEYS_QUEUE = "surveys"
LEASES_QUEUE = "leases"
"""Hosts ask here for their lease; read by `manage.py keep_leases` alone."""


# ProtocolError
#   Malformed      not a message of ours
#   Forged         the signature is not by a key we pinned
#   Unsealable     the sealed text is not for this host, instance, epoch and generation
#   BadName        a name that must never become part of a path


class ProtocolError(Exception):
    """A message or a name that is refused before anything is done with it."""


class Malformed(ProtocolError):
    """The message does not have the form of one of ours."""


class Forged(ProtocolError):
    """The message is not signed by a key that we pinned."""


class Unsealable(ProtocolError):
    """The sealed credentials are not for this host and this order."""


class BadName(ProtocolError):
    """The name could leave the farm's folder, or Windows cannot hold it."""


_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?\Z")
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", *(f"{d}{n}" for d in ("com", "lpt") for n in "0123456789¹²³")]
)


def checked_name(name: str) -> str:
    """Return ``name`` if it is safe as one path component on Windows and Linux alike, else raise :class:`BadName`.

    Letters, digits, ``_ . -``, at most 64; no leading or trailing dot, no device name of Windows (``con``, ``com1``,
    with or without an extension: learn.microsoft.com, "Naming Files, Paths, and Namespaces").
    """
    if not isinstance(name, str) or not _NAME.match(name) or ".." in name:
        raise BadName(f"{name!r} is not a plain name of letters, digits, '_', '.' and '-'")
    if name.split(".")[0].lower() in _RESERVED:
        raise BadName(f"{name!r} is a device name of Windows")
    return name


def host_queue(host: str) -> str:
    """The one queue that the worker on ``host`` reads."""
    return f"host.{checked_name(host)}"


def lease_queue(host: str) -> str:
    """Where ``host`` is granted its leases. No host's own queue can have this name."""
    return f"lease.{checked_name(host)}"


def unreadable_state(instance: int) -> str:
    """How a survey names, among its strangers, an instance of which its host knows no more than that it was there."""
    return f"State/{instance}.json cannot be read"
