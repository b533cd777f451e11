"""What each instance is, seen now: its process, its terminal's journal since the start, its EA's last heartbeat.

The watch only looks. It keeps one reader per launch, so that a journal is read once and not at every look.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.agent import bridge, processes, tree
from farm.agent.fence import Ending
from farm.agent.journal import Expected, Journal, Position, Standing, checkpoint, decided_without_network, fold
from farm.agent.processes import Proc, Scan
from farm.agent.protocol import Connection, Observation, Order, Process
from farm.agent.settings import Settings
from farm.agent.state import Launch, Memory, State

POLL_BYTES = 4 << 20
"""Of a journal in one look: a terminal that floods it must not hold up the others."""
UPDATE_SECONDS = 120.0
"""So long an update may take, from its first line until its terminal is back."""
RELAUNCH_SECONDS = 20.0
"""So long a process that ended with 0, or nobody knows how, may be on its way back under another pid."""

NOT_ENDED = Ending()


class Follower:
    """One launch of one terminal, followed through its journal."""

    def __init__(self, clone: Path, launch: Launch, order: Order) -> None:
        self.launch = launch
        self.journal = Journal(
            clone / "logs", Expected(login=order.login, server=order.server), position=_position(launch.journal)
        )
        self.standing = Standing.begin(login=order.login)
        self.updating_since: float | None = None
        self.gone_since: float | None = None
        """When its process was first missed."""

    def poll(self, now: float) -> None:
        for fact in self.journal.poll(most_bytes=POLL_BYTES):
            self.standing = fold(self.standing, fact)
        if not self.standing.updating:
            self.updating_since = None
        elif self.updating_since is None or now < self.updating_since:
            self.updating_since = now

    def note(self, process: Process, now: float) -> None:
        if process is not Process.STOPPED:
            self.gone_since = None
        elif self.gone_since is None or now < self.gone_since:  # the clock was set back
            self.gone_since = now

    def may_come_back(self, ending: Ending, now: float) -> bool:
        """Whether its missing process is an update's relaunch, for which one has to wait, and not a death."""
        if self.gone_since is None:
            return True
        if ending.taken_down:
            return False
        if self.updating_since is not None:
            return now - max(self.gone_since, self.updating_since) < UPDATE_SECONDS
        return ending.code in (0, None) and not self.standing_stopped and now - self.gone_since < RELAUNCH_SECONDS

    @property
    def standing_stopped(self) -> bool:
        """Whether the journal says that the terminal closed by itself, as it does when somebody closes its window."""
        return self.standing.ini_read and not self.standing.started


def _position(saved: dict[str, Any] | None) -> Position:
    """Where the journal stood before the launch; its beginning if nobody noted that."""
    try:
        return Position.from_dict(saved) if saved else Position()
    except ValueError:
        return Position()


@dataclass(frozen=True)
class Look:
    """One instance at one moment, as its host needs it: more than the portal is told."""

    observation: Observation
    standing: Standing | None
    may_come_back: bool = False
    ending: Ending = NOT_ENDED
    """Of its process, if that is gone."""

    @property
    def signature(self) -> tuple[object, ...]:
        """What is worth telling the portal at once when it changes."""
        seen = self.observation
        positions = seen.heartbeat.get("positions") if seen.heartbeat else None
        words = (seen.present, seen.process, seen.connection, seen.refusal, seen.reason)
        return (*words, seen.synchronized, seen.trading, positions)


