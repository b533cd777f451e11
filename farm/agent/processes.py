"""Which processes belong to a clone, how its terminal is started, and how it is stopped.

A process belongs to a clone by what it *is*, never by its name or a remembered pid alone: on Windows its executable
lies in the clone's folder; elsewhere (Wine, the stand-in) its first argument does, or its working folder is the clone
and it was given ``/portable``, so that an operator's shell that stands in the folder does not count. A pid is a hint
that is believed only together with its create time. The terminal's own updater, which runs from another folder and
starts the terminal again, belongs to the clone that it updates.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from farm.agent import faults, ownership, protocol, terminal_user, tether, windows
from farm.agent.errors import TerminalCommand, WillNotStop
from farm.agent.ownership import GONE, TROUBLE, WINDOWS
from farm.agent.settings import words

log = logging.getLogger(__name__)

KILL_SECONDS = 10.0
SAME_MOMENT_SECONDS = 0.02
"""Two readings of one create time differ by less, two processes with one pid by more."""


@dataclass(frozen=True)
class Proc:
    """One process, certain not to be a later one with the same pid."""

    pid: int
    created: float
    updater: bool = field(default=False, compare=False)
    """It rewrites the executables: killed half-way, it would leave a terminal that cannot start."""


@dataclass(frozen=True)
class Scan:
    """All processes of all clones at one moment."""

    by_folder: Mapping[str, list[Proc]] = field(default_factory=dict)
    doubtful: bool = False
    """A terminal was seen that this user may not look at, and it could be anybody's."""

    def of(self, folder: str) -> list[Proc]:
        return list(self.by_folder.get(key(folder), ()))

    def process(self, folder: str) -> protocol.Process:
        """``unknown`` rather than ``stopped`` where the host cannot tell."""
        if self.of(folder):
            return protocol.Process.RUNNING
        return protocol.Process.UNKNOWN if self.doubtful else protocol.Process.STOPPED


def key(folder: str) -> str:
    """Return the name that ``folder`` has in a scan: Windows ignores case."""
    return folder.lower() if WINDOWS else folder


# --- looking ---------------------------------------------------------------------------------------------------------


def scan(users: Path) -> Scan:
    """Look once at every process of the host and sort those that belong to a clone under ``users`` by its folder."""
    found: dict[str, list[Proc]] = {}
    doubtful = False
    base = ownership.Base.of(users)
    for pid in psutil.pids():
        try:
            # Never from psutil.process_iter(): it keeps each for ever and does not notice that a pid was given to
            # another, nor that the clock was set, and by such a create time nothing could be signalled any more.
            process = psutil.Process(pid)
            folder = ownership.owner(process, base)
            if folder is not None:
                proc = Proc(pid, process.create_time(), ownership.is_updater(process.cmdline()))
                found.setdefault(key(folder), []).append(proc)
        except ownership.Hidden:
            doubtful = True
        except TROUBLE:
            continue
    for processes in found.values():
        processes.sort(key=lambda proc: (proc.created, proc.pid))
    return Scan(found, doubtful)


def is_alive(proc: Proc) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    try:
        process = psutil.Process(proc.pid)
        same = abs(process.create_time() - proc.created) < SAME_MOMENT_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except GONE:
        return False
    except TROUBLE:
        return psutil.pid_exists(proc.pid)


def find(users: Path, folder: str, hint: Proc | None = None) -> tuple[protocol.Process, list[Proc]]:
    """Say whether the clone ``folder`` has a process, and which; ``hint`` makes the common answer cheap."""
    if hint and hint.pid and is_alive(hint):
        return protocol.Process.RUNNING, [hint]
    seen = scan(users)
    return seen.process(folder), seen.of(folder)


# --- start -----------------------------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"^(FARM|DJANGO|CELERY|STRIPE|SENTRY)_|(^|_)(KEYS?|SECRETS?|TOKENS?|PASSWORDS?|PASSWD|DSN)($|_)"
)
_SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_ALWAYS_PASSED = re.compile(r"^PAPER_")

_children: dict[int, subprocess.Popen[bytes]] = {}
_exit_codes: dict[int, int] = {}
_MOST_EXIT_CODES = 1000
_children_lock = threading.Lock()


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of ``environ`` a terminal may know: nothing of the agent's own, and nothing that looks secret."""
    return {
        name: value
        for name, value in environ.items()
        if _ALWAYS_PASSED.match(name) or not (_SECRET_NAME.search(name.upper()) or _SECRET_VALUE.search(value))
    }


