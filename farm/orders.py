"""The portal's side of the wire: orders are sealed and signed here, messages of hosts are checked here."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from nacl.public import PublicKey
from nacl.signing import SigningKey, VerifyKey

from farm import clock, errors
from farm.agent import protocol
from farm.models import Host, HostEvent, Instance, Orphan

FORGED = "forged"
"""What stands in a host's journal when something came in its name that was not by it."""
NOTED_EVERY = timedelta(minutes=10)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Letter:
    """An order ready for the broker: where it goes and what it says."""

    instance: int
    generation: int
    queue: str
    envelope: protocol.Envelope
    behind: bool
    """A clone is the one long order: those already made are brought up, or stopped, before the next is begun."""


def letter(instance: Instance, verb: protocol.Verb, *, password: str | None, keepsake: str = "") -> Letter:
    """Build, seal and sign the order for ``verb``. Raise :class:`errors.KeysMissing` without the signing key.

    ``keepsake`` is the one-time address that the customer's keepsake goes to or comes from.

    ``instance`` must have its host, port and account at hand. The password leaves this function sealed only.
    """
    host, account = instance.host, instance.account
    if host is None:
        raise errors.IllegalMove(f"Instance {instance.pk} has no host.")
    numbers = {"instance": instance.pk, "epoch": host.epoch, "generation": instance.generation}
    sealed = ""
    if verb is protocol.Verb.INJECT and account is not None and password is not None:
        credentials = protocol.Credentials(
            host=host.name, server=account.server, login=account.login, password=password, **numbers
        )
        sealed = credentials.seal(PublicKey(protocol.unb64(host.seal_key)))
    order = protocol.Order(
        verb=verb,
        host=host.name,
        issued_at=clock.now().timestamp(),
        folder=instance.folder,
        port=instance.port_number or 0,
        magic=instance.magic,
        kind=instance.kind,
        server=account.server if account else "",
        login=account.login if account else None,
        sealed=sealed,
        keepsake=keepsake,
        **numbers,
    )
    envelope = protocol.sign(order, signing_key())
    return Letter(instance.pk, instance.generation, host.queue, envelope, behind=verb is protocol.Verb.CLONE)


def farewell(orphan: Orphan) -> Letter:
    """The order to destroy what no row accounts for: newer by one than what its host did for it last."""
    number = orphan.instance_number
    if number is None:
        raise errors.IllegalMove(f"{orphan} is not known to its host.")
    order = protocol.Order(
        verb=protocol.Verb.DESTROY,
        host=orphan.host.name,
        instance=number,
        epoch=orphan.host.epoch,
        generation=orphan.generation + 1,
        issued_at=clock.now().timestamp(),
        folder=orphan.folder,
        port=0,
        magic=0,
        kind="",
    )
    return Letter(number, order.generation, orphan.host.queue, protocol.sign(order, signing_key()), behind=False)


def signing_key() -> SigningKey:
    """Raise :class:`errors.KeysMissing` in a process that was not given it."""
    if not settings.ORDER_SIGNING_KEY:
        raise errors.KeysMissing("ORDER_SIGNING_KEY is not set: only the portal worker and keep_leases can sign.")
    return SigningKey(protocol.unb64(settings.ORDER_SIGNING_KEY))


def opened(envelope: Mapping[str, Any]) -> tuple[Host, str]:
    """Who signed the message, and its text. Raise :class:`errors.Untrusted` for anything else."""
    name = _claimed(envelope)
    return _opened(envelope, name, Host.objects.filter(name=name).first())


def opened_all(envelopes: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Host, str, Mapping[str, Any]]]:
    """The same for many, in one query. What is forged is left out and noted, once for each host that it names."""
    forged: dict[str, errors.Untrusted] = {}
    claimed = []
    for envelope in envelopes:
        try:
            claimed.append((_claimed(envelope), envelope))
        except errors.Untrusted as error:
            forged[error.host] = error
    hosts = Host.objects.in_bulk({name for name, _ in claimed}, field_name="name")
    for name, envelope in claimed:
        try:
            yield *_opened(envelope, name, hosts.get(name)), envelope
        except errors.Untrusted as error:
            forged[error.host] = error
    for one in forged.values():
        note_forged(one)


def _claimed(envelope: Mapping[str, Any]) -> str:
    try:
        return protocol.claimed_host(envelope)
    except protocol.ProtocolError as error:
        raise errors.Untrusted(f"A message is not what it claims to be: {error}") from error


def _opened(envelope: Mapping[str, Any], name: str, host: Host | None) -> tuple[Host, str]:
    if host is None:
        raise errors.Untrusted(f"A message names the host {name!r}, which is not enrolled.")
    try:
        keys = [VerifyKey(protocol.unb64(key)) for key in (host.verify_key, host.previous_verify_key) if key]
        return host, protocol.opened(envelope, keys)
    except (protocol.ProtocolError, ValueError) as error:
        raise errors.Untrusted(f"A message is not what it claims to be: {error}", host=host.name) from error


def note_forged(error: errors.Untrusted) -> None:
    """Log it, and write it into the journal of the host in whose name it came, once in a while.

    Two processes at the same moment may write a line each: nothing hangs on their number.
    """
    log.error("forged message", extra={"error": str(error)[:500], "host": error.host})
    host = Host.objects.filter(name=error.host).first() if error.host else None
    lately = HostEvent.objects.filter(host=host, what=FORGED, at__gt=clock.now() - NOTED_EVERY)
    if not lately.exists():
        HostEvent.objects.create(host=host, what=FORGED, why=str(error)[:200], who="wire")
