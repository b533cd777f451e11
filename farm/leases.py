"""The portal's side of leases: which rules are set, who is granted one, and until when staff hold all of them.

A lease is committed (``fenced_until``) before it is sent, and only while ``lost_at`` is empty: who gives a host up sets
that for the ``fenced_until`` that it read, so of a grant and a loss at the same moment only one can be. The host counts
from when it *sent* the request that a grant answers, so what the way of either takes makes its lease shorter only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from nacl.signing import SigningKey

from farm import clock, errors, fencing, orders
from farm.agent import protocol
from farm.agent.protocol import LeaseGrant, LeaseRequest
from farm.models import Host, HostEvent, Watch

DRIFT_TOO_SMALL = (
    "DRIFT_SECONDS is not more than two clocks may drift apart in the longest lease. Raise it, or lower "
    "HOLD_LEASES_MOST_HOURS: else an account could run twice."
)


def rules() -> fencing.Rules:
    return fencing.Rules(
        lease=settings.LEASE_SECONDS,
        suspect=settings.SURVEY_FRESH_SECONDS,
        move=settings.MOVE_SECONDS,
        drift=settings.DRIFT_SECONDS,
        grace=settings.BRAKE_GRACE_SECONDS,
        brake_hosts=settings.BRAKE_HOSTS,
        brake_window=settings.BRAKE_WINDOW_SECONDS,
    )


def facts(host: Host) -> fencing.HostFacts:
    return fencing.HostFacts(
        id=host.pk,
        fenced=host.policy == Host.Policy.FENCED and host.said_policy == Host.Policy.FENCED,
        surveyed_at=host.surveyed_at,
        fenced_until=host.fenced_until,
        stop_seconds=host.stop_seconds,
        lost=host.lost_at is not None,
    )


# --- two clocks -------------------------------------------------------------------------------------------------------


def clocks() -> tuple[datetime, datetime]:
    """This machine's time and the database's, which all of the portal's machines share."""
    ours = clock.now()
    if connection.vendor != "postgresql":
        return ours, ours
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return ours, clock.shifted(cursor.fetchone()[0])


def later_now() -> datetime:
    """What a lease is reckoned from: it must not look over to us before it is."""
    return max(clocks())


def earlier_now() -> datetime:
    """What is compared with the end of a fence. A machine of ours whose clock is ahead gives nobody up too early."""
    return min(clocks())


# --- granting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Letter:
    """A grant that is committed and ready for the broker."""

    queue: str
    envelope: protocol.Envelope


@dataclass(frozen=True)
class Granted:
    letters: list[Letter]
    busy: list[Mapping[str, Any]]
    """Requests of hosts whose row somebody else just held: to be put before the next."""


@dataclass(frozen=True)
class _Asked:
    host: Host
    request: LeaseRequest
    envelope: Mapping[str, Any]


def grant(envelopes: Iterable[Mapping[str, Any]]) -> Granted:
    """Commit a lease for every host that asks and may have one; what is returned may then be sent.

    A constant number of statements, however many ask. Nobody's row is waited for: one host's must not keep all others
    from their leases. Must not be called within a transaction. Raise :class:`errors.KeysMissing` without the signing
    key. A request that is forged is noted and left out.
    """
    key = orders.signing_key()
    asked = _newest(envelopes)
    if not asked:
        return Granted([], [])
    with transaction.atomic(durable=True):
        rows = Host.objects.select_for_update(skip_locked=True, no_key=True).filter(
            pk__in=asked, lost_at__isnull=True, policy=Host.Policy.FENCED
        )
        free = list(rows.exclude(state=Host.State.RETIRED).order_by("pk"))
        both = clocks()
        now, earlier, restored = max(both), min(both), _restored_at()
        hosts = [host for host in free if not why_wait(host, asked[host.pk].request.boot_id, earlier, restored)]
        letters = [_letter(host, asked[host.pk].request, now, key=key) for host in hosts]
        Host.objects.bulk_update(hosts, ["fenced_until", "stop_seconds", "asked_at", "lease_boot"])
    seen = {host.pk for host in free}
    return Granted(letters, [one.envelope for pk, one in asked.items() if pk not in seen])


