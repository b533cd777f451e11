"""What a survey shows and no row accounts for: left alone, shown to staff, destroyed only when that is surely right.

An orphan is a line about an instance that has no row on that host, or a folder that the host itself knows nothing of.
It comes of a restored database, a machine put back from an image, somebody's copy. While it stands there, nobody else
is given the account that it may run (farm.vault). It is destroyed by itself only after a long while, and only if its
host knows what it is and its terminal surely has nothing open; staff may ask for it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from farm import clock, doorbell, errors, orders, placement, vault
from farm.agent import protocol
from farm.agent.protocol import Connection, Observation, Process, Survey
from farm.models import Host, HostEvent, Instance, Orphan, Watch
from farm.states import Status

SETTLES = timedelta(seconds=60)
"""A survey that was made before a destroy, and read after it, still shows what is gone."""
SEEN_RESOLUTION = timedelta(seconds=15)
BEAT_FRESH = timedelta(seconds=60)
"""A heartbeat this young tells what is open now; what is stored of it may be SEEN_RESOLUTION and a survey older."""
ORDERED_AGAIN = timedelta(minutes=5)
BATCH = 50

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """One thing that a survey shows and no row accounts for."""

    folder: str
    instance_number: int | None = None
    generation: int = 0
    server_key: str = ""
    login: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, Any]:
        return {
            "instance_number": self.instance_number,
            "generation": self.generation,
            "server_key": self.server_key,
            "login": self.login,
            "facts": self.facts,
        }


# --- seen -------------------------------------------------------------------------------------------------------------


def note(host: Host, survey: Survey, rows: Sequence[Instance], *, sent: datetime) -> None:
    """Keep the orphans of ``host`` as its survey shows them. ``rows``: what should be there.

    One statement where there are none, and were none.
    """
    seen = {sighting.folder: sighting for sighting in _sightings(host, survey, rows, sent=sent)}
    known = {orphan.folder: orphan for orphan in Orphan.objects.filter(host=host, gone_at__isnull=True)}
    _begin([sighting for folder, sighting in seen.items() if folder not in known], host)
    _go_on([(orphan, seen[folder]) for folder, orphan in known.items() if folder in seen])
    gone = [orphan.pk for folder, orphan in known.items() if folder not in seen]
    if gone:
        Orphan.objects.filter(pk__in=gone).update(gone_at=clock.now())


def _sightings(host: Host, survey: Survey, rows: Sequence[Instance], *, sent: datetime) -> Iterable[Sighting]:
    there = {row.pk: row for row in rows}
    lines = [line for line in survey.instances if not _accounts_for(there.get(line.instance), line) and _stands(line)]
    others = Instance.objects.select_related("account").in_bulk([line.instance for line in lines]) if lines else {}
    for line in lines:
        row = others.get(line.instance)
        if row is None or not _excuses(row, line, host, sent=sent):
            yield _of_line(line, row, host)
    folders = {row.folder for row in rows} | {protocol.unreadable_state(pk) for pk in there}
    for name in survey.strangers:
        # A clone that was made while the survey was, too, is a stranger to it.
        if name not in folders:
            yield Sighting(folder=str(name)[:200])


def _accounts_for(row: Instance | None, line: Observation) -> bool:
    return row is not None and row.folder == line.folder


def _stands(line: Observation) -> bool:
    """A host that merely remembers one, with neither folder nor process, has nothing of it."""
    return line.present or line.process is not Process.STOPPED


def _excuses(row: Instance, line: Observation, host: Host, *, sent: datetime) -> bool:
    """Whether the line is only late, or early, by what ``row`` says: it waits there, or is just gone from there."""
    if row.host_id != host.pk or not _accounts_for(row, line):
        return False
    return row.status == Status.WAITING or min(sent, clock.now()) - row.status_since < SETTLES


def _of_line(line: Observation, row: Instance | None, host: Host) -> Sighting:
    """``row`` is the instance of that number, if there is one: gone, or on another host, or another one's by now."""
    account = row.account if row is not None and _accounts_for(row, line) else None
    server, login = (account.server, account.login) if account is not None else (line.server, line.login)
    # A number that a row of this very host has means that row to the host as well: no order may go out under it.
    is_its_own = row is None or row.host_id != host.pk or row.status == Status.DESTROYED
    return Sighting(
        folder=line.folder[:200],
        instance_number=line.instance if is_its_own else None,
        generation=line.generation,
        server_key=vault.server_key(server)[:64],
        login=login,
        facts=_facts(line),
    )


def _facts(line: Observation) -> dict[str, Any]:
    """What staff are shown of it, and what an order to destroy it hangs on."""
    beat: Mapping[str, Any] = line.heartbeat if isinstance(line.heartbeat, Mapping) else {}
    at = beat.get("at")
    return {
        "kind": line.kind,
        "process": line.process.value,
        "connection": line.connection.value,
        "positions": beat.get("positions"),
        "orders": beat.get("orders"),
        "beat_at": min(at, clock.now().timestamp()) if isinstance(at, int | float) else None,
    }


