"""Who grants leases: two processes that need the database and the broker alone, as ``manage.py keep_leases``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from farm import fencing
from tests.simulation.messages import Grant, Request
from tests.simulation.network import DOWN
from tests.simulation.rows import HostRow

if TYPE_CHECKING:
    from tests.simulation.portal import Portal


class Keeper:
    def __init__(self, portal: Portal, name: str):
        self.portal, self.world, self.name = portal, portal.world, name
        self.up, self.life, self.slow = True, 1, 0.0
        """``slow``: so many seconds at most between any two of its steps."""
        self.when_between: Callable[[Request], None] | None = None
        """What befalls it instead of the last step of granting a lease."""

    @property
    def _second(self) -> Callable:
        return self._send

    def _later(self, act, *args) -> None:
        if self.when_between is not None and act == self._second:
            befalls, self.when_between = self.when_between, None
            befalls(args[0])
        elif not self.slow:
            act(*args)
        else:
            self.world.after(self.world.chance.uniform(0, self.slow), self._do, self.life, act, args)

    def _do(self, life: int, act, args: tuple) -> None:
        if life == self.life:
            act(*args)

    def die(self) -> None:
        self.up, self.life = False, self.life + 1

    def take(self, request: Request) -> None:
        self._later(self._commit, request, self.portal.later_now())

    def _commit(self, request: Request, now: datetime) -> None:
        """One statement: the row that gives a lease is the row that is given up."""
        host = self.portal.db.hosts[request.host]
        if not self._may_have(host) or self._is_old(host, request, now):
            self.world.happened("a lease is refused")
            return
        ends = fencing.lease_ends(now, lease=self.portal.plan.rules.lease, held_until=host.held_until)
        self._fence(host, ends, request, now)
        self._later(self._send, request, (ends - now).total_seconds())

    def _may_have(self, host: HostRow) -> bool:
        if host.lost_at is not None or host.retired or not host.fenced:
            return False
        watch = self.portal.db.watch
        # After a restore nobody knows what was given up meanwhile: only who still has a lease surely was not.
        return watch.restored_at is None or (host.lease_left or 0) > 0

    def _is_old(self, host: HostRow, request: Request, now: datetime) -> bool:
        """Whether its lease would be over already, by what its last survey showed of its clock."""
        if host.surveyed_at is None or host.sent_at is None:
            return False
        since = (now - host.surveyed_at).total_seconds() - (request.sent_at - host.sent_at)
        return since > self.portal.plan.rules.lease

    def _fence(self, host: HostRow, ends: datetime, request: Request, now: datetime) -> None:
        host.fenced_until, host.stop_seconds = fencing.extended(
            host.fenced_until, host.stop_seconds, until=ends, stop_seconds=request.stop_seconds
        )
        host.asked_at = now

    def _send(self, request: Request, seconds: float) -> None:
        self.world.count["a lease is granted"] += 1
        host = self.portal.machines[request.host]
        self.portal.network.send(request.host, DOWN, host.take_grant, Grant(request.nonce, seconds))
