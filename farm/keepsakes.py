"""Keepsakes at rest, and the one-time tickets that hosts bring and fetch them with.

The portal never opens one: what is in it comes from a host that customers' programs run on, and goes to another, whose
agent checks all of it (farm.agent.archive).
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse

from farm import clock, errors
from farm.models import Instance, Keepsake, Ticket

TICKET_LIFETIME = timedelta(minutes=10)
_ARCHIVE = b"PK\x03\x04"
_EMPTY_ARCHIVE = b"PK\x05\x06"


def issue(instance: Instance, direction: Ticket.Direction) -> str:
    """The address where the keepsake of ``instance``'s customer is brought or fetched, once. It belongs in no log."""
    token = secrets.token_urlsafe(32)
    Ticket.objects.create(
        token_hash=_hash(token), instance=instance, direction=direction, expires_at=clock.now() + TICKET_LIFETIME
    )
    return f"{settings.PORTAL_URL_FOR_HOSTS}{reverse('keepsake', args=[token])}"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _good(token: str, direction: Ticket.Direction) -> QuerySet[Ticket]:
    """The ticket with this token if it is good for ``direction``; else nothing."""
    return Ticket.objects.filter(
        token_hash=_hash(token), direction=direction, used_at__isnull=True, expires_at__gt=clock.now()
    )


def check(token: str) -> None:
    """Raise :class:`errors.NoTicket` unless something may be brought with it: asked before anything is read."""
    if not _good(token, Ticket.Direction.PUT).exists():
        raise errors.NoTicket


def _used(token: str, direction: Ticket.Direction) -> Instance:
    """Use the ticket up and return whose it was; of two at once, one is refused."""
    if _good(token, direction).update(used_at=clock.now()) != 1:
        raise errors.NoTicket
    return Ticket.objects.select_related("instance").get(token_hash=_hash(token)).instance


@transaction.atomic
def accept(token: str, data: bytes, *, digest: str) -> int:
    """Keep ``data`` as the newest keepsake of the ticket's customer; return the id of the instance it is of.

    Raises :class:`errors.NoTicket`, :class:`errors.TooBig` or :class:`errors.BadKeepsake`; the ticket is good after
    the latter two. One without files replaces nothing: it may be of a clone whose keepsake never reached it.
    """
    row = _used(token, Ticket.Direction.PUT)
    if len(data) > settings.KEEPSAKE_MOST_BYTES:
        raise errors.TooBig
    if not data.startswith((_ARCHIVE, _EMPTY_ARCHIVE)) or hashlib.sha256(data).hexdigest() != digest:
        raise errors.BadKeepsake
    if data.startswith(_EMPTY_ARCHIVE) and is_kept(row.customer_id):
        return row.pk
    fields = {"from_instance": row, "made_at": clock.now(), "data": data, "size": len(data), "digest": digest}
    Keepsake.objects.update_or_create(customer_id=row.customer_id, defaults=fields)
    return row.pk


@transaction.atomic
def hand_out(token: str) -> Keepsake:
    """The keepsake that the ticket is for. Raises :class:`errors.NoTicket` if it is good for none."""
    row = _used(token, Ticket.Direction.GET)
    found = Keepsake.objects.filter(customer_id=row.customer_id, made_at__gt=_oldest()).first()
    if found is None:
        raise errors.NoTicket
    return found


def _oldest() -> datetime:
    return clock.now() - timedelta(days=settings.KEEPSAKE_DAYS)


def is_kept(customer_id: int) -> bool:
    return Keepsake.objects.filter(customer_id=customer_id, made_at__gt=_oldest()).exists()


def kept_until(customer_id: int) -> datetime | None:
    """How long what the customer made is kept; None if nothing is."""
    made_at = Keepsake.objects.filter(customer_id=customer_id, made_at__gt=_oldest()).values_list("made_at", flat=True)
    found = made_at.first()
    return found + timedelta(days=settings.KEEPSAKE_DAYS) if found else None


def is_settled(instance_id: int, *, since: datetime) -> bool:
    """Whether the instance's host has brought a keepsake since, or was found unable to."""
    put = Ticket.objects.filter(instance=instance_id, direction=Ticket.Direction.PUT)
    return put.filter(used_at__gte=since).exists()


def asked_at(instance_id: int) -> datetime | None:
    """When the instance's host was last given a ticket to bring a keepsake with; None if none of late."""
    put = Ticket.objects.filter(instance=instance_id, direction=Ticket.Direction.PUT, expires_at__gt=clock.now())
    newest = put.order_by("-expires_at").values_list("expires_at", flat=True).first()
    return newest - TICKET_LIFETIME if newest is not None else None


def withdraw(instance_id: int) -> bool:
    """Make void what the instance's host was to bring a keepsake with; False if nothing was."""
    put = Ticket.objects.filter(instance=instance_id, direction=Ticket.Direction.PUT, used_at__isnull=True)
    return put.update(used_at=clock.now()) > 0


def expire() -> int:
    """Delete the keepsakes whose days are over, and the tickets that are of no use; return how many keepsakes."""
    deleted, _ = Keepsake.objects.filter(made_at__lte=_oldest()).delete()
    Ticket.objects.filter(expires_at__lte=clock.now()).delete()
    return deleted
