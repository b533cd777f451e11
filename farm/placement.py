"""Which host gets the next instance: the most free slots, then the fewest logins of the same broker, then least load.

A host that we have not heard from lately, that is drained or given up, or whose master fails its check gets none. The
index gives the few with the most free slots, and only those are compared any further: it costs the same on a farm of
ten thousand hosts.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, F, Q

from farm import clock
from farm.models import Host, Instance
from farm.states import Status

CANDIDATES = 8
"""So many are tried before the farm counts as full: another signup may take the last slot of the first meanwhile."""


def is_fresh(host: Host) -> bool:
    """Whether the host may be given work: heard from lately, in use, not given up, its master fit."""
    wanted = host.state == Host.State.ONLINE and host.lost_at is None and host.master_ok
    return wanted and host.surveyed_at is not None and host.surveyed_at >= heard_since()


def fresh() -> Q:
    """Hosts that may be given work."""
    return Q(state=Host.State.ONLINE, lost_at__isnull=True, master_ok=True, surveyed_at__gte=heard_since())


def heard_since() -> datetime:
    """Whoever was last heard from before this is silent."""
    return clock.now() - timedelta(seconds=settings.SURVEY_FRESH_SECONDS)


def candidates(*, server_key: str = "", avoid: int | None = None) -> list[Host]:
    """Hosts that may take one more instance, the best first.

    ``server_key``: the broker's server that it logs in to; "" while none is known. ``avoid``: a host that is none.
    """
    room = Host.objects.filter(fresh(), taken__lt=F("slots"))
    if avoid is not None:
        room = room.exclude(pk=avoid)
    hosts = list(room.order_by((F("slots") - F("taken")).desc(), "pk")[:CANDIDATES])
    logins = _logins(hosts, server_key) if server_key and len(hosts) > 1 else {}
    return sorted(hosts, key=lambda host: (host.taken - host.slots, logins.get(host.pk, 0), load_of(host), host.pk))


def _logins(hosts: list[Host], server_key: str) -> dict[int, int]:
    """How many terminals on each of ``hosts`` log in to that server: one host's trouble should not be one broker's."""
    there = Instance.objects.filter(host__in=hosts, seat__server_key=server_key)
    # The condition of the index on host, word for word.
    there = there.filter(~Q(status__in=[Status.WAITING, Status.DESTROYED]))
    return dict(there.order_by().values_list("host_id").annotate(number=Count("pk")))


def load_of(host: Host) -> float:
    """The load of one processor core, 1.0 if all of it is in use; a host that does not say counts as the busiest."""
    cpus, load, percent = (host.load.get(name) for name in ("cpus", "load_1m", "cpu_percent"))
    if isinstance(load, int | float) and isinstance(cpus, int) and cpus > 0:
        return load / cpus
    return percent / 100 if isinstance(percent, int | float) else math.inf
