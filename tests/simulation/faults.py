"""What goes wrong, and when: drawn from the seed, at any moment and at the worst ones.

Two things are never done to one host within the time that the first may still matter, for no promise covers them:
agent and watchdog both stopped, and its whole machine frozen past the end of its lease. See docs/host.md.
"""

from __future__ import annotations

from collections.abc import Callable

from farm import fencing
from farm.states import Goal, Kind, Status
from tests.simulation.host_faults import HOUR, HostFaults
from tests.simulation.hosts import Host
from tests.simulation.keepers import Keeper
from tests.simulation.messages import Request
from tests.simulation.network import DOWN, UP
from tests.simulation.portal import Portal
from tests.simulation.watching import Watcher
from tests.simulation.world import World


class Faults(HostFaults):
    def __init__(self, world: World, portal: Portal, watcher: Watcher):
        super().__init__(world, portal)
        self.watcher = watcher

    def begin(self) -> None:
        chance = self.world.chance
        for _ in range(chance.randint(3, 9)):
            fault, weight = zip(*self._kinds().items(), strict=True)
            act = chance.choices(fault, weight)[0]
            self.world.at(chance.uniform(30, self.plan.lasts - 30), self._befall, act)
        if self.plan.held:
            self.world.at(chance.uniform(30, 120), self._hold)

    def _kinds(self) -> dict[Callable[[], None], int]:
        return {
            self._cut_off: 6, self._cut_off_as_one_starts: 4, self._cut_several: 1, self._program: 5, self._reboot: 3,
            self._dies_for_good: 1, self._set_wall: 3, self._sleep: 2, self._keeper: 2, self._watcher: 2,
            self._set_portal_clock: 2, self._crash: 1, self._cut_off_and_clock: 3, self._reboot_with_bad_clock: 2,
            self._watchdog_at_the_end: 5, self._cut_off_and_portal_clock: 2, self._cut_off_and_sleep: 2, self._flap: 3,
            self._keeper_falls: 2, self._returns_as_it_is_given_up: 2, self._stopped_twice: 2,
        }  # fmt: skip

    # --- the network --------------------------------------------------------------------------------------------------

    def _about_the_fence(self, host: Host) -> float:
        """A time around which the portal makes up its mind: where mistakes show."""
        rules, chance = self.plan.rules, self.world.chance
        fence = rules.lease + host.stop_seconds + rules.drift
        return chance.choice(
            [chance.uniform(1, 60), rules.lease + chance.uniform(-10, 10), fence + chance.uniform(-10, 40), 2 * fence]
        )

    def _cut_off(self, host: Host | None = None) -> None:
        host = host or self._host()
        ways = self.world.chance.choice([UP, DOWN, UP | DOWN, UP | DOWN])
        self.portal.network.sever(host.id, ways)
        self._until(self._about_the_fence(host), self.portal.network.heal, host.id)

    def _cut_off_as_one_starts(self) -> None:
        host = self._host()
        host.when_started = lambda: self._befall(lambda: self._cut_off(host))

    def _cut_several(self) -> None:
        hosts = list(self.portal.machines.values())
        for host in self.world.chance.sample(hosts, self.world.chance.randint(2, len(hosts))):
            self._cut_off(host)

    def _cut_off_and_clock(self) -> None:
        host = self._host()
        self._cut_off(host)
        self.world.after(self.world.chance.uniform(0, 20), self._set_wall, host)

    def _cut_off_and_portal_clock(self) -> None:
        """Both clocks of the portal, while a lease runs that it cannot take back."""
        host, chance = self._host(), self.world.chance
        self.world.after(chance.choice([0, chance.uniform(3, 10)]), self._befall, lambda: self._cut_off_for_long(host))
        by = chance.choice([150.0, HOUR])
        for clock in dict.fromkeys([self.portal.clock, self.portal.database_clock]):
            self.world.after(chance.uniform(0, 5), clock.set_by, by)
        self.world.note("the portal's clocks are set by %s s", by)

    def _cut_off_and_sleep(self) -> None:
        host = self._host()
        self.portal.network.sever(host.id, UP | DOWN)
        self._until(300, self.portal.network.heal, host.id)
        self._sleep(host)

    def _flap(self) -> None:
        """Grants come late, to another life of the agent, and then it is cut off for long."""
        host, chance = self._host(), self.world.chance
        waits = chance.uniform(20, 60)
        self.portal.network.sever(host.id, DOWN)
        self.world.after(waits, self.portal.network.heal, host.id)
        self.world.after(waits + chance.uniform(0, 2), self._befall, lambda: self._cut_off_for_long(host))
        if chance.random() < 0.5 and self._may_impair(host, waits):
            self.world.after(waits - 6, self.kill, host, host.agent)
            self.world.after(waits - 4, self._restart, host, host.agent)

    def _cut_off_for_long(self, host: Host) -> None:
        self.portal.network.sever(host.id, UP | DOWN)
        self._until(300, self.portal.network.heal, host.id)

    # --- the portal ---------------------------------------------------------------------------------------------------

    def _keeper(self) -> None:
        chance = self.world.chance
        keeper = chance.choice(self.portal.keepers)
        if chance.random() < 0.5:
            keeper.slow = chance.uniform(5, 100)
            self._until(chance.uniform(20, 200), self._quick, keeper)
        else:
            keeper.die()
            self._until(chance.uniform(5, 200), self._raise, keeper)

    def _keeper_falls(self) -> None:
        """The only one there falls between its two steps, and the host that it was busy with is cut off."""
        one, other = self.portal.keepers
        other.die()
        one.when_between = lambda request: self._befall(lambda: self._fall(one, request))
        self._until(60, self._raise, other)

    def _fall(self, keeper: Keeper, request: Request) -> None:
        keeper.die()
        self._until(60, self._raise, keeper)
        self.world.after(1.0, self._hang_at_the_end, self.portal.machines[request.host])

    def _returns_as_it_is_given_up(self) -> None:
        host = self._host()
        self.watcher.slow = 30.0
        self.watcher.when_read = self._heal_soon
        self.portal.network.sever(host.id, UP | DOWN)
        self._until(400, self.portal.network.heal, host.id)

    def _heal_soon(self, host: int) -> None:
        self.watcher.when_read = None
        self.portal.network.heal(host)

    def _stopped_twice(self) -> None:
        """A restart, and soon after it a stop for good: an answer to the first must not pass for one to the second."""
        live = [row for row in self.portal.db.open.values() if row.kind is Kind.LIVE and row.status is Status.RUNNING]
        if not live:
            return
        row = self.world.chance.choice(live)
        if row.goal is Goal.RUNNING:
            self.world.happened("a terminal is restarted")
            self.portal.db.move(row, Status.STOPPING, "restart asked for", now=self.portal.now())
            gap = self.world.chance.uniform(40, 70)
            self.portal.machines[row.host].echo_at = self.world.t + gap + self.world.chance.uniform(0, 5)
            self.world.after(gap, self._stop_again, row.pk)

    def _stop_again(self, pk: int) -> None:
        row = self.portal.db.open.get(pk)
        if row is not None and row.status is Status.RUNNING and row.goal is Goal.RUNNING:
            self.portal.going.go_on(row.customer, row.account, row)

    def _quick(self, keeper: Keeper) -> None:
        keeper.slow = 0.0

    def _raise(self, keeper: Keeper) -> None:
        keeper.up = True

    def _watcher(self) -> None:
        chance = self.world.chance
        if chance.random() < 0.5:
            self.watcher.paused = True
            self._until(chance.uniform(10, 200), self._watches)
        else:
            self.watcher.slow = chance.uniform(1, 60)

    def _watches(self) -> None:
        self.watcher.paused = False

    def _set_portal_clock(self) -> None:
        chance = self.world.chance
        by = chance.choice([-300.0, -10.0, 10.0, 150.0, HOUR, 5 * HOUR])
        clock = chance.choice([self.portal.clock, self.portal.database_clock])
        self.world.note("the portal's clock is set by %s s", by)
        clock.set_by(by)

    def _set_portal_right(self) -> None:
        """The clock that is behind is set to the other, for nothing is done while they are apart."""
        clocks = [self.portal.clock, self.portal.database_clock]
        for clock in clocks:
            clock.off = max(other.off for other in clocks)

    def _hold(self) -> None:
        self.world.happened("leases are held")
        for host in self.portal.db.hosts.values():
            held = fencing.lease_ends(self.portal.now(), lease=self.plan.held, held_until=None)
            host.held_until = held
        if self.world.chance.random() < 0.5:
            self.world.after(self.world.chance.uniform(15, 60), self._hold_no_longer)

    def _hold_no_longer(self) -> None:
        """The long leases that were granted run on; usual ones are granted beside them."""
        for host in self.portal.db.hosts.values():
            host.held_until = None

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """From now on nothing new goes wrong; what is dead for good stays so."""
        self.over = True
        self.portal.network.be_good()
        self.watcher.slow, self.watcher.when_read, self.watcher.paused = 0.0, None, False
        for keeper in self.portal.keepers:
            keeper.up, keeper.slow, keeper.when_between = True, 0.0, None
        self._set_portal_right()
        for host in self.portal.machines.values():
            host.when_started = None