class Watch:
    def __init__(
        self,
        settings: Settings,
        ending: Callable[[str, Launch], Ending],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._ending = ending
        self._now = now
        self._memory = Memory(settings.state_folder)
        self._followers: dict[int, Follower] = {}
        self._lock = threading.RLock()

    def checkpoint(self, clone: Path) -> dict[str, Any]:
        """Return where the journal of ``clone`` ends, to be kept with a launch that is about to be."""
        return checkpoint(clone / "logs").as_dict()

    def forget(self, instance: int) -> None:
        with self._lock:
            self._followers.pop(instance, None)

    def observe(self, state: State, *, scan: Scan | None = None) -> Observation:
        return self.look(state, scan=scan).observation

    def look(self, state: State, *, scan: Scan | None = None) -> Look:
        """Look at one instance; ``scan``, if there is one of this moment, spares a look at all processes."""
        now = self._now()
        clone = self._settings.clone(state.folder)
        replaced = bool(state.built) and tree.links(clone)
        present = bool(state.built) and clone.is_dir() and not replaced
        missing = bool(state.built) and not os.path.lexists(clone)  # taken away from under its terminal, perhaps
        if replaced:  # its terminal may run wherever its folder was taken to
            process, proc = Process.UNKNOWN, None
        else:
            process, proc = self._process(state, scan) if present or missing else self.unaccounted(state, scan=scan)
        known = state.start_order() or state.inject_order()
        seen = Observation(
            instance=state.instance,
            folder=state.folder,
            present=present,
            process=process,
            pid=proc.pid if proc else None,
            started_at=proc.created if proc else None,
            digest=state.digest,
            kind=known.kind if known else "",
            server=known.server if known else "",
            login=known.login if known else None,
            epoch=state.epoch,
            generation=state.generation,
            crashes=len(state.crashes),
            reason=state.reason,
        )
        order = state.start_order()
        if not present or state.launch is None or order is None:
            return Look(seen, None)
        return self._followed(seen, state, state.launch, order, clone, now)

    def unaccounted(self, state: State, *, scan: Scan | None = None) -> tuple[Process, Proc | None]:
        """Return what runs in the folder of ``state``, which is not its own, and is nobody else's.

        It may be this very instance, whose state was lost: it must not be called gone.
        """
        process, proc = self._process(state, scan)
        if process is Process.STOPPED or self._is_anothers(state):
            return Process.STOPPED, None
        return process, proc

    def _is_anothers(self, state: State) -> bool:
        every = self._memory.every()
        return any(one.built and one.folder == state.folder and one.instance != state.instance for one in every)

    def _process(self, state: State, scan: Scan | None) -> tuple[Process, Proc | None]:
        hint = Proc(state.launch.pid, state.launch.created) if state.launch and state.launch.pid else None
        if scan is not None:
            process, found = scan.process(state.folder), scan.of(state.folder)
            if not found and hint and processes.is_alive(hint):
                process, found = Process.RUNNING, [hint]
        else:
            process, found = processes.find(self._settings.users, state.folder, hint)
        return process, (hint if hint in found else found[-1]) if found else None

    def _followed(self, seen: Observation, state: State, launch: Launch, order: Order, clone: Path, now: float) -> Look:
        gone = seen.process is Process.STOPPED
        ending = self._ending(state.folder, launch) if gone else NOT_ENDED
        with self._lock:
            follower = self._follower(state.instance, clone, launch, order)
            follower.poll(now)
            follower.note(seen.process, now)
            standing = self._decided(follower.standing, launch, now)
            may_come_back = follower.may_come_back(ending, now)
        heartbeat = bridge.read_heartbeat(clone, login=order.login, server=order.server, now=now)
        running = not gone
        kept = running or standing.connection in (Connection.REFUSED, Connection.NO_ACCOUNT)
        seen = replace(
            seen,
            connection=standing.connection if kept else Connection.UNKNOWN,
            refusal=standing.refusal,
            refusal_text=standing.refusal_text,
            synchronized=standing.synchronized and running,
            trading=standing.trading if running else None,
            heartbeat=heartbeat,
            activity_at=bridge.activity_at(heartbeat, bridge.last_command_at(clone, now=now)),
        )
        return Look(seen, standing, may_come_back, ending)

    def _follower(self, instance: int, clone: Path, launch: Launch, order: Order) -> Follower:
        known = self._followers.get(instance)
        if known is None or (known.launch.started_at, known.launch.account) != (launch.started_at, launch.account):
            known = self._followers[instance] = Follower(clone, launch, order)
        known.launch = launch
        return known

    def _decided(self, standing: Standing, launch: Launch, now: float) -> Standing:
        ready = self._settings.ready_seconds
        return decided_without_network(
            standing, started_at=launch.started_at, now=now, seconds=ready / 3, answer_seconds=ready * 0.75
        )
