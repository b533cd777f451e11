"""The loss of one host, from the moment when its fence has passed: a part of benchmarks.fleet.

One portal worker, one task at a time, and the real functions behind every task; the broker is in this process. The
other hosts answer as an agent would, after as long as each verb takes.
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from celery import Celery
from django.conf import settings
from django.db.models import Count, Q

from benchmarks import fleet_world
from farm import clock, fencing, leases, lifecycle
from farm.agent import lease, processes, protocol
from farm.models import Host, Instance, Watch
from farm.states import Connection, Kind, Process, Status, Verb

VERB_SECONDS = {Verb.CLONE: 0.5, Verb.INJECT: 0.05, Verb.START: 3.0}
"""A clone without warm ones and a terminal that logs in: somewhat more than was measured with paper ones."""
AT_ONCE = 8
"""Orders that a host obeys at a time, as `worker --concurrency` has it."""
STOP_SECONDS = lease.longest_stop(30.0, processes.KILL_SECONDS)
GIVE_UP_SECONDS = 120.0
DARK, PORTAL_QUEUE = 1, "portal"


def least_seconds(*, live: bool) -> float:
    """What one terminal takes on a host that has nothing else to do: all may be made at the same time."""
    return sum(seconds for verb, seconds in VERB_SECONDS.items() if live or verb is not Verb.INJECT)


def lose_one(app: Celery, *, hosts: int) -> dict[str, Any]:
    """Let the first host's fence pass now, and go on until all it ran runs elsewhere."""
    farm = _Farm(app, hosts)
    lost = set(Instance.objects.filter(host_id=DARK).values_list("pk", flat=True))
    live = set(Instance.objects.filter(pk__in=lost, kind=Kind.LIVE).values_list("pk", flat=True))
    _darken()
    began, cpu = time.perf_counter(), time.process_time()
    running: dict[int, float] = {}
    while running.keys() != lost:
        farm.turn()
        for replaced in _running(lost - running.keys()):
            running[replaced] = time.perf_counter() - began
        if time.perf_counter() - began > GIVE_UP_SECONDS:
            raise SystemExit(f"{len(lost) - len(running)} of {len(lost)} do not run after {GIVE_UP_SECONDS:g} s")
    cpu = time.process_time() - cpu
    return {
        "instances": len(lost),
        "on_hosts": _spread(lost),
        "live_seconds": round(max(running[pk] for pk in live), 2),
        "all_seconds": round(max(running.values()), 2),
        "least_seconds": least_seconds(live=True),
        "orders": farm.orders,
        "portal_cpu_seconds": round(cpu, 2),
        "look_seconds": settings.WATCH_SECONDS,
        "fence_seconds": settings.LEASE_SECONDS + STOP_SECONDS + settings.DRIFT_SECONDS,
    }


def _darken() -> None:
    """As it is when nobody has heard of the host since its last lease: the fence ends at this moment."""
    now, rules = clock.now(), leases.rules()
    ends = fencing.fence_ends(now, stop_seconds=STOP_SECONDS, drift=rules.drift)
    fenced_until = now - (ends - now)
    heard = fenced_until - timedelta(seconds=rules.lease)
    Host.objects.filter(pk=DARK).update(surveyed_at=heard, fenced_until=fenced_until, stop_seconds=STOP_SECONDS)
    looked = {"looked_at": now - timedelta(seconds=settings.WATCH_SECONDS), "looked_boot": clock.boot()}
    since_boot = clock.since_boot() - settings.WATCH_SECONDS
    Watch.objects.update_or_create(pk=1, defaults={**looked, "looked_since_boot": since_boot, "brake_why": ""})


def _running(lost: set[int]) -> Iterator[int]:
    """Those of ``lost`` whose customer has one that runs elsewhere: their number is their customer's."""
    up = Instance.objects.filter(customer_id__in=lost, status=Status.RUNNING, connection__in=_WELL).exclude(
        host_id=DARK
    )
    yield from up.filter(Q(kind=Kind.PRESS_PASS) | Q(proven_at__isnull=False)).values_list("customer_id", flat=True)


