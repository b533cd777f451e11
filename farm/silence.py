"""When what ran on a host that we do not hear from comes up elsewhere, for the pages that tell of it. Decides nothing.

Who decides is the watch over the hosts (farm.lifecycle), by the same functions of farm.fencing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from farm import clock, fencing, leases
from farm.models import Host, Instance, Seat, Watch
from farm.states import Status

RAN = (Status.INJECTING, Status.STARTING)


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What comes of an instance if its host stays silent."""

    elsewhere_at: datetime | None
    """From then on it may come up on another host; None: not before a person has made sure that the machine is off."""
    brake: str
    """Why nothing is moved at all now; "" while the brake is off."""


def outlook(row: Instance) -> Outlook | None:
    """None while its host speaks, and for a row without one. A few small queries, for a silent host alone."""
    host, rules = row.host, leases.rules()
    since = fencing.dark_since(leases.facts(host), clock.now(), rules) if host is not None else None
    if host is None or since is None:
        return None
    if row.status in fencing.NEVER_RAN and not row.transitions.filter(became__in=RAN).exists():
        at: datetime | None = since + timedelta(seconds=rules.suspect)
    elif row.account_id is None and not Seat.objects.filter(instance=row).exists():
        at = since + timedelta(seconds=rules.move)
    else:
        at = fenced_off_at(host)
    return Outlook(elsewhere_at=at, brake=brake_why())


def fenced_off_at(host: Host) -> datetime | None:
    """From when on a host may be given up, if it stays silent, without asking anybody; None: only by a person."""
    facts = leases.facts(host)
    if not facts.fenced or facts.fenced_until is None:
        return None
    return fencing.fence_ends(facts.fenced_until, stop_seconds=facts.stop_seconds, drift=leases.rules().drift)


def brake_why() -> str:
    return Watch.objects.filter(pk=1).values_list("brake_why", flat=True).first() or ""