def why_wait(host: Host, boot_id: str, now: datetime, restored_at: datetime | None) -> str:
    """Why a host in good standing gets no lease yet; "" if it may have one. ``now`` is :func:`earlier_now`.

    Another boot than the one that has a lease may be the machine started anew, or a second machine with its name and
    keys, made from an image: which of them cannot be told, so it waits until what the first one ran is surely gone.
    After a restore, what the rows say of a host may be older than what became of it: whoever has a lease keeps it, for
    it runs what it runs; a host without one would start what may run elsewhere by now.
    """
    if host.lease_boot not in {"", boot_id} and not is_past(host, now):
        return "it was started anew, and has to wait until the lease of before is surely over"
    if restored_at is not None and not _kept_its_lease(host, since=restored_at):
        return "the database was restored, and it has had no lease since: it gets one when the brake is released"
    return ""


def _restored_at() -> datetime | None:
    return Watch.objects.filter(pk=1).values_list("restored_at", flat=True).first()


def _kept_its_lease(host: Host, *, since: datetime) -> bool:
    left = host.load.get("lease_left")
    heard = host.surveyed_at is not None and host.surveyed_at >= since
    return heard and isinstance(left, int | float) and left > 0


def _newest(envelopes: Iterable[Mapping[str, Any]]) -> dict[int, _Asked]:
    """By host: the newest request that was made lately, of those that may have a lease."""
    newest: dict[int, _Asked] = {}
    for host, body, envelope in orders.opened_all(envelopes):
        try:
            request = LeaseRequest.parse(body)
        except protocol.ProtocolError as error:
            why = f"{host.name} asks for a lease in words that are none: {error}"
            orders.note_forged(errors.Untrusted(why, host=host.name))
            continue
        if not _may_have(host) or _is_old(host, request):
            continue
        known = newest.get(host.pk)
        if known is None or known.request.sent_at <= request.sent_at:
            newest[host.pk] = _Asked(host, request, envelope)
    return newest


def _may_have(host: Host) -> bool:
    """As in :func:`grant`, which asks again with the row locked."""
    return host.lost_at is None and host.policy == Host.Policy.FENCED and host.state != Host.State.RETIRED


def _is_old(host: Host, request: LeaseRequest) -> bool:
    """Whether its lease would be over already. A host's clock may be hours off: its last survey shows by how much.

    It is of no use to the host then; but whoever plays an old one again would put off the end of a dead host's fence.
    """
    if host.surveyed_at is None or host.survey_sent_at is None:
        return False
    sent = host.surveyed_at.timestamp() + (request.sent_at - host.survey_sent_at.timestamp())
    return clock.now().timestamp() - sent > settings.LEASE_SECONDS


def _letter(host: Host, request: LeaseRequest, now: datetime, *, key: SigningKey) -> Letter:
    """Write into ``host`` (not saved yet) that it is granted a lease from ``now`` on, and make the grant."""
    until = fencing.lease_ends(now, lease=settings.LEASE_SECONDS, held_until=held_until(host, now))
    host.fenced_until, host.stop_seconds = fencing.extended(
        host.fenced_until, host.stop_seconds, until=until, stop_seconds=request.stop_seconds
    )
    host.asked_at, host.lease_boot = now, request.boot_id[:64]
    seconds = (until - now).total_seconds()
    given = LeaseGrant(host=host.name, nonce=request.nonce, boot_id=request.boot_id, seconds=seconds)
    return Letter(protocol.lease_queue(host.name), protocol.sign(given, key))


def held_until(host: Host, now: datetime) -> datetime | None:
    """Until when staff hold its leases.

    At most the longest that DRIFT_SECONDS was checked for, whatever became of our clock meanwhile.
    """
    if host.leases_held_until is None:
        return None
    return min(host.leases_held_until, now + longest_hold())


