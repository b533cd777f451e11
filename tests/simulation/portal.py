"""The portal: what arrives is recorded, what is due is ordered, and the parts that decide are given the row.

Each event is one transaction. Where the real thing reads in one and writes in another, so does this.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from farm import fencing, states
from farm.agent.protocol import Observation, Outcome, Process, Reason, Verb
from farm.states import Goal, Kind, Status, Verdict
from tests.simulation.clocks import Clock
from tests.simulation.going import Going
from tests.simulation.hosts import Host
from tests.simulation.keepers import Keeper
from tests.simulation.messages import Order, Report, Request, Survey
from tests.simulation.network import DOWN, Network
from tests.simulation.plan import Plan
from tests.simulation.rows import Database, HostRow, Row
from tests.simulation.terminals import Terminal
from tests.simulation.world import World

CLAIM, READY = 30.0, 60.0
RETRY_FIRST, RETRY_MOST, RETRY_ATTEMPTS = 5.0, 60.0, 8
CLOCK_TOLERANCE = 60.0


class Portal:
    def __init__(self, world: World, network: Network, plan: Plan, clock: Clock, database_clock: Clock):
        self.world, self.network, self.plan = world, network, plan
        self.clock, self.database_clock = clock, database_clock
        self.db = Database(world)
        self.machines: dict[int, Host] = {}
        self.keepers = [Keeper(self, "one"), Keeper(self, "two")]
        self.going = Going(self)
        self.db.ring = self._ring

    # --- time ---------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.clock.now(self.world.t)

    def later_now(self) -> datetime:
        """For granting: the later of our clock and the database's."""
        return max(self.now(), self.database_clock.now(self.world.t))

    def earlier_now(self) -> datetime:
        """For giving up: the earlier."""
        return min(self.now(), self.database_clock.now(self.world.t))

    def soon(self, seconds: float) -> datetime:
        return self.now() + timedelta(seconds=seconds)

    # --- leases -------------------------------------------------------------------------------------------------------

    def take_request(self, request: Request) -> None:
        up = [keeper for keeper in self.keepers if keeper.up]
        if up:
            self.world.chance.choice(up).take(request)

    def started(self, host: Host, terminal: Terminal) -> None:
        """Seen from above: a live terminal started on a host that was given up would be the second one."""
        lost = self.db.hosts[host.id].lost_at is not None
        self.world.demand(not lost or terminal.kind is Kind.PRESS_PASS, "%s starts, which was given up", terminal)

    # --- what hosts say -----------------------------------------------------------------------------------------------

    def take_survey(self, survey: Survey) -> None:
        host, now = self.db.hosts[survey.host], self.now()
        if self._is_older(host, survey):
            return
        was_silent = not self.is_fresh(host)
        host.surveyed_at, host.sent_at, host.lines, host.lease_left = (
            now,
            survey.sent_at,
            survey.lines,
            survey.lease_left,
        )
        for row in self.db.on(host.id):
            line = survey.lines.get(row.pk)
            if line is not None and line.generation == row.generation and line.epoch <= host.epoch:
                self._follow(row, line)
        if was_silent:
            self.sweep()

    def _is_older(self, host: HostRow, survey: Survey) -> bool:
        """Came after a newer one. The clock that they are told apart by may have been ahead, or set back by much."""
        last = host.sent_at
        if last is None or last > self.clock.wall(self.world.t) + CLOCK_TOLERANCE:
            return False
        return last - CLOCK_TOLERANCE < survey.sent_at <= last

    def _follow(self, row: Row, line: Observation) -> None:
        if row.goal is not Goal.RUNNING or row.status not in {Status.STARTING, Status.RUNNING}:
            return
        if self.awaits_proof(row):
            if line.process is Process.RUNNING:
                self._judge(row, line)
            return
        found = states.seen(row.status, line)
        if found.status is row.status:
            return
        if found.status is Status.FAILED:
            self.fail(row, found.reason)
        elif found.status is Status.STARTING:
            later = self.soon(READY)
            self.db.move(
                row, Status.STARTING, found.why, now=self.now(),
                generation=row.generation, next_at=later, claimed_until=later,
            )  # fmt: skip
        else:
            self.db.move(row, found.status, found.why, now=self.now())

    def take_report(self, report: Report) -> None:
        order = report.order
        row = self.db.open.get(order.instance)
        if row is None or row.host != order.host:
            return
        newest = (order.epoch, order.generation) == (self.db.hosts[order.host].epoch, row.generation)
        if not newest or states.VERBS.get(row.status) is not order.verb:
            return
        if report.outcome is not Outcome.DONE:
            self.fail(row, report.reason)
        elif order.verb is Verb.START and self.awaits_proof(row):
            if not self._judge(row, report.observed):
                row.claimed_until = row.next_at = self.soon(READY)
        else:
            to = states.after(order.verb, has_account=row.account is not None, goal=row.goal)
            self.db.move(row, to, f"{order.verb.value} done", now=self.now())
            if to is Status.STOPPED:
                self.going.successors_go_on(row)
            elif to is Status.DESTROYED:
                self.going.gone(row)

    def awaits_proof(self, row: Row) -> bool:
        return row.kind is Kind.LIVE and not row.proven and row.status is Status.STARTING

    def _judge(self, row: Row, line: Observation) -> bool:
        verdict = states.verdict(line, server="", login=0, beat_after=None)
        if verdict is Verdict.REFUSED:
            self.going.refuse(row)
        elif verdict is Verdict.PROVEN:
            self.db.move(row, Status.RUNNING, "the broker lets it trade", now=self.now(), proven=True)
            self.going.end_replaced(row)
        return verdict is not Verdict.UNDECIDED

    def fail(self, row: Row, reason: Reason) -> None:
        attempts = row.attempts + 1
        retried = states.is_retried(reason, attempts, limit=RETRY_ATTEMPTS)
        delay = states.retry_delay(attempts, first=RETRY_FIRST, most=RETRY_MOST)
        at = self.now() + delay if retried else None
        self.db.move(row, Status.FAILED, reason.value, now=self.now(), attempts=attempts, next_at=at)

    # --- what is due --------------------------------------------------------------------------------------------------

    def is_fresh(self, host: HostRow) -> bool:
        return host.surveyed_at is not None and fencing.dark_since(host.facts(), self.now(), self.plan.rules) is None

    def sweep(self) -> None:
        """Whatever has a step due is told its host, what failed is tried again, and the line is served."""
        now = self.now()
        for row in list(self.db.open.values()):
            if row.next_at is None or row.next_at > now or row.pk not in self.db.open:
                continue
            if row.status is Status.FAILED:
                self.db.move(row, states.retried_as(row.goal), "tried again", now=now)
            if row.status in states.IN_MOTION and self.is_fresh(self.db.hosts[row.host]):
                self._order(row, now)
        self.going.serve_line()

    def _ring(self, row: Row) -> None:
        self.world.after(0.0 if self.plan.sharp else 0.05, self._rung, row.pk)

    def _rung(self, pk: int) -> None:
        row, now = self.db.open.get(pk), self.now()
        due = row is not None and row.status in states.IN_MOTION and row.next_at is not None and row.next_at <= now
        if due and self.is_fresh(self.db.hosts[row.host]):
            self._order(row, now)

    def _order(self, row: Row, now: datetime) -> None:
        if row.claimed_until is not None:
            row.attempts += 1
            if row.attempts >= RETRY_ATTEMPTS:
                self.fail(row, Reason.TOO_SLOW)
                return
        if self.db.watch.restored_at is not None and row.kind is Kind.LIVE and row.status in UP_LIVE:
            row.next_at = self.soon(CLAIM)
            return
        verb = states.VERBS[Status.CLONING if row.status is Status.REQUESTED else row.status]
        if row.status is Status.REQUESTED:
            row.status = Status.CLONING
        if verb in {Verb.INJECT, Verb.START}:
            row.ran = True
        row.generation += 1
        row.claimed_until = row.next_at = self.soon(READY if verb is Verb.START else CLAIM)
        host = self.db.hosts[row.host]
        order = Order(host.id, row.pk, host.epoch, row.generation, verb, row.kind, row.account)
        self.network.send(host.id, DOWN, self.machines[host.id].obey, order)


UP_LIVE = frozenset({Status.INJECTING, Status.STARTING})
"""No live terminal is given its account, or started, while it is not known what else runs."""
