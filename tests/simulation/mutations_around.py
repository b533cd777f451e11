"""Faults planted into what the simulation's portal and hosts do around the real functions: see mutations."""

from __future__ import annotations

from unittest.mock import patch

from farm import fencing
from farm.states import Goal, Status
from tests.simulation import hosts
from tests.simulation.going import Going
from tests.simulation.hosts import Host
from tests.simulation.keepers import Keeper
from tests.simulation.mutations import MUTATIONS, Both, planted
from tests.simulation.portal import Portal
from tests.simulation.watching import Watcher

__all__ = ["MUTATIONS"]
"""All of them, once these are planted too."""


@planted("the agent leaves the end of the lease to the watchdog alone")
def _alone():
    return patch.object(hosts, "GUARD_SECONDS", 1e9)


@planted("the agent does not mind a silent watchdog")
def _unguarded():
    return Both(patch.object(Host, "_guard", lambda self, life: None), _alone())


@planted("the watchdog starts live terminals without a lease")
def _unleased():
    return patch.object(Host, "may_run", lambda self, clone: True)


@planted("a lost host is given leases")
def _lost_leased():
    return patch.object(Keeper, "_may_have", lambda self, host: not host.retired and host.fenced)


@planted("a lease is sent before it is committed")
def _sent_first():
    def commit(self, request, now):
        host = self.portal.db.hosts[request.host]
        if self._may_have(host):
            ends = fencing.lease_ends(now, lease=self.portal.plan.rules.lease, held_until=host.held_until)
            self._send(request, (ends - now).total_seconds())
            self._later(self.fence_after, request, host, ends, now)

    def fence_after(self, request, host, ends, now):
        self._fence(host, ends, request, now)

    return Both(
        patch.object(Keeper, "_commit", commit),
        patch.object(Keeper, "fence_after", fence_after, create=True),
        patch.object(Keeper, "_second", property(lambda self: self.fence_after)),
    )


@planted("a host is given up whatever came since it was read")
def _blind():
    return patch.object(Watcher, "_is_as_read", lambda self, host, as_read: True)


@planted("what a returned host has goes on there")
def _resumed():
    def back(self, row):
        self.portal.db.move(row, Status.RUNNING, "it is back", now=self.portal.now(), goal=Goal.RUNNING)

    return patch.object(Watcher, "_return", back)


@planted("a host is back as soon as it speaks")
def _back_at_once():
    real = Watcher._destroy_what_returned

    def back(self):
        for host in self.portal.db.hosts.values():
            if self.portal.is_fresh(host) and not host.retired:
                host.lost_at = None
        real(self)

    return patch.object(Watcher, "_destroy_what_returned", back)


@planted("the seat does not wait for the old terminal to stop")
def _seat_early():
    return Both(
        patch.object(Going, "_hands_over", lambda self, holder, row: True),
        patch.object(Going, "_begin", lambda self, row: self.proceed(row)),
    )


@planted("granted by the earlier clock and given up by the later")
def _clocks():
    earlier, later = Portal.earlier_now, Portal.later_now
    return Both(patch.object(Portal, "later_now", earlier), patch.object(Portal, "earlier_now", later))


@planted("late answers to older orders count")
def _late():
    real = Portal.take_report

    def take(self, report):
        row = self.db.open.get(report.order.instance)
        if row is not None:
            report.order.generation = row.generation
        real(self, report)

    return patch.object(Portal, "take_report", take)


@planted("a host whose clock was set back is not heard before its old time comes again")
def _deaf():
    def is_older(self, host, survey):
        return host.sent_at is not None and survey.sent_at <= host.sent_at

    return patch.object(Portal, "_is_older", is_older)
