"""The watch over hosts: the brake, what may leave a silent host, and the giving up of those whose fence has passed.

Every decision is ``farm.fencing``'s. What is done about it follows farm/lifecycle/watching.py and failing_over.py:
first the host is given up by compare-and-set, and only then is anything of it started elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from farm import fencing
from farm.fencing import Move, Outlook
from farm.states import Goal, Kind, Status
from tests.simulation.rows import HostRow, Row

if TYPE_CHECKING:
    from tests.simulation.portal import Portal

WATCH_SECONDS = 5.0
BLIND_SECONDS = 3 * WATCH_SECONDS + 5
APART = timedelta(seconds=2)


class Watcher:
    def __init__(self, portal: Portal):
        self.portal, self.world = portal, portal.world
        self.paused, self.slow = False, 0.0
        """``slow``: so many seconds at most between reading a host and giving it up."""
        self.when_read: Callable[[int], None] | None = None
        """What happens between the two."""

    def look(self) -> None:
        if self.paused:
            return
        portal, rules = self.portal, self.portal.plan.rules
        now, watch = portal.earlier_now(), portal.db.watch
        trouble = self._trouble()
        hosts = [host for host in portal.db.hosts.values() if not host.retired and host.lost_at is None]
        outlook = Outlook(now=now, hosts=[host.facts() for host in hosts], trouble=trouble)
        before, watch.brake = watch.brake, fencing.braked(watch.brake, outlook, rules)
        if watch.brake.is_on != before.is_on:
            self.world.happened("the brake goes on" if watch.brake.is_on else "the brake lets go")
            self.world.note("brake: %s", watch.brake.why)
        self._destroy_what_returned()
        if watch.brake.is_on:
            return
        for facts, host in zip(outlook.hosts, hosts, strict=True):
            self._consider(host, facts, now)
        for host in portal.db.hosts.values():
            if host.lost_at is not None:
                self._fail_over(host)

    def _trouble(self) -> str:
        """Why we may have been blind; what was granted before our clock was set is fenced by the clock as it is now."""
        portal, watch, t = self.portal, self.portal.db.watch, self.world.t
        now, since_boot = portal.now(), portal.clock.since_boot(t)
        before, before_boot = watch.looked_at, watch.looked_since_boot
        watch.looked_at, watch.looked_since_boot = now, since_boot
        if before is None:
            return "it has just begun"
        step = fencing.clock_step(wall=(now - before).total_seconds(), since_boot=since_boot - before_boot)
        if step:
            self._move_fences(now, step)
            return "the portal's clock was set"
        if abs(now - portal.database_clock.now(t)) > APART:
            return "the portal's clock and the database's are apart"
        return "the portal was not watching" if since_boot - before_boot > BLIND_SECONDS else ""

    def _move_fences(self, now: datetime, step: float) -> None:
        self.world.happened("the portal's clock was set")
        longest = max(self.portal.plan.rules.lease, self.portal.plan.held)
        for host in self.portal.db.hosts.values():
            if host.fenced_until is not None and host.lost_at is None:
                host.fenced_until = fencing.fence_after_step(
                    host.fenced_until, now=now, step=step, longest_lease=longest
                )

    # --- a silent host ------------------------------------------------------------------------------------------------

    def _consider(self, host: HostRow, facts: fencing.HostFacts, now: datetime) -> None:
        rules = self.portal.plan.rules
        if fencing.is_lost(facts, now, rules):
            if self.slow:
                if self.when_read is not None:
                    self.when_read(host.id)
                self.world.after(self.world.chance.uniform(0, self.slow), self.give_up, host.id, facts)
            else:
                self.give_up(host.id, facts)
        elif fencing.dark_since(facts, now, rules) is not None:
            for row in self.portal.db.on(host.id):
                self._consider_row(row, facts, now)
            self._look_at_the_very_moment(facts, now)

    def _look_at_the_very_moment(self, facts: fencing.HostFacts, now: datetime) -> None:
        if facts.fenced_until is None or not self.portal.plan.sharp:
            return
        ends = fencing.fence_ends(
            facts.fenced_until, stop_seconds=facts.stop_seconds, drift=self.portal.plan.rules.drift
        )
        left = (ends - now).total_seconds()
        if 0 < left < WATCH_SECONDS:
            self.world.after(left / self.portal.clock.rate + 1e-5, self.look)

    def _consider_row(self, row: Row, facts: fencing.HostFacts, now: datetime) -> None:
        if row.status in {Status.LOST, Status.DESTROYED}:
            return
        db, rules = self.portal.db, self.portal.plan.rules
        may = fencing.may_move(row.status, ran=row.ran, has_seat=db.has_seat(row), host=facts, now=now, rules=rules)
        if may is not Move.NOT_YET:
            self.world.happened("moved before the fence")
            self._lose(row)

    def give_up(self, host_id: int, as_read: fencing.HostFacts) -> bool:
        """Only if neither a lease was granted nor a survey came since it was read."""
        host = self.portal.db.hosts[host_id]
        if host.lost_at is not None or not self._is_as_read(host, as_read):
            self.world.happened("a host is not given up after all")
            return False
        host.lost_at = self.portal.now()
        self.world.happened("a host is given up")
        self.world.note("host %s is given up", host.id)
        for terminal in self.portal.machines[host.id].live():
            self.world.demand(False, "%s runs while its host is given up", terminal)
        self._fail_over(host)
        return True

    def _is_as_read(self, host: HostRow, as_read: fencing.HostFacts) -> bool:
        return (host.fenced_until, host.surveyed_at) == (as_read.fenced_until, as_read.surveyed_at)

    # --- what ran on it -----------------------------------------------------------------------------------------------

    def _fail_over(self, host: HostRow) -> None:
        rows = [row for row in self.portal.db.on(host.id) if row.status is not Status.LOST]
        for row in sorted(rows, key=lambda row: (row.kind is not Kind.LIVE, row.pk)):
            if not (row.status is Status.DESTROYING and self.portal.is_fresh(host)):
                self._lose(row)

    def _lose(self, row: Row) -> None:
        """Its place is taken by a successor, if it was to run."""
        going, db = self.portal.going, self.portal.db
        if row.status is Status.WAITING:
            row.host, row.first_in_line = None, True
            return
        goal = row.goal
        keeps = Goal.STOPPED if goal is Goal.STOPPED else Goal.DESTROYED
        db.move(row, Status.LOST, "its machine was lost", now=self.portal.now(), goal=keeps)
        if goal is Goal.DESTROYED:
            if row.kind is Kind.LIVE:
                db.leave_seat(row)
                going.successors_go_on(row)
                going._restart_old(row)
        elif row.kind is Kind.PRESS_PASS:
            self.world.happened("a Press Pass is failed over")
            going.sign_up(row.customer)
        elif goal is Goal.RUNNING:
            self.world.happened("a live terminal is failed over")
            old = going._old(row)
            replaces = row if row.proven or old is None or old.pk not in db.open else old
            going.go_on(row.customer, row.account, replaces)
        else:
            going.successors_go_on(row)

    # --- it returns ---------------------------------------------------------------------------------------------------

    def _destroy_what_returned(self) -> None:
        """A host that speaks again is told that its instances are gone; then, and not before, it is back."""
        for host in self.portal.db.hosts.values():
            if not self.portal.is_fresh(host) or host.retired:
                continue
            there = self.portal.db.on(host.id)
            for row in there:
                # One that is stopped stays what it is, if its host was not given up.
                if row.status is Status.LOST and (row.goal is not Goal.STOPPED or host.lost_at is not None):
                    self._return(row)
            gone = not any(row.status in {Status.LOST, Status.DESTROYING, Status.FAILED} for row in there)
            if host.lost_at is not None and gone:
                host.lost_at = None
                self.world.happened("a lost host is back")

    def _return(self, row: Row) -> None:
        self.portal.db.move(row, Status.DESTROYING, "its machine is back", now=self.portal.now(), goal=Goal.DESTROYED)
