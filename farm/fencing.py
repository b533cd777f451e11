"""Which hosts are dark, when what they ran may run elsewhere, and when nothing should be moved at all. Pure.

Everything hangs on one inequality, by the portal's clock:

    elsewhere from  >=  granted at + lease + longest stop + drift

A host counts its lease from the moment when it *sent* the request that the grant answers, which is before the grant.
So by a perfect clock its lease is over at ``granted at + lease`` (that is ``fenced_until``, committed before the grant
is sent), its live terminals are gone ``longest stop`` later, and by ``drift`` its clock, and ours, may be wrong.
What the host does with a lease is in farm/agent/lease.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from farm.agent.protocol import MOST_STOP_SECONDS
from farm.states import Status

CLOCK_RATE = 0.0005
"""What a clock that is being set right may gain or lose: 500 ppm, the most that NTP slews by (RFC 5905, section 11)."""

CLOCK_STEP = 2.0
"""A wall clock that gains so many seconds more than the clock since boot was set, and does not merely drift."""

NEVER_RAN = frozenset({Status.WAITING, Status.REQUESTED, Status.CLONING})
"""No terminal of it was started, unless it failed after that and its way up began again: see ``may_move``."""


class Condition(StrEnum):
    """What a host is to us at this moment."""

    ONLINE = "online"
    SUSPECT = "suspect"
    """Not heard from lately: it gets no new work."""
    LOST = "lost"
    DRAINING = "draining"
    RETIRED = "retired"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The settings that decide, in seconds."""

    lease: float
    suspect: float
    move: float
    drift: float
    grace: float
    """So long all must have gone well before the brake lets go."""
    brake_hosts: int
    brake_window: float


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    id: int
    fenced: bool
    """Its policy here, and what it said of itself last, are both ``fenced``."""
    surveyed_at: datetime | None
    fenced_until: datetime | None
    """The end of the longest lease it was ever granted; None: never one."""
    stop_seconds: float
    """The longest that it takes to stop its live terminals, as it says itself."""
    lost: bool = False


def dark_since(host: HostFacts, now: datetime, rules: Rules) -> datetime | None:
    """When the silence began that makes it suspect; None while it speaks, or if it was never heard."""
    if host.surveyed_at is None or now - host.surveyed_at < timedelta(seconds=rules.suspect):
        return None
    return host.surveyed_at


# --- leases -----------------------------------------------------------------------------------------------------------


def lease_ends(now: datetime, *, lease: float, held_until: datetime | None) -> datetime:
    """Until when a lease granted at ``now`` lasts: the usual time, or until what staff hold all leases for."""
    usual = now + timedelta(seconds=lease)
    return usual if held_until is None else max(usual, held_until)


def extended(
    fenced_until: datetime | None, stop_before: float, *, until: datetime, stop_seconds: float
) -> tuple[datetime, float]:
    """``fenced_until`` and ``stop_seconds`` of a host that is granted one more lease, until ``until``.

    The leases of before are still out there: neither a shorter one nor a host that says it stops faster now may bring
    the end of the fence forward, so what the old ones need beyond the new one stays in ``stop_seconds``.
    """
    if fenced_until is None:
        return until, stop_seconds
    latest = max(fenced_until, until)
    ends = max(fenced_until + timedelta(seconds=stop_before), until + timedelta(seconds=stop_seconds))
    return latest, (ends - latest).total_seconds()


def fence_ends(fenced_until: datetime, *, stop_seconds: float, drift: float) -> datetime:
    """From when on what the host ran live is certainly gone. The inequality of this module."""
    return fenced_until + timedelta(seconds=stop_seconds + drift)


def drift_covers(drift: float, *, longest_lease: float, longest_stop: float = MOST_STOP_SECONDS) -> bool:
    """Whether ``drift`` is more than two clocks can come apart within the longest lease and the stop after it."""
    apart = (1 + CLOCK_RATE) / (1 - CLOCK_RATE) - 1
    return drift > apart * (longest_lease + longest_stop)


def clock_step(*, wall: float, since_boot: float) -> float:
    """By how many seconds our clock was set between two looks, so far apart by each clock; 0 if it only drifted."""
    step = wall - since_boot
    return step if abs(step) > CLOCK_STEP else 0.0


def fence_after_step(fenced_until: datetime, *, now: datetime, step: float, longest_lease: float) -> datetime:
    """The same fence by a clock that was set by ``step`` seconds before ``now``.

    Set forward, it would make leases that were granted before look over while they run: one that was held for hours
    too, behind a usual one that was granted since. So every fence moves along, but to no later than any lease can last.
    """
    if step <= 0:
        return fenced_until
    last = max(fenced_until, now + timedelta(seconds=longest_lease))
    return min(fenced_until + timedelta(seconds=step), last)


