"""Enrolling the machines that terminals run on, and what each is told and allowed."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q

from farm import errors, orders, ports
from farm.agent import protocol
from farm.models import Host, HostEvent

KEYS = ("verify_key", "seal_key")
BEHIND = "\x06\x16" + "9"
"""What kombu adds to a queue's name for the orders that wait behind others; see farm.doorbell."""
COMMANDS = ("brpop", "lpush", "ping", "select")
"""All that a host may have the broker do."""
PASSWORD = "PASSWORD"
"""What stands where a person puts the password of the host's login."""


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    name: str
    slots: int
    port_first: int
    port_last: int
    verify_key: str
    seal_key: str
    policy: str = ""
    """Empty: what it was, or fenced for a new one."""


@transaction.atomic
def enrol(wanted: Enrolment, *, who: str = "staff") -> tuple[Host, bool]:
    """Make the host, or bring a known one up to date; say whether it is new.

    Raise ``ValidationError`` for a name, range or key that cannot be, for a key of another host in use, and for a host
    that is retired. A key that changes stays accepted as the previous one until it is changed again.
    """
    for key in (wanted.verify_key, wanted.seal_key):
        check_key(key)
    host = Host.objects.select_for_update(no_key=True).filter(name=wanted.name).first() or Host(name=wanted.name)
    new = host.pk is None
    if host.state == Host.State.RETIRED:
        raise ValidationError(f"{host.name} is retired, for good: enrol the machine under a new name.")
    theirs = Q(verify_key=wanted.verify_key) | Q(previous_verify_key=wanted.verify_key) | Q(seal_key=wanted.seal_key)
    if Host.objects.filter(theirs).exclude(pk=host.pk).exclude(state=Host.State.RETIRED).exists():
        raise ValidationError("Another host has that key: each makes its own, with `python -m farm.agent keygen`.")
    rekeyed = [name for name in KEYS if getattr(host, name) != getattr(wanted, name)]
    if not new and "verify_key" in rekeyed:
        host.previous_verify_key = host.verify_key
    for name in ("slots", "port_first", "port_last", *KEYS):
        setattr(host, name, getattr(wanted, name))
    host.policy = wanted.policy or host.policy
    host.full_clean()
    host.save()
    ports.provide(host)
    if new or rekeyed:
        why = (
            f"slots {host.slots}, ports {host.port_first}-{host.port_last}, {host.policy}"
            if new
            else ", ".join(rekeyed)
        )
        HostEvent.objects.create(host=host, what="enrolled" if new else "keys changed", why=why, who=who[:64])
    return host, new


def check_key(key: str) -> None:
    """Raise ``ValidationError`` for what no host can have as a key."""
    if len(_raw(key)) != 32:
        raise ValidationError("A key is 32 bytes in base64, as `python -m farm.agent keygen` prints it.")


def _raw(key: str) -> bytes:
    try:
        return protocol.unb64(key)
    except protocol.Malformed:
        return b""


# --- what is put on the host, and on the broker -----------------------------------------------------------------------


def environment(host: Host) -> dict[str, str]:
    """The agent's variables that the portal knows. ``FARM_PORTAL_KEYS`` is empty where this process cannot tell it."""
    broker = urlsplit(settings.CELERY_BROKER_URL)
    place = broker.netloc.rpartition("@")[2]
    mine = f"{login(host)}:{PASSWORD}@{place}"
    try:
        keys = protocol.b64(bytes(orders.signing_key().verify_key))
    except errors.KeysMissing:
        keys = ""
    return {
        "FARM_HOST": host.name,
        "FARM_POLICY": host.policy,
        "FARM_PORTAL_KEYS": keys,
        "FARM_BROKER_URL": urlunsplit((broker.scheme, mine, broker.path, broker.query, "")),
    }


def login(host: Host) -> str:
    """Of the host at the broker. No login of ours has such a name."""
    return protocol.host_queue(host.name)


def acl(host: Host) -> str:
    """What gives the host its login at the broker (Redis 7 or Valkey): read its own queues, push into three others.

    In the form of `redis-cli` and of an ACL file. No pattern holds a wildcard: one host's name may begin another's.
    """
    orders_queue, leases_queue = host.queue, protocol.lease_queue(host.name)
    own = [f"%RW~{orders_queue}", f'"%RW~{orders_queue}{_escaped(BEHIND)}"', f"%RW~{leases_queue}"]
    pushed = [f"%W~{queue}" for queue in (protocol.REPORTS_QUEUE, protocol.SURVEYS_QUEUE, protocol.LEASES_QUEUE)]
    rules = ["reset", "on", f">{PASSWORD}", *own, *pushed, "resetchannels", *(f"+{name}" for name in COMMANDS)]
    return f"ACL SETUSER {login(host)} {' '.join(rules)}"


def _escaped(text: str) -> str:
    return "".join(char if char.isalnum() else f"\\x{ord(char):02x}" for char in text)