_WELL = (Connection.CONNECTED, Connection.NO_ACCOUNT)


def _spread(lost: set[int]) -> int:
    found = Instance.objects.filter(customer_id__in=lost, status=Status.RUNNING).aggregate(
        n=Count("host", distinct=True)
    )
    return int(found["n"])


@dataclass
class _Farm:
    """The portal's worker, its clockwork, and the hosts that still answer."""

    app: Celery
    hosts: int
    orders: int = 0
    _due: list[tuple[float, int, int, protocol.Order]] = field(default_factory=list)
    _queued: dict[int, deque[protocol.Order]] = field(default_factory=lambda: defaultdict(deque))
    _busy: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _next: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._channel = self.app.connection_for_read().channel()
        self._by_name = {f"bench{number}": number for number in range(1, self.hosts + 1)}

    def turn(self) -> None:
        """Do what is due at this moment; rest a little if nothing is."""
        did = self._clockwork()
        did |= self._portal_task()
        did |= self._take_orders()
        did |= self._answer()
        if not did:
            time.sleep(0.002)

    def _clockwork(self) -> bool:
        now = time.perf_counter()
        every = {"farm.watch_hosts": settings.WATCH_SECONDS, "farm.sweep": settings.SWEEP_SECONDS}
        due = [name for name in every if self._next.get(name, 0.0) <= now]
        for name in due:
            self._next[name] = now + every[name]
            self.app.tasks[name]()
        if due:
            Host.objects.exclude(pk=DARK).update(surveyed_at=clock.now())
        return bool(due)

    def _portal_task(self) -> bool:
        message = self._channel.basic_get(PORTAL_QUEUE, no_ack=True)
        if message is None:
            return False
        arguments, *_ = message.payload
        self.app.tasks[message.headers["task"]](*arguments)
        return True

    def _take_orders(self) -> bool:
        took = False
        for name, number in self._by_name.items():
            while (message := self._channel.basic_get(protocol.host_queue(name), no_ack=True)) is not None:
                if number == DARK:
                    continue
                order = protocol.Order.parse(message.payload[0][0]["body"])
                self._queued[number].append(order)
                self.orders += 1
                took = True
            self._begin(number)
        return took

    def _begin(self, number: int) -> None:
        while self._queued[number] and self._busy[number] < AT_ONCE:
            order = self._queued[number].popleft()
            self._busy[number] += 1
            at = time.perf_counter() + VERB_SECONDS[order.verb]
            heapq.heappush(self._due, (at, order.instance, number, order))

    def _answer(self) -> bool:
        if not self._due or self._due[0][0] > time.perf_counter():
            return False
        _, _, number, order = heapq.heappop(self._due)
        self._busy[number] -= 1
        lifecycle.record(protocol.sign(_done(order), fleet_world.signing_key(number)))
        return True


def _done(order: protocol.Order) -> protocol.Report:
    started, live = order.verb is Verb.START, order.login is not None
    seen: dict[str, Any] = {}
    if started:
        now = clock.now().timestamp()
        connection = Connection.CONNECTED if live else Connection.NO_ACCOUNT
        seen = {"process": Process.RUNNING, "connection": connection, "synchronized": True, "trading": live or None}
        if live:
            beat = {"at": now, "login": order.login, "server": order.server, **fleet_world.facts(order.instance)}
            seen["heartbeat"] = beat
    observed = protocol.Observation(
        instance=order.instance,
        folder=order.folder,
        present=True,
        epoch=order.epoch,
        generation=order.generation,
        **{"process": Process.STOPPED, **seen},
    )
    return protocol.Report(
        host=order.host,
        instance=order.instance,
        epoch=order.epoch,
        generation=order.generation,
        verb=order.verb,
        outcome=protocol.Outcome.DONE,
        sent_at=clock.now().timestamp(),
        observed=observed,
    )
