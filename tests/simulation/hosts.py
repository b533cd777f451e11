"""A host: an agent, a watchdog, live terminals and demo terminals, clocks that are off, and whatever befalls it.

The lease is counted by the real ``farm.agent.lease``; what is done about it follows farm/agent/. In a *sharp* run
everything takes exactly as long as it may.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from farm.agent.lease import MOST_GRACE_SECONDS, SCAN_SECONDS, SILENT_SECONDS, TICK_SECONDS, Lease, Moment, longest_stop
from farm.agent.protocol import Verb
from farm.states import Goal, Kind
from tests.simulation.clocks import Clock
from tests.simulation.messages import Grant, Order, Report, Request, Survey
from tests.simulation.network import UP, Network
from tests.simulation.terminals import Clone, Terminal
from tests.simulation.verbs import VERBS, Refused
from tests.simulation.world import World

NONCES = 100
GUARD_SECONDS = SILENT_SECONDS
"""The agent leaves the lease's end to the watchdog for so long at most, and then stops the live terminals too: one
that was told to stop by a watchdog that was paused at that moment would else be told again only after its silence."""


class Program:
    """An agent or a watchdog: it runs, is paused with all it has begun, or is gone with it."""

    def __init__(self, world: World, host: Host, name: str):
        self.world, self.host, self.name = world, host, name
        self.up, self.paused, self.life = True, False, 1
        self._waiting: list[tuple[Callable, tuple]] = []

    @property
    def acts(self) -> bool:
        return self.up and not self.paused and not self.host.asleep

    def later(self, seconds: float, act: Callable, *args: Any) -> None:
        """In so many seconds by the host's clocks, if it lives and as soon as it is not paused."""
        self.world.after(seconds / self.host.clock.rate, self._do, self.life, act, args)

    def _do(self, life: int, act: Callable, args: tuple) -> None:
        if life != self.life or not self.up:
            return
        if not self.acts:
            self._waiting.append((act, args))
        else:
            act(*args)

    def pause(self) -> None:
        self.paused = True
        self.world.note("host %s: its %s hangs", self.host.id, self.name)

    def goes_on(self) -> None:
        """No longer paused, or its machine awake again: what had to wait is done now."""
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for act, args in waiting:
            self._do(self.life, act, args)

    def die(self) -> None:
        self.up = self.paused = False
        self.life += 1
        self._waiting.clear()
        self.world.note("host %s: its %s is gone", self.host.id, self.name)

    def begin(self) -> None:
        self.up = True