# --- who may be moved -------------------------------------------------------------------------------------------------


class Move(StrEnum):
    """Whether an instance of a silent host may come up elsewhere now."""

    NOT_YET = "not yet"
    NEVER_RAN = "never ran"
    NO_SEAT = "no seat"


def is_lost(host: HostFacts, now: datetime, rules: Rules) -> bool:
    """Whether a silent host may be given up without asking anybody: its fence is known, and has passed."""
    if host.lost or not host.fenced or host.fenced_until is None or dark_since(host, now, rules) is None:
        return False
    return now >= fence_ends(host.fenced_until, stop_seconds=host.stop_seconds, drift=rules.drift)


def may_move(status: Status, *, ran: bool, has_seat: bool, host: HostFacts, now: datetime, rules: Rules) -> Move:
    """Whether one instance may leave a silent host that is not given up yet. One with a seat stays until that.

    ``ran``: its journal shows that it was once injecting or starting. A failed one that is tried again is requested
    anew while its terminal may still run, so its status alone does not show that it never ran.
    """
    silent = dark_since(host, now, rules)
    if silent is None:
        return Move.NOT_YET
    if status in NEVER_RAN and not ran:
        return Move.NEVER_RAN
    if not has_seat and now - silent >= timedelta(seconds=rules.move):
        return Move.NO_SEAT
    return Move.NOT_YET


# --- the brake --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What one look at the farm shows."""

    now: datetime
    hosts: Sequence[HostFacts]
    """Those that count: neither retired nor lost."""
    trouble: str = ""
    """Our own: why we may have been blind. "" if all is well."""


@dataclass(frozen=True, kw_only=True)
class Brake:
    """While it is on, nothing is given up and nothing is moved off a silent host."""

    why: str = ""
    """"" while it is off."""
    since: datetime | None = None
    hosts: frozenset[int] = frozenset()
    """Whose silence pulled it; it does not let go before they are heard again, are lost, or staff accept it."""
    accepted: frozenset[int] = frozenset()
    """Silent hosts that staff have looked at: until they are heard again they pull it no more."""
    good_since: datetime | None = None
    by_hand: bool = False
    """Pulled by a person, or after a restore: only a person lets go."""

    @property
    def is_on(self) -> bool:
        return bool(self.why)


def braked(brake: Brake, outlook: Outlook, rules: Rules) -> Brake:
    """The brake after one more look."""
    now = outlook.now
    silent = {host.id: since for host in outlook.hosts if (since := dark_since(host, now, rules)) is not None}
    brake = replace(brake, accepted=brake.accepted & silent.keys())
    # While it is on, old silences count as well: after an hour in which nothing was recorded all of them are old.
    counts = {host for host, since in silent.items() if brake.is_on or _is_recent(since, now, rules)}
    new = counts - brake.accepted
    still = brake.hosts & silent.keys() - brake.accepted
    why = outlook.trouble or _why_many(new | still, len(outlook.hosts), rules, already=bool(still))
    if why:
        hosts = frozenset(still if outlook.trouble else new | still)
        since = brake.since if brake.is_on else now
        # What pulled it by hand stays the reason that people read.
        return replace(brake, why=brake.why if brake.by_hand else why, since=since, hosts=hosts, good_since=None)
    if not brake.is_on or brake.by_hand:
        return replace(brake, hosts=frozenset()) if not brake.is_on else brake
    good_since = brake.good_since or now
    if now - good_since >= timedelta(seconds=rules.grace):
        return Brake(accepted=brake.accepted)
    return replace(brake, hosts=frozenset(), good_since=good_since)


def pulled(brake: Brake, why: str, *, now: datetime) -> Brake:
    """The brake pulled by hand."""
    return replace(brake, why=why, since=brake.since if brake.is_on else now, good_since=None, by_hand=True)


def released(outlook: Outlook, rules: Rules) -> Brake:
    """The brake let go by a person, who thereby takes the hosts that are silent now for what they are."""
    silent = (host.id for host in outlook.hosts if dark_since(host, outlook.now, rules) is not None)
    return Brake(accepted=frozenset(silent))


def _is_recent(since: datetime, now: datetime, rules: Rules) -> bool:
    return now - since < timedelta(seconds=rules.suspect + rules.brake_window)


def _why_many(silent: set[int] | frozenset[int], hosts: int, rules: Rules, *, already: bool) -> str:
    """Several hosts at once, or all there are, are more likely a fault of ours, or of the network, than of theirs."""
    number = len(silent)
    many = number >= rules.brake_hosts or (number >= 2 and number * 3 > hosts) or (number == hosts > 0)
    return f"{number} of {hosts} hosts went silent at about the same time" if many or (already and number) else ""