def longest_hold() -> timedelta:
    return timedelta(hours=min(settings.HOLD_LEASES_MOST_HOURS, protocol.MOST_LEASE_SECONDS / 3600))


def drift_is_covered() -> bool:
    """Whether DRIFT_SECONDS is more than clocks may drift apart in the longest lease that is ever granted."""
    return fencing.drift_covers(settings.DRIFT_SECONDS, longest_lease=longest_lease())


def longest_lease() -> float:
    """Seconds that a lease can last at most, held ones included."""
    return max(longest_hold().total_seconds(), settings.LEASE_SECONDS)


# --- holding all of them, for a maintenance of ours -------------------------------------------------------------------


@transaction.atomic
def hold(hosts: Iterable[Host], *, span: timedelta, who: str) -> datetime:
    """Have every lease that is granted from now on last until then; return when. ``Refused`` if that is too long.

    Until then, and a little longer, such a host cannot be given up, whatever becomes of it.
    """
    if span > longest_hold():
        raise errors.Refused(f"Leases are held for at most {longest_hold().total_seconds() / 3600:g} hours.")
    until = clock.now() + span
    _hold(hosts, until, what="leases held", why=f"until {until:%Y-%m-%d %H:%M} UTC", who=who)
    return until


@transaction.atomic
def end_hold(hosts: Iterable[Host], *, who: str) -> None:
    """Grant leases of the usual length again. Those that were granted stay what they are."""
    _hold(hosts, None, what="leases no longer held", why="", who=who)


def _hold(hosts: Iterable[Host], until: datetime | None, *, what: str, why: str, who: str) -> None:
    numbers = [host.pk for host in hosts]
    Host.objects.filter(pk__in=numbers).update(leases_held_until=until)
    HostEvent.objects.bulk_create(HostEvent(host_id=pk, what=what, why=why, who=who[:64]) for pk in numbers)


def is_past(host: Host, now: datetime) -> bool:
    """Whether all leases that it was ever granted are surely over, and what ran under them is gone."""
    if host.fenced_until is None:
        return True
    return now >= fencing.fence_ends(host.fenced_until, stop_seconds=host.stop_seconds, drift=settings.DRIFT_SECONDS)


def given_up_from(host: Host) -> datetime | None:
    """From when on it may be given up, should it fall silent now; None if no lease says so."""
    if host.fenced_until is None or not facts(host).fenced:
        return None
    return fencing.fence_ends(
        max(host.fenced_until, held_until(host, clock.now()) or host.fenced_until),
        stop_seconds=host.stop_seconds,
        drift=settings.DRIFT_SECONDS,
    )


def why_no_lease(host: Host) -> str:
    """Why it would not be granted one, for people; "" if it would, as soon as it asks."""
    if host.state == Host.State.RETIRED:
        return "it is retired"
    if host.lost_at is not None:
        return "it was given up"
    if host.policy != Host.Policy.FENCED:
        return "its policy is static: its terminals run without a lease"
    if host.said_policy and host.said_policy != Host.Policy.FENCED:
        return "it is to be fenced, but says that it runs without a lease"
    if host.surveyed_at is None:
        return "it was never heard"
    if fencing.dark_since(facts(host), clock.now(), rules()) is not None:
        return f"it was last heard at {host.surveyed_at:%H:%M:%S} UTC"
    return why_wait(host, host.boot_id or host.lease_boot, earlier_now(), _restored_at())


# --- whether they are granted -----------------------------------------------------------------------------------------


def keeper_seen_at() -> datetime | None:
    """When a keep_leases last showed that it lives."""
    return Watch.objects.filter(pk=1).values_list("leases_seen_at", flat=True).first()


def show_life() -> None:
    """Note that leases are being granted. Whoever watches over the hosts may hold that row: then the next time."""
    Watch.objects.get_or_create(pk=1)
    with transaction.atomic():
        row = Watch.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=1)
        for pk in list(row.values_list("pk", flat=True)):
            Watch.objects.filter(pk=pk).update(leases_seen_at=clock.now())
