"""What befalls one host: its programs, its power, its clocks."""

from __future__ import annotations

from collections.abc import Callable

from farm.agent.lease import SILENT_SECONDS, TICK_SECONDS
from tests.simulation.hosts import Host, Program
from tests.simulation.network import DOWN, UP
from tests.simulation.plan import Plan
from tests.simulation.portal import Portal
from tests.simulation.world import World

SETTLES = SILENT_SECONDS + TICK_SECONDS + 5
HOUR = 3600.0


class HostFaults:
    def __init__(self, world: World, portal: Portal):
        self.world, self.portal = world, portal
        self.plan: Plan = portal.plan
        self.impaired: dict[int, float] = {}
        """By host, until when one more fault of its programs would be the second at once."""
        self.over = False

    def _host(self) -> Host:
        return self.world.chance.choice(list(self.portal.machines.values()))

    def _until(self, seconds: float, act: Callable, *args: object) -> None:
        """Undo it then; all of it is undone when the faults stop."""
        self.world.at(min(self.world.t + seconds, self.plan.lasts), act, *args)

    def _befall(self, act: Callable[[], None]) -> None:
        if not self.over:
            act()

    def _may_impair(self, host: Host, seconds: float) -> bool:
        t = self.world.t
        if not host.powered or self.impaired.get(host.id, 0.0) > t:
            return False
        self.impaired[host.id] = t + seconds + host.stop_seconds + SETTLES
        return True

    def _program(self) -> None:
        host, chance = self._host(), self.world.chance
        program = chance.choice([host.agent, host.watchdog])
        seconds = chance.choice([chance.uniform(1, 20), chance.uniform(20, 200)])
        if not self._may_impair(host, seconds):
            return
        self.world.happened(f"the {program.name} is stopped")
        if chance.random() < 0.5:
            program.pause()
            undo = self._goes_on
        else:
            self.kill(host, program)
            undo = self._restart
        host.guard_if_watchdog_is_silent()
        self._until(seconds, undo, host, program)

    def _watchdog_at_the_end(self) -> None:
        """Cut off, and its watchdog hangs as the lease ends or while it stops what is live: what the time for stopping
        is there for."""
        self._hang_at_the_end(self._host())

    def _hang_at_the_end(self, host: Host) -> None:
        if host.lease is None or (left := host.lease.left(host.moment()) / host.clock.rate) < 1:
            return
        if not self._may_impair(host, left + 100):
            return
        self.portal.network.sever(host.id, UP | DOWN)
        self._until(left + 200, self.portal.network.heal, host.id)
        stopping = self.world.chance.choice([0.0, 0.0, self.world.chance.uniform(1, host.stop_seconds - 10)])
        self.world.after(left + stopping - 1e-3, self._hang, host, 100.0)

    def _hang(self, host: Host, seconds: float) -> None:
        if not self.over and host.watchdog.up:
            self.world.happened("the watchdog hangs as the lease ends")
            host.watchdog.pause()
            host.guard_if_watchdog_is_silent()
            self._until(seconds, self._goes_on, host, host.watchdog)

    def kill(self, host: Host, program: Program) -> None:
        program.die()
        if program is host.watchdog:
            for terminal in host.live():
                if terminal.tied:
                    host.gone(terminal)
        else:
            host.nonces.clear()

    def _goes_on(self, host: Host, program: Program) -> None:
        if host.powered and program.up:
            program.goes_on()

    def _restart(self, host: Host, program: Program) -> None:
        if host.powered and not program.up:
            program.begin()
            self.world.note("host %s: its %s is there again", host.id, program.name)
            if program is host.agent:
                host.begin()
            else:
                host.arm()

    def _power_off(self, host: Host) -> bool:
        if not self._may_impair(host, 0.0):
            return False
        host.powered = False
        self.world.note("host %s has no power", host.id)
        self.kill(host, host.watchdog)
        self.kill(host, host.agent)
        for clone in host.clones.values():
            if clone.process is not None:
                host.gone(clone.process)
        return True

    def _reboot(self, off: float = 0.0) -> None:
        host = self._host()
        if self._power_off(host):
            self.world.happened("a host reboots")
            self._until(self.world.chance.uniform(5, 90), self._power_on, host, off)

    def _reboot_with_bad_clock(self) -> None:
        self._reboot(off=-self.world.chance.choice([60.0, HOUR, 24 * HOUR]))

    def _power_on(self, host: Host, off: float) -> None:
        host.powered = True
        host.clock.boot(self.world.t)
        host.clock.set_by(off)
        self.world.note("host %s boots, its clock off by %s s", host.id, off)
        for program in (host.watchdog, host.agent):
            program.begin()
        host.begin()

    def _dies_for_good(self) -> None:
        if self._power_off(self._host()):
            self.world.happened("a host dies for good")

    def _set_wall(self, host: Host | None = None) -> None:
        host = host or self._host()
        by = self.world.chance.choice([-24 * HOUR, -HOUR, -60.0, -5.0, 5.0, HOUR])
        if by < 0 and not host.clock.counts_sleep:
            return  # the one clock that it can go by
        self.world.happened("a host's clock is set")
        self.world.note("host %s: its clock is set by %s s", host.id, by)
        host.clock.set_by(by)
        host.arm()

    def _sleep(self, host: Host | None = None) -> None:
        """Asleep, but not past the end of its lease: that is the whole machine frozen."""
        host, chance = host or self._host(), self.world.chance
        left = host.lease.left(host.moment()) if host.lease is not None else 0.0
        seconds = min(chance.uniform(5, 100), left / host.clock.rate - 1.0)
        if seconds < 2 or not self._may_impair(host, seconds):
            return
        self.world.happened("a host sleeps")
        self.world.note("host %s sleeps for %.1f s", host.id, seconds)
        host.asleep = True
        self.world.after(seconds, self._wake, host, seconds)

    def _wake(self, host: Host, seconds: float) -> None:
        host.asleep = False
        host.clock.sleep(seconds)
        host.arm()
        for program in (host.watchdog, host.agent):
            if not program.paused:
                program.goes_on()

    def _crash(self) -> None:
        host = self._host()
        running = [clone.process for clone in host.clones.values() if clone.process is not None]
        if running:
            host.gone(self.world.chance.choice(running))