class Host:
    def __init__(
        self, world: World, network: Network, portal: Any, *, id: int, clock: Clock, grace: float, kill: float,
        every: float, sharp: bool, fenced: bool,
    ):  # fmt: skip
        self.world, self.network, self.portal = world, network, portal
        self.id, self.clock, self.grace, self.kill, self.every = id, clock, grace, kill, every
        self.sharp, self.fenced = sharp, fenced
        self.clones: dict[int, Clone] = {}
        self.lease: Lease | None = None
        self.nonces: dict[str, Moment] = {}
        self.asleep = False
        self.powered = True
        self.agent, self.watchdog = Program(world, self, "agent"), Program(world, self, "watchdog")
        self._asked = self._armed = 0
        self.echo_at: float | None = None
        """When what it next reports as stopped comes a second time."""
        self.when_started: Callable[[], None] | None = None
        """What is to befall it as soon as a live terminal is ordered to start: the worst moment of all."""

    @property
    def stop_seconds(self) -> float:
        return longest_stop(self.grace, self.kill)

    def moment(self) -> Moment:
        return self.clock.moment(self.world.t)

    def some(self, least: float, most: float) -> float:
        """Some seconds between these; the most in a sharp run."""
        return most if self.sharp else self.world.chance.uniform(least, most)

    def begin(self) -> None:
        self.agent.later(self.some(0, self.every), self._survey)
        self.arm()
        self.guard_if_watchdog_is_silent()
        self.agent.later(1.0, self.tend)

    # --- the agent ----------------------------------------------------------------------------------------------------

    def _survey(self) -> None:
        self.agent.later(self.every, self._survey)
        lines = {clone.instance: clone.observed() for clone in self.clones.values() if not clone.buried}
        left = self.lease.left(self.moment()) if self.lease is not None else None
        wall = self.clock.wall(self.world.t)
        # Before anything is sent, and so before anything is granted.
        sent = self.moment()
        self._asked += 1
        nonce = f"{self.id}-{self._asked}"
        self.network.send(self.id, UP, self.portal.take_survey, Survey(self.id, wall, lines, left))
        if not self.fenced or not self.watchdog_ticks():
            return
        self.nonces[nonce] = sent
        if len(self.nonces) > NONCES:
            del self.nonces[next(iter(self.nonces))]
        self.network.send(self.id, UP, self.portal.take_request, Request(self.id, nonce, self.stop_seconds, wall))

    def watchdog_ticks(self) -> bool:
        return self.watchdog.acts

    def take_grant(self, grant: Grant) -> None:
        self.agent.later(0, self._granted, grant)

    def _granted(self, grant: Grant) -> None:
        lease = self._lease_of(grant)
        if lease is None:
            return
        now = self.moment()
        had = self.lease is not None and self.lease.is_fresh(now)
        if self.lease is None or lease.left(now) > self.lease.left(now):
            self.lease = lease
            self._armed += 1
            self.arm()
        if not had and lease.is_fresh(now):
            self.tend()

    def _lease_of(self, grant: Grant) -> Lease | None:
        """The lease that a grant gives, counted from when it was asked for; None if this life of ours never asked."""
        sent = self.nonces.get(grant.nonce)
        return None if sent is None else Lease(nonce=grant.nonce, seconds=grant.seconds, sent=sent)

    def tend(self) -> None:
        """Start again what should run and does not."""
        for clone in list(self.clones.values()):
            if clone.goal is Goal.RUNNING and clone.process is None and clone.busy != self.agent.life:
                self.spawn(clone)

    def may_run(self, clone: Clone) -> bool:
        if clone.kind is Kind.PRESS_PASS or not self.fenced:
            return True
        return self.watchdog.acts and self.lease is not None and self.lease.is_fresh(self.moment())

    def spawn(self, clone: Clone) -> bool:
        if not self.may_run(clone):
            return False
        tied = clone.kind is Kind.LIVE and self.fenced and self.world.chance.random() < 0.9
        terminal = Terminal(host=self.id, instance=clone.instance, kind=clone.kind, account=clone.account, tied=tied)
        self.world.note("host %s starts %s of instance %s", self.id, clone.account, clone.instance)
        self.world.starts(terminal)
        self.portal.started(self, terminal)
        clone.process = terminal
        self.world.after(self.some(0.2, 4.0) if not self.sharp else 0.0, self._decide, terminal)
        return True

    def _decide(self, terminal: Terminal) -> None:
        terminal.decided = True

    def obey(self, order: Order) -> None:
        """An order came from the queue: older than one before it is refused, one that is being obeyed waits."""
        self.agent.later(0, self._obey, order)

    def _obey(self, order: Order) -> None:
        clone = self.clones.setdefault(order.instance, Clone(order.instance, order.kind))
        if clone.busy == self.agent.life:
            self.agent.later(1.0, self._obey, order)
            return
        try:
            VERBS[order.verb](self, clone, order)
        except Refused as refusal:
            self.answer(Report(order, refusal.outcome, refusal.reason, clone.observed()))
        if order.verb is Verb.START and clone.kind is Kind.LIVE and self.when_started is not None:
            befalls, self.when_started = self.when_started, None
            befalls()

    def answer(self, report: Report) -> None:
        """From the outbox, which is on the disk: what could not be sent is sent when that is possible."""
        if self.network.is_cut(self.id):
            self.agent.later(5.0, self.answer, report)
        else:
            self.network.send(self.id, UP, self.portal.take_report, report)
            if self.echo_at is not None and report.order.verb is Verb.STOP:
                self.world.at(self.echo_at, self.portal.take_report, report)
                self.echo_at = None

    # --- stopping -----------------------------------------------------------------------------------------------------

    def live(self) -> list[Terminal]:
        return [c.process for c in self.clones.values() if c.process is not None and c.kind is Kind.LIVE]

    def stop(self, terminal: Terminal, by: Program, *, scan: float = 0.0) -> None:
        """Ask it to close, and kill it when its grace is over. Whoever does that must live until then."""
        grace = min(self.grace, MOST_GRACE_SECONDS) if scan else self.grace
        by.later(self.some(0, scan), self._ask, terminal, by, grace)

    def _ask(self, terminal: Terminal, by: Program, grace: float) -> None:
        if not self.sharp and self.world.chance.random() < 0.5:
            self.world.after(self.world.chance.uniform(0, grace), self.gone, terminal)
        by.later(self.some(grace, grace + self.kill), self.gone, terminal)

    def gone(self, terminal: Terminal) -> None:
        clone = self.clones[terminal.instance]
        if clone.process is not terminal:
            return
        clone.process = None
        self.world.ends(terminal)
        self.world.note("host %s: the terminal of instance %s is gone", self.id, terminal.instance)
        self.agent.later(1.0, self.tend)

    # --- the watchdog, and the agent beside it ------------------------------------------------------------------------

    def arm(self) -> None:
        """Look at the lease when it ends: what looking each second amounts to. Also after each thing that may end it
        sooner; what was due before that stays due."""
        left = self.lease.left(self.moment()) if self.lease is not None else -math.inf
        ends, late = max(0.0, left), max(0.0, left + GUARD_SECONDS)
        self.watchdog.later(ends + self.some(0, TICK_SECONDS), self._look, self.watchdog, self._armed)
        self.agent.later(late + self.some(0, TICK_SECONDS), self._look, self.agent, self._armed)

    def _look(self, by: Program, armed: int) -> None:
        if armed != self._armed:
            return
        if self.lease is not None and self.lease.is_fresh(self.moment()):
            left = max(0.1, self.lease.left(self.moment()))
            by.later(left + self.some(0, TICK_SECONDS), self._look, by, armed)
            return
        self._stop_live(by, "the lease of host %s is over; its %s stops what is live")

    def _stop_live(self, by: Program, why: str) -> None:
        if not self.fenced:
            return
        for terminal in self.live():
            self.world.happened("a live terminal is stopped by its host")
            self.world.note(why, self.id, by.name)
            self.stop(terminal, by, scan=SCAN_SECONDS)

    def guard_if_watchdog_is_silent(self) -> None:
        if not self.watchdog.acts:
            self.agent.later(SILENT_SECONDS + self.some(0, TICK_SECONDS), self._guard, self.watchdog.life)

    def _guard(self, life: int) -> None:
        if life == self.watchdog.life and not self.watchdog.acts:
            self._stop_live(self.agent, "the watchdog of host %s is silent; its %s stops what is live")
