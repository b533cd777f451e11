"""The user that terminals run as, where that is not the agent's own (FARM_TERMINAL_USER; not on Windows).

The agent then runs as root, or with the right to change user, and gives every clone to that user. What is proven here
is proven by that user itself trying, never by reading permissions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.agent import errors

if sys.platform != "win32":
    import pwd

CLOSED = ("Masters", "Pool", "State", "Trash")
"""What terminals have no business in: sealed orders, half-built clones, and those of others."""
_SECONDS = 10

REACHED, NO_WAY, WRITABLE = 0, 41, 42
_TRY_TO_ENTER = f'cd "$0" || exit {NO_WAY}; for one in "$0" "$1"; do test ! -w "$one" || exit {WRITABLE}; done'
"""For the shell, which every user may run; the agent's own interpreter may lie where others cannot read."""


@dataclass(frozen=True)
class TerminalUser:
    name: str
    uid: int
    gid: int
    home: str


def found(user: str | int | None) -> TerminalUser | None:
    """Return the user of that name or number; None for none. Raises :class:`errors.TerminalCommand` if it won't do."""
    if not user:
        return None
    try:
        one = _looked_up(user)
    except KeyError as error:
        raise errors.TerminalCommand(f"there is no user {user!r} for terminals to run as") from error
    if one and one.uid == 0:
        raise errors.TerminalCommand("terminals must not run as root (FARM_TERMINAL_USER)")
    return one


if sys.platform == "win32":

    def _looked_up(user: str | int) -> TerminalUser | None:
        return None

else:

    def _looked_up(user: str | int) -> TerminalUser | None:
        by_number = isinstance(user, int) or user.isdigit()
        entry = pwd.getpwuid(int(user)) if by_number else pwd.getpwnam(str(user))
        return TerminalUser(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def is_another(uid: int | None) -> bool:
    """Whether ``uid`` is a user of the terminals' own: clones have to be given to it, programs started as it."""
    return uid is not None and sys.platform != "win32" and uid != os.geteuid()


def close(root: Path) -> None:
    """Keep that user out of all of the farm's folder but the clones, whose names it cannot list."""
    with errors.typed("closing the farm's folders to the terminals' user"):
        for name, mode in (*((name, 0o700) for name in CLOSED), ("Users", 0o711)):
            (root / name).mkdir(exist_ok=True)
            (root / name).chmod(mode)


def why_barred(user: TerminalUser, root: Path) -> str:
    """Return why terminals cannot be run as ``user`` on this farm; "" if they can."""
    if not is_another(user.uid):
        return ""
    users = root / "Users"
    code = tried(user.uid, user.gid, _TRY_TO_ENTER, str(users), str(root), cwd=Path("/"))
    if code is None:
        return f"the agent may not start programs as {user.name}: it must be root (FARM_TERMINAL_USER)"
    if code == WRITABLE:
        return f"{user.name}, whom terminals run as, may write {root} itself"
    return "" if code == REACHED else f"{user.name}, whom terminals run as, may not enter {users} (execute permission)"


def tried(uid: int, gid: int | None, script: str, *words: str, cwd: Path) -> int | None:
    """Have that very user run a shell script; return its exit code, None if that could not be tried."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", script, *words],
            user=uid,
            group=gid,
            extra_groups=[],
            cwd=cwd,
            timeout=_SECONDS,
            capture_output=True,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.returncode


def check_owner(clone: Path, uid: int | None) -> None:
    """Raise :class:`errors.TerminalCommand` for a clone that was made for another user.

    Its files may be closed to this one; or, shared by hard links, be open to it alone.
    """
    if sys.platform != "win32" and not is_made_for(clone, uid):
        raise errors.TerminalCommand(f"{clone.name} was made for another user (FARM_TERMINAL_USER has changed)")


def is_made_for(clone: Path, uid: int | None) -> bool:
    if sys.platform == "win32":
        return True
    try:
        return os.lstat(clone).st_uid == (os.geteuid() if uid is None else uid)
    except OSError:
        return False


_PERSONAL = ("HOME", "USER", "LOGNAME", "SHELL", "MAIL", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SUDO_USER")


def environment(uid: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` as that user's own: the agent's home is not where its terminals keep their things."""
    kept = {name: value for name, value in environ.items() if name not in _PERSONAL}
    user = found(uid)
    return {**kept, "HOME": user.home, "USER": user.name, "LOGNAME": user.name} if user else kept
