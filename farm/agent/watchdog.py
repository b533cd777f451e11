"""The watchdog: a process of its own, beside the agent, that live terminals cannot outlive, nor their lease.

Each second it ticks and looks at the lease. When that is over it stops every live terminal, whoever holds which lock,
and goes on looking until none is there. It needs no broker and no agent. It starts the live terminals on the agent's
behalf, so that they are its children and die with it.

Its main thread does nothing that can take long: it ticks, and it forks (farm.agent.tether says why it must be that
one). Stopping and answering are done in other threads.
"""

from __future__ import annotations

import logging
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from farm.agent import (
    clocks,
    errors,
    intercom,
    lease,
    lease_file,
    locks,
    processes,
    pulse,
    startup,
    terminal_user,
    windows,
)
from farm.agent.errors import AgentError
from farm.agent.intercom import Answer, Question
from farm.agent.lease import SCAN_SECONDS, TICK_SECONDS, Lease, Moment
from farm.agent.living import Living
from farm.agent.processes import Proc, Scan
from farm.agent.pulse import Pulse
from farm.agent.settings import BadSettings, Settings

log = logging.getLogger(__name__)

REST = 4.0
"""After a round of stopping, so many times its processor time is rested: an outage may last for hours."""
NAMED_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What stopping the live terminals may take; nobody here waits longer than this says."""

    grace: float
    kill: float
    notice: float = TICK_SECONDS

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Raise :class:`BadSettings` unless it fits in what the portal is told, and waits for."""
        limits = cls(grace=lease.polite_seconds(settings.stop_grace_seconds), kill=processes.KILL_SECONDS)
        told = stop_seconds(settings)
        if limits.longest > told:
            raise BadSettings(
                f"Stopping live terminals may take {limits.longest:g} s, but the portal is told {told:g} s."
            )
        return limits

    @property
    def longest(self) -> float:
        return self.notice + SCAN_SECONDS + self.grace + self.kill


def stop_seconds(settings: Settings) -> float:
    """What the portal is told: the longest from a lease's end until no live terminal runs here."""
    return lease.longest_stop(settings.stop_grace_seconds, processes.KILL_SECONDS)


@dataclass
class _Wish:
    """A terminal that the agent wants started, and where the main thread puts what became of that."""

    folder: str
    until: float
    """Since boot. Later it must not be started any more: the agent has said that it was not."""
    answer: queue.Queue[Answer] = field(default_factory=lambda: queue.Queue(1))


