"""Mending a master: options set, and what has no place in it moved aside. Nothing is deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from farm.agent import findings, options
from farm.agent.findings import Cure, Finding


@dataclass(frozen=True, kw_only=True)
class Action:
    path: str
    """Relative to the master."""
    what: str
    done: bool


def mend(master: Path, found: Iterable[Finding], *, dry_run: bool) -> list[Action]:
    """Do what cures ``found``, in an order in which it can be begun again after a crash; return what was done."""
    cures = {(finding.cure, finding.path): None for finding in found if finding.mendable}
    aside = _aside(master)
    actions = []
    for cure, path in cures:
        if cure is Cure.MOVE_ASIDE:
            what = f"move to {aside.name}"
            if not dry_run:
                _move(master, path, aside)
        else:
            what = "set options"
            if not dry_run:
                options.mend(master / path, _rules(path))
        actions.append(Action(path=path, what=what, done=not dry_run))
    return actions


def _aside(master: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return master.with_name(f"{master.name}.removed-{stamp}-{uuid4().hex[:4]}")


def _move(master: Path, path: str, aside: Path) -> None:
    """A folder that went before takes what is in it along; what is gone already is mended."""
    if os.path.lexists(master / path):
        target = aside / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(master / path, target)


def _rules(path: str) -> Iterable[options.Rule]:
    return next(rules for name, rules in findings.RULES.items() if name.casefold() == path.casefold())
