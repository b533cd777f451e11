"""What a host does without being told: watch, survey, supervise, keep house. Each in a thread that no error ends."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable

from farm.agent import orders, pool, processes, purge, supervise
from farm.agent.context import Context
from farm.agent.errors import AgentError, TooSlow
from farm.agent.guard import Guard
from farm.agent.leasing import Leasing
from farm.agent.outbox import Outbox
from farm.agent.protocol import Process, Survey
from farm.agent.state import State
from farm.agent.survey import Surveyor

log = logging.getLogger(__name__)

PENDING_SECONDS = 0.05
"""So often a start that is on its way is looked at."""
LOOK_SECONDS = 0.4
"""So often every running instance is; a change is told within this and SOON_SECONDS."""
SOON_SECONDS, LATEST_SECONDS = 0.1, 0.5
"""So long a survey waits for more changes, so that ten starts at once are told by one; longer on a full host."""
REST = 4.0
"""After a round of looking, so many times its processor time is rested: looking never takes over the machine."""
TEND_SECONDS = 1.0
KEEP_HOUSE_SECONDS = 0.5
PRUNE_SECONDS = 600.0
REFILL_SECONDS = 0.2


class Background:
    """The threads of a worker. They live as long as it does; terminals live longer."""

    def __init__(self, context: Context, outbox: Outbox, leasing: Leasing) -> None:
        self._context = context
        self._outbox = outbox
        self._leasing = leasing
        self._surveyor = Surveyor(context)
        self._stopping = threading.Event()
        self._survey_wanted = threading.Event()
        self._threads: list[threading.Thread] = []
        self._pending: set[int] = set()
        self._pending_lock = threading.Lock()
        self._seen: dict[int, tuple[object, ...]] = {}
        self._looked_at = float("-inf")
        self._pruned_at = float("-inf")
        self._first = True

    def start(self) -> None:
        loops: list[tuple[str, Callable[[], None], float, float]] = [
            ("survey", self._survey, 0.0, 0.0),  # it rests by itself, unless there is news
            ("watch", self._watch, PENDING_SECONDS, REST),
            ("supervise", self._supervise, TEND_SECONDS, REST),
            ("keep house", self._keep_house, KEEP_HOUSE_SECONDS, 0.0),
            ("refill", self._refill, REFILL_SECONDS, 0.0),
        ]
        self._threads = [
            threading.Thread(target=self._loop, args=row, name=f"farm {row[0]}", daemon=True) for row in loops
        ]
        servers = {"outbox": self._outbox.serve}
        if self._context.fence.is_on:
            servers |= {"leases": self._leasing.serve, "guard": Guard(self._context).serve}
        self._threads += [
            threading.Thread(target=serve, args=(self._stopping,), name=f"farm {name}", daemon=True)
            for name, serve in servers.items()
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, *, seconds: float = 5.0) -> None:
        """End the threads, and send what can still be sent. No terminal is touched."""
        self._stopping.set()
        self._survey_wanted.set()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._outbox.flush(seconds=2.0)

    def expect(self, instance: int) -> None:
        """Look at this instance often: its start is on its way."""
        with self._pending_lock:
            self._pending.add(instance)

    def _loop(self, name: str, once: Callable[[], None], pause: float, rest: float) -> None:
        if name == "refill":
            pool.lower_priority()
        while not self._stopping.is_set():
            began = time.thread_time()
            try:
                once()
            except AgentError as error:
                log.warning(
                    "loop in trouble", extra={"event": name, "reason": error.reason.value, "detail": error.detail}
                )
                self._stopping.wait(1.0)
            except Exception:  # the edge of a thread: a defect in one round must not end all rounds
                log.exception("a defect in a loop", extra={"event": name})
                self._stopping.wait(1.0)
            self._stopping.wait(max(pause, rest * (time.thread_time() - began)))

    # --- one round of each --------------------------------------------------------------------------------------------

    def _survey(self) -> None:
        began = time.thread_time()
        survey: Survey | None = None
        try:
            survey = self._surveyor.survey()
            self._outbox.survey(survey)
        finally:  # a host that cannot say how it is need not stop its live terminals for that
            self._ask(survey.nonce if survey else secrets.token_hex(8))
        spent = time.thread_time() - began
        if self._survey_wanted.wait(self._context.settings.survey_seconds):
            self._stopping.wait(min(LATEST_SECONDS, max(SOON_SECONDS, REST * spent)))
            self._survey_wanted.clear()

    def _ask(self, nonce: str) -> None:
        request = self._leasing.request(nonce)
        if request is not None:
            self._outbox.request(request)

    def _watch(self) -> None:
        processes.reap()
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._look_at_all()
        with self._pending_lock:
            pending = sorted(self._pending)
        for instance in pending:
            try:
                self._look_at_pending(instance)
            except Exception:  # of one: the others' starts are to be told all the same
                log.exception("a defect while looking", extra={"event": "watch", "instance": instance})
                self._expect_no_more(instance)  # until the next look at all

    def _look_at_all(self) -> None:
        seen: dict[int, tuple[object, ...]] = {}
        for state in self._context.memory.every():
            if state.tombstone:
                continue
            if state.awaits_start:
                self.expect(state.instance)
            seen[state.instance] = self._signature(state)
        if seen != self._seen:
            self._seen = seen
            self._survey_wanted.set()

    def _signature(self, state: State) -> tuple[object, ...]:
        if state.launch is None:
            return (state.built, Process.STOPPED, state.reason)
        try:
            return self._context.watch.look(state).signature
        except Exception:  # of one: changes of the others are to be told all the same
            log.exception("a defect while looking", extra={"event": "watch", "instance": state.instance})
            return (state.built, Process.UNKNOWN, state.reason)

    def _look_at_pending(self, instance: int) -> None:
        state = self._context.load(instance)
        if state is None or not state.awaits_start:
            self._expect_no_more(instance)
            return
        look = self._context.watch.look(state)
        if state.launch is not None and orders.judge(self._context, state, look):
            self._expect_no_more(instance)
            # A start that failed is stopped first, which may take its time: not at the cost of the others.
            threading.Thread(target=self._conclude, args=(state,), name="farm conclude", daemon=True).start()
        elif look.standing is not None and look.standing.ini_read:
            supervise.clear_read_ini(self._context, instance)

    def _expect_no_more(self, instance: int) -> None:
        with self._pending_lock:
            self._pending.discard(instance)

    def _conclude(self, state: State) -> None:
        try:
            report = orders.conclude(self._context, state.instance, seconds=1.0)
        except TooSlow:
            report = None  # someone works on it; the next look at all finds it again
        except Exception:
            log.exception("a defect while concluding", extra={"event": "conclude", "instance": state.instance})
            return
        if report is not None:
            self._outbox.report(report)

    def _supervise(self) -> None:
        first, self._first = self._first, False
        if first:
            supervise.clear_leftovers(self._context)
        started = supervise.tend(self._context, first=first)
        if first and started == supervise.STARTS_AT_ONCE:
            self._first = True  # there are more that the machine's stop, and no crash, has left to start

    def _keep_house(self) -> None:
        purge.purge(self._context.settings.root)
        now = time.monotonic()
        if now - self._pruned_at > PRUNE_SECONDS:
            self._pruned_at = now
            supervise.prune(self._context)

    def _refill(self) -> None:
        if self._context.pool:
            while self._context.pool.refill() and not self._stopping.is_set():
                continue
