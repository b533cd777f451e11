"""The one template that every clone on this host is made from: what it is now, and what brokers it knows.

:func:`check` says item by item what is wrong with it, :func:`prepare` mends what can be mended safely.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from farm.agent import errors, manifest
from farm.agent.findings import Finding, Severity, check_folder
from farm.agent.manifest import Manifest
from farm.agent.mending import Action, mend

__all__ = ["Action", "Finding", "Master", "Severity", "check", "folder", "load", "prepare", "servers"]

NAME = "BITTEN_MASTER"
TERMINAL = "terminal64.exe"
LONGEST_SERVER = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Master:
    path: Path
    manifest: Manifest = field(repr=False)

    @property
    def digest(self) -> str:
        return self.manifest.digest


def folder(root: Path) -> Path:
    return root / "Masters" / NAME


_known: dict[Path, tuple[float, Master]] = {}
_loading = Lock()


def load(root: Path, *, max_age_seconds: float = 1.0) -> Master:
    """Return the master as it stands, or as it stood at most ``max_age_seconds`` ago.

    Reads the whole master the first time (about half a second), later walks over its folders (about 10 ms).
    Raises :class:`errors.MasterMissing` when there is none, :class:`errors.MasterUnfit` when nothing in it could start.
    """
    path = folder(root)
    with _loading:
        at, known = _known.get(path, (float("-inf"), None))
        if known and time.monotonic() - at < max_age_seconds:
            return known
        _known.pop(path, None)
        fresh = _loaded(path, known)
        _known[path] = (time.monotonic(), fresh)
        return fresh


def _loaded(path: Path, known: Master | None) -> Master:
    before = known.manifest if known else manifest.saved(path)
    try:
        now = manifest.current(path, before)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_dir():
            raise errors.MasterUnfit("the master changes while it is read") from error
        raise errors.MasterMissing from error
    except OSError as error:
        raise errors.from_os_error(error, "reading the master") from error
    if not now.files and not now.folders:
        raise errors.MasterMissing("Masters/BITTEN_MASTER is empty")
    if not any(file.path.casefold() == TERMINAL for file in now.files):
        raise errors.MasterUnfit(f"the master holds no {TERMINAL}")
    if now is before:
        return known or Master(path, now)
    manifest.save(path, now)
    if before and before.digest != now.digest:
        _log.warning("the master has changed", extra={"event": "master", "old": before.digest, "new": now.digest})
    return Master(path, now)


def servers(root: Path) -> list[str]:
    """Return the broker servers that an operator has proven on the master; the portal offers just these.

    They stand in ``Masters/BITTEN_MASTER.servers.json``, a JSON list of names. No file, or one that is not such a list,
    means none: :func:`check` tells.
    """
    try:
        listed = json.loads(manifest.beside(folder(root), "servers").read_bytes())
    except (OSError, ValueError):
        return []
    rows = listed.get("servers") if isinstance(listed, dict) else listed
    names = rows if isinstance(rows, list) else []
    return sorted({name for name in names if _is_server(name)})


def _is_server(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= LONGEST_SERVER and name.isprintable() and name == name.strip()


def check(root: Path) -> list[Finding]:
    """Return what is wrong with the master, errors first; an empty list is a master to make clones of."""
    found = check_folder(folder(root))
    if not servers(root):
        found.append(
            Finding(
                item="servers.json",
                severity=Severity.WARNING,
                wrong="No broker server is listed as proven on this master.",
                hurts="The portal offers customers only the servers listed in Masters/BITTEN_MASTER.servers.json.",
            )
        )
    return sorted(found, key=lambda finding: finding.severity is not Severity.ERROR)


def prepare(root: Path, *, dry_run: bool) -> list[Action]:
    """Mend what :func:`check` calls mendable, or with ``dry_run`` only tell what would be done.

    Nothing is deleted: what has no place in a master is moved to ``Masters/BITTEN_MASTER.removed-<time>/``.
    """
    path = folder(root)
    if not path.is_dir():
        raise errors.MasterMissing
    with errors.typed("preparing the master"):
        return mend(path, check_folder(path), dry_run=dry_run)
