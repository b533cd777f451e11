"""Staff: they drain a host now and then, and when the faults are over they do what only a person may."""

from __future__ import annotations

from farm import fencing
from farm.fencing import Outlook
from farm.states import Goal, Kind, Status
from tests.simulation.portal import Portal
from tests.simulation.watching import Watcher
from tests.simulation.world import World

DRAIN_AT_ONCE = 2


class Staff:
    def __init__(self, world: World, portal: Portal, watcher: Watcher):
        self.world, self.portal, self.watcher = world, portal, watcher
        self.over = False

    def begin(self) -> None:
        chance = self.world.chance
        if chance.random() < 0.4:
            self.world.at(chance.uniform(60, 250), self._drain, chance.choice(list(self.portal.db.hosts)))
        if chance.random() < 0.2:
            self.world.at(chance.uniform(60, self.portal.plan.lasts), self._pull)
        if chance.random() < 0.3:
            self.world.at(chance.uniform(100, self.portal.plan.lasts), self.release)

    def faults_are_over(self) -> None:
        self.over = True
        self.world.every(60.0, self._tidy)

    # --- drain --------------------------------------------------------------------------------------------------------

    def _drain(self, host: int) -> None:
        self.world.happened("a host is drained")
        self.portal.db.hosts[host].draining = True
        self.world.every(20.0, lambda: self._move_some(host))
        self.world.after(self.world.chance.uniform(60, 300), self._use_again, host)

    def _use_again(self, host: int) -> None:
        self.portal.db.hosts[host].draining = False

    def _move_some(self, host: int) -> None:
        """Live ones, same account: the old one stops, the seat moves, the new one proves itself."""
        db = self.portal.db
        row = db.hosts[host]
        if not row.draining or row.lost_at is not None or not self.portal.is_fresh(row):
            return
        rooms = sum(db.free_slots(other) for other in db.hosts.values() if self.portal.going.is_usable(other))
        for instance in db.on(host)[: min(DRAIN_AT_ONCE, rooms)]:
            live = instance.kind is Kind.LIVE and instance.proven
            if live and instance.status is Status.RUNNING and instance.goal is Goal.RUNNING:
                self.world.happened("a live terminal is moved by a drain")
                self.portal.going.go_on(instance.customer, instance.account, instance)

    # --- the brake ----------------------------------------------------------------------------------------------------

    def _pull(self) -> None:
        watch = self.portal.db.watch
        watch.brake = fencing.pulled(watch.brake, "by hand", now=self.portal.earlier_now())
        self.world.after(self.world.chance.uniform(20, 200), self.release)

    def release(self) -> None:
        portal, watch = self.portal, self.portal.db.watch
        if not watch.brake.is_on:
            return
        hosts = [host.facts() for host in portal.db.hosts.values() if not host.retired and host.lost_at is None]
        watch.brake = fencing.released(Outlook(now=portal.earlier_now(), hosts=hosts), portal.plan.rules)
        self.world.happened("staff release the brake")

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """What waits for a person: the brake, what failed for good, machines that are off, leases that are held."""
        db, now = self.portal.db, self.portal.now()
        self.release()
        for row in list(db.open.values()):
            if row.status is Status.FAILED and row.next_at is None:
                row.next_at, row.attempts = now, 0
        for host in db.hosts.values():
            host.held_until = None
            if self.portal.machines[host.id].powered or host.retired:
                continue
            if not host.fenced and host.lost_at is None:
                self.watcher.give_up(host.id, host.facts())
            if host.lost_at is not None:
                self._retire(host.id)

    def _retire(self, host: int) -> None:
        db = self.portal.db
        for row in db.on(host):
            if row.status is not Status.LOST:
                return
        db.hosts[host].retired = True
        for row in db.on(host):
            stopped = row.goal is Goal.STOPPED
            db.move(row, Status.DESTROYED, "its machine is gone for good", now=self.portal.now(), goal=Goal.DESTROYED)
            if not stopped:
                self.portal.going.gone(row, made_way=False)
            elif db.has_seat(row):
                db.leave_seat(row)