def launch(
    template: str,
    folder: Path,
    ini: Path,
    *,
    user: int | None = None,
    group: int | None = None,
    environ: Mapping[str, str] = os.environ,
    tied: bool = False,
) -> Proc:
    """Start the terminal of the clone ``folder`` and return at once; it outlives this process, unless ``tied`` to it.

    ``user`` and ``group``: whom it runs as, in no other groups; None: as this process does. ``tied``: only from the
    main thread (farm.agent.tether).

    Raises :class:`TerminalCommand` if the system could not run the command.
    """
    argv = words(template, folder=str(folder), ini=str(ini))
    if not argv:
        raise TerminalCommand("FARM_TERMINAL_COMMAND is not set")
    try:
        child = _spawned(argv, folder, environment(environ), user, group, tether.tether() if tied else None)
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise TerminalCommand(f"the terminal's command could not be run: {why}") from error
    with _children_lock:
        _exit_codes.pop(child.pid, None)
        _children[child.pid] = child
    faults.point("terminal launched")
    return Proc(child.pid, _created(child.pid))


def _spawned(
    argv: list[str],
    folder: Path,
    environ: dict[str, str],
    user: int | None,
    group: int | None,
    before: Callable[[], None] | None,
) -> subprocess.Popen[bytes]:
    other = user if terminal_user.is_another(user) else None
    return subprocess.Popen(
        argv,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environ if other is None else terminal_user.environment(other, environ),
        close_fds=True,
        start_new_session=not WINDOWS,
        user=other,
        group=None if other is None else group,
        extra_groups=None if other is None else [],
        preexec_fn=before,
        creationflags=windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP if WINDOWS else 0,
    )


def _created(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except TROUBLE:
        return time.time()  # gone already: nothing will ever match


def reap() -> None:
    """Collect the children that have ended, so that none stays behind as a zombie. Cheap; call it often."""
    with _children_lock:
        for pid, child in list(_children.items()):
            code = child.poll()
            if code is not None:
                del _children[pid]
                _exit_codes[pid] = code
        while len(_exit_codes) > _MOST_EXIT_CODES:
            del _exit_codes[next(iter(_exit_codes))]


def exit_code(pid: int) -> int | None:
    """Return what the child ``pid`` ended with; None if it runs, or was not started by this process."""
    reap()
    with _children_lock:
        return _exit_codes.get(pid)


# --- stop ------------------------------------------------------------------------------------------------------------


def stop(
    users: Path,
    folder: str,
    *,
    grace_seconds: float = 30.0,
    kill_seconds: float = KILL_SECONDS,
) -> bool:
    """End every process of the clone ``folder``, and no other: politely first, by force after ``grace_seconds``.

    Returns whether there was anything to stop. Raises :class:`WillNotStop` if something is left, or if the host cannot
    tell whether something is.
    """
    return bool(stop_those(users, lambda seen: [folder], grace_seconds=grace_seconds, kill_seconds=kill_seconds))


def stop_those(
    users: Path,
    choose: Callable[[Scan], Iterable[str]],
    *,
    grace_seconds: float,
    kill_seconds: float = KILL_SECONDS,
) -> list[str]:
    """End every process of the clones that ``choose`` picks out of a scan, all at once, and return those clones.

    However many they are it takes no longer than one, and a few looks at all processes. Raises as :func:`stop` does.
    """
    seen = scan(users)
    chosen = [folder for folder in choose(seen) if seen.of(folder)]
    found = [proc for folder in chosen for proc in seen.of(folder)]
    if found:
        _politely(found)
        _wait_gone(found, time.monotonic() + grace_seconds)
    end = time.monotonic() + kill_seconds
    seen = scan(users)  # anew each time: what was stopped may have forked meanwhile
    while left := {folder: procs for folder in choose(seen) if (procs := seen.of(folder))}:
        if time.monotonic() >= end:
            raise WillNotStop(f"processes of {', '.join(sorted(left))} are still there after a kill")
        killed = [proc for procs in left.values() for proc in procs]
        for proc in killed:
            _signal(proc, psutil.Process.kill)
        _wait_gone(killed, min(end, time.monotonic() + 1.0))
        seen = scan(users)
    if seen.doubtful:
        raise WillNotStop(f"whether {', '.join(chosen) or 'any'} still has a process cannot be seen by this user")
    return chosen


def _politely(found: list[Proc]) -> None:
    for proc in found:
        if proc.updater:
            continue
        if not WINDOWS:
            _signal(proc, psutil.Process.terminate)
        elif not (is_alive(proc) and windows.close(proc.pid)):
            # No window to close: there is no polite way on Windows, and waiting would not make one.
            _signal(proc, psutil.Process.terminate)


def _signal(proc: Proc, send: Callable[[psutil.Process], None]) -> None:
    try:
        process = psutil.Process(proc.pid)
        if abs(process.create_time() - proc.created) < SAME_MOMENT_SECONDS:
            send(process)  # psutil checks once more that the pid was not given to another
    except GONE:
        return
    except TROUBLE as error:
        log.warning("process not signalled", extra={"event": "signal", "pid": proc.pid, "error": type(error).__name__})


def _wait_gone(procs: list[Proc], end: float) -> None:
    pause = 0.005
    while any(is_alive(proc) for proc in procs):
        reap()
        if time.monotonic() >= end:
            return
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    reap()