def _begin(sightings: Sequence[Sighting], host: Host) -> None:
    if not sightings:
        return
    now = clock.now()
    Orphan.objects.bulk_create(
        [Orphan(host=host, folder=one.folder, first_seen_at=now, last_seen_at=now, **one.columns) for one in sightings],
        ignore_conflicts=True,  # of two surveys at the same moment one is the first to see it
    )
    HostEvent.objects.bulk_create(
        HostEvent(host=host, at=now, what="orphan", why=f"{one.folder} stands there, and no row accounts for it"[:200],
                  who="survey")
        for one in sightings
    )  # fmt: skip


def _go_on(pairs: Iterable[tuple[Orphan, Sighting]]) -> None:
    now = clock.now()
    changed = []
    for orphan, sighting in pairs:
        columns = sighting.columns
        if _is_as_before(orphan, columns) and now - orphan.last_seen_at < SEEN_RESOLUTION:
            continue
        for name, value in columns.items():
            setattr(orphan, name, value)
        orphan.last_seen_at = now
        changed.append(orphan)
    names = ["instance_number", "generation", "server_key", "login", "facts", "last_seen_at"]
    Orphan.objects.bulk_update(changed, names, batch_size=200)


def _is_as_before(orphan: Orphan, columns: Mapping[str, Any]) -> bool:
    """Whether nothing changed but how young its heartbeat is."""
    was = {name: getattr(orphan, name) for name in columns} | {"facts": _without_age(orphan.facts)}
    return was == {**columns, "facts": _without_age(columns["facts"])}


def _without_age(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "beat_at"}


# --- destroyed --------------------------------------------------------------------------------------------------------


def may_be_ordered(orphan: Orphan) -> bool:
    """Whether its host would know which one is meant."""
    return orphan.gone_at is None and orphan.instance_number is not None


def is_surely_flat(orphan: Orphan, now: datetime) -> bool:
    """Whether its terminal surely has nothing open: it has no account, or its EA has just said so."""
    facts = orphan.facts
    if now - orphan.last_seen_at > BEAT_FRESH:
        return False
    if facts.get("connection") == Connection.NO_ACCOUNT:
        return True
    at = facts.get("beat_at")
    fresh = isinstance(at, int | float) and now - datetime.fromtimestamp(at, UTC) <= BEAT_FRESH
    return fresh and facts.get("positions") == 0 and facts.get("orders") == 0


def destroy_orphan(orphan_id: int, *, who: str) -> None:
    """Staff want it gone now. Raise :class:`errors.Refused` if its host would not know which one is meant."""
    with transaction.atomic():
        orphan = Orphan.objects.select_for_update(no_key=True).get(pk=orphan_id)
        if orphan.gone_at is not None:
            raise errors.Refused("It is gone already.")
        if not may_be_ordered(orphan):
            raise errors.Refused("Its host does not know what it is: see to it on the machine itself.")
        Orphan.objects.filter(pk=orphan.pk).update(asked_by=who, ordered_at=None)
        why = f"{orphan.folder}, which no row accounts for, is to be destroyed"
        HostEvent.objects.create(host_id=orphan.host_id, what="orphan", why=why[:200], who=who)
        doorbell.ring_on_commit(doorbell.DESTROY_ORPHAN, orphan.pk)


def sweep_orphans() -> list[int]:
    """Ring for every orphan that its host is to be told to destroy; return which."""
    now = clock.now()
    due = [orphan.pk for orphan in _due(now).order_by("pk")[:BATCH] if _is_ripe(orphan, now)]
    for pk in due:
        doorbell.ring(doorbell.DESTROY_ORPHAN, pk)
    return due


def _due(now: datetime) -> Any:
    old = Q(first_seen_at__lte=now - timedelta(hours=settings.ORPHAN_HOURS))
    unordered = Q(ordered_at__isnull=True) | Q(ordered_at__lte=now - ORDERED_AGAIN)
    open_ones = Orphan.objects.filter(
        unordered, gone_at__isnull=True, instance_number__isnull=False, host__surveyed_at__gte=placement.heard_since()
    )
    return open_ones.filter(old | ~Q(asked_by=""))


def _is_ripe(orphan: Orphan, now: datetime) -> bool:
    if orphan.asked_by:
        return True
    # While the brake is on, what the rows say is in doubt itself.
    return is_surely_flat(orphan, now) and not Watch.objects.exclude(brake_why="").exists()


def claim_orphan(orphan_id: int) -> orders.Letter | None:
    """The order to destroy it; None if there is no such order to be given just now."""
    now = clock.now()
    with transaction.atomic():
        orphan = (
            _due(now).select_for_update(of=("self",), no_key=True).select_related("host").filter(pk=orphan_id).first()
        )
        if orphan is None or not _is_ripe(orphan, now):
            return None
        rows = Instance.objects.filter(pk=orphan.instance_number, host=orphan.host_id)
        if rows.exclude(status=Status.DESTROYED).exists():
            return None
        Orphan.objects.filter(pk=orphan.pk).update(ordered_at=now)
        log.warning("orphan to be destroyed", extra={"orphan": orphan.pk, "instance": orphan.instance_number})
        return orders.farewell(orphan)