class Watchdog:
    def __init__(self, settings: Settings, *, moment: Callable[[], Moment] = clocks.moment) -> None:
        settings.need("terminal_command")
        self._settings = settings
        self._limits = Limits.of(settings)
        self._moment = moment
        self._user = terminal_user.found(settings.terminal_user)
        self._living = Living(settings.state_folder)
        self._lease: Lease | None = None
        self._wishes: queue.Queue[_Wish] = queue.Queue()
        self._round: threading.Thread | None = None
        self._rest_until = 0.0
        self._stopped: set[str] = set()
        """Clones whose terminals were told to stop and not started since: their end is no crash."""
        self._trouble = ""
        self._ending = False
        self.name = secrets.token_hex(8)

    def run(self) -> None:
        """Watch until SIGTERM or Ctrl-C, which end the live terminals too. It must be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        with errors.typed("tying the live terminals to this process"):
            windows.take_children_along()
        with locks.alone(self._settings.state_folder, name="watchdog"):
            self._tick()
            intercom.serve(self._settings.state_folder, self._answer)
            log.info("watching", extra={"event": "watchdog", "stops_within": self._limits.longest})
            while not self._ending:
                self._step()
            self._close()

    def _end(self, number: int, frame: Any) -> None:
        self._ending = True

    def _close(self) -> None:
        """Have the live terminals close properly, which as this process' children they would not get to."""
        self._stop_live()
        while self._round is not None and self._round.is_alive():
            self._tick()
            self._round.join(TICK_SECONDS)

    def _step(self) -> None:
        ends = time.monotonic() + TICK_SECONDS
        processes.reap()
        self._tick()
        if self._is_over():
            self._stop_live()
        else:
            self._rest_until = 0.0
        self._serve_wishes(ends)

    def _tick(self) -> None:
        now = self._moment()
        mark = Pulse(
            watchdog=self.name,
            boot_id=now.boot_id,
            since_boot=now.since_boot,
            stopping=self._is_stopping(),
            stops_within=self._limits.longest,
        )
        try:
            pulse.save(self._settings.state_folder, mark)
        except OSError as error:  # the agent will take it for silent, and that is right: it cannot be told
            log.warning("cannot tick", extra={"event": "tick", "why": type(error).__name__})

    # --- the lease ----------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Whether no lease is left, by the better of what the file says and what it once said.

        A lease that was granted lasts until its end, whatever becomes of the file.
        """
        now = self._moment()
        leases = [one for one in (self._lease, lease_file.load(self._settings.state_folder)) if one is not None]
        self._lease = max(leases, key=lambda one: one.left(now), default=None)
        return self._lease is None or not self._lease.is_fresh(now)

    def _stop_live(self) -> None:
        """See to it that a round of stopping is under way, unless the last one has just ended."""
        if not self._is_stopping() and time.monotonic() >= self._rest_until:
            self._round = threading.Thread(target=self._stop_round, name="watchdog stops", daemon=True)
            self._round.start()

    def _is_stopping(self) -> bool:
        return self._round is not None and self._round.is_alive()

    def _stop_round(self) -> None:
        ended: list[str] = []
        trouble = ""
        try:
            ended = processes.stop_those(
                self._settings.users,
                self._chosen,
                grace_seconds=self._limits.grace,
                kill_seconds=self._limits.kill,
            )
        except AgentError as error:
            trouble = error.detail
        except Exception:  # the edge of a thread: the next round comes in a second
            log.exception("a defect while stopping", extra={"event": "stop"})
        if ended:
            log.warning("the lease is over: live terminals stopped", extra={"event": "stop", "folders": ended})
        if trouble and trouble != self._trouble:  # once, and not every second of an outage
            log.error("live terminals will not stop", extra={"event": "stop", "detail": trouble})
        self._trouble = trouble
        self._rest_until = time.monotonic() + REST * time.thread_time()

    def _chosen(self, seen: Scan) -> list[str]:
        folders = self._living.among(seen)
        self._stopped.update(folders)
        return folders

    # --- starting -----------------------------------------------------------------------------------------------------

    def _answer(self, question: Question) -> Answer:
        """Answer the agent; called in a thread of the intercom."""
        folder = self._settings.clone(question["folder"]).name
        if question["do"] == "ended":
            code = processes.exit_code(int(question["pid"]))
            return {"code": code, "stopped": processes.key(folder) in self._stopped}
        wish = _Wish(folder, float(question["until"]))
        self._wishes.put(wish)
        return wish.answer.get()

    def _serve_wishes(self, ends: float) -> None:
        while (left := ends - time.monotonic()) > 0:
            try:
                wish = self._wishes.get(timeout=left)
            except queue.Empty:
                return
            wish.answer.put(self._fulfilled(wish))

    def _fulfilled(self, wish: _Wish) -> Answer:
        try:
            proc = self._started(wish)
        except AgentError as error:
            return {"reason": error.reason.value, "detail": error.detail}
        return {"pid": proc.pid, "created": proc.created, "watchdog": self.name}

    def _started(self, wish: _Wish) -> Proc:
        """Start what is wished for, if it may run at this very moment; in the main thread only."""
        # While some are being stopped, whatever is seen as live is killed in the end.
        if self._is_stopping() or self._is_over() or self._moment().since_boot > wish.until:
            raise errors.NoLease
        clone = self._settings.clone(wish.folder)
        self._stopped.discard(processes.key(wish.folder))
        proc = processes.launch(
            self._settings.terminal_command,
            clone,
            startup.ini_path(clone),
            user=self._user.uid if self._user else None,
            group=self._user.gid if self._user else None,
            tied=True,
        )
        _wait_named(proc)
        if self._moment().since_boot > wish.until or self._is_over():
            with suppress(psutil.Error):
                psutil.Process(proc.pid).kill()
            raise errors.NoLease
        return proc


def _wait_named(proc: Proc) -> None:
    """Wait until whoever looks can tell whose it is: for a moment after exec a process has no arguments."""
    end = time.monotonic() + NAMED_SECONDS
    while time.monotonic() < end and processes.is_alive(proc):
        try:
            if psutil.Process(proc.pid).cmdline():
                return
        except (psutil.Error, OSError):
            return
        time.sleep(0.002)
