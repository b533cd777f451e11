"""What this host's disk and users allow, tried on the real folder when the agent starts: names of file systems lie."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from farm.agent import copying, errors, tree
from farm.agent import terminal_user as users
from farm.agent.copying import Modes, Way
from farm.agent.terminal_user import TerminalUser

_CONTENT = b"probe\n" * 2048

_TRY_TO_WRITE = ': < "$0" || exit 34; (: >> "$0") || chmod u+w "$0" || exit 33'
"""What cannot even be read was not refused to be written: it proves nothing."""
_REFUSED = 33


def probe(root: Path, *, link: bool, terminal_user: str | int | None = None, history: bool | None = None) -> Modes:
    """Try each way of making a clone in ``root`` and return those that work and are safe.

    ``link``: hard links may be used if, besides, the user that terminals run as (``terminal_user``; None: the agent's
    own) provably cannot write through one. ``history``: clones get the master's price history; None: where that costs
    nothing, that is with reflinks. Raises the typed error for a folder in which nothing can be made; on a full disk
    nothing is tried, for clones have still to be stopped and destroyed there.
    """
    user = users.found(terminal_user)
    place = root / "Pool" / tree.half_built_name()
    try:
        modes = _probed(place, link=link, user=user)
    except errors.DiskFull as error:
        modes = replace(_for(user), notes=(f"nothing but plain copies: {error.detail}",))
    return replace(
        modes,
        history=modes.reflink if history is None else history,
        barred=users.why_barred(user, root) if user else "",
    )


def _probed(place: Path, *, link: bool, user: TerminalUser | None) -> Modes:
    with errors.typed(f"trying what {place.parent.parent} allows"):
        place.parent.mkdir(exist_ok=True)
        place.mkdir()
        try:
            return _tried(place, link=link, user=user)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _for(user: TerminalUser | None) -> Modes:
    return Modes(terminal_user=user.uid, terminal_group=user.gid) if user else Modes()


def _tried(place: Path, *, link: bool, user: TerminalUser | None) -> Modes:
    (place / "old").write_bytes(_CONTENT)
    modes = replace(
        _for(user),
        reflink=_works(place, Modes(reflink=True), Way.REFLINK),
        copy_range=_works(place, Modes(copy_range=True), Way.COPY_RANGE),
    )
    why_not = _why_no_links(place, modes) if link else "hard links are switched off (FARM_LINK)"
    return replace(modes, link=not why_not, notes=(f"no hard links: {why_not}",) if why_not else ())


def _works(place: Path, modes: Modes, way: Way) -> bool:
    with open(place / "old", "rb") as old, open(place / way.value, "wb") as new:
        used = copying.fill(old.fileno(), new.fileno(), len(_CONTENT), modes)
    return used is way and (place / way.value).read_bytes() == _CONTENT


def _why_no_links(place: Path, modes: Modes) -> str:
    """Return why sharing files between clones is impossible or unsafe here; "" if it is neither."""
    old, new = place / "old", place / "link"
    try:
        os.link(old, new)
    except OSError as error:
        return f"the disk makes none ({error.strerror})"
    if not os.path.samestat(os.stat(old), os.stat(new)):
        return "what the disk calls a link is a copy"
    if sys.platform == "win32":
        return "" if modes.terminal_user is None else "terminals run as another user, whose rights cannot be tried"
    return _why_writable(new, modes)


def _why_writable(path: Path, modes: Modes) -> str:
    if not users.is_another(modes.terminal_user) or modes.terminal_user is None:
        return "terminals run as the agent's own user, who can write the master"
    given = path.with_name("given")
    given.touch()
    try:
        copying.hand_over(given, modes)
    except OSError:
        return "the agent may not give clones to the user that terminals run as"
    path.chmod(0o444)
    # Named from within its folder: that the way there is closed to this user would prove nothing of a clone.
    code = users.tried(modes.terminal_user, modes.terminal_group, _TRY_TO_WRITE, f"./{path.name}", cwd=path.parent)
    return "" if code == _REFUSED else "the user that terminals run as may write through one"
