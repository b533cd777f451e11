"""Slots and ports: a customer's preferred number, reserving one, giving it back.

A slot is one port and one terminal's worth of a host's capacity, so both are taken and given back together, in the
caller's transaction.
"""

from __future__ import annotations

from hashlib import blake2b

from django.db import connection, transaction
from django.db.models import F

from farm import clock, errors
from farm.models import Host, Instance, Port

_FREE = """SELECT id FROM farm_port
    WHERE host_id = %s AND instance_id IS NULL AND quarantined_at IS NULL AND number {side} %s
    ORDER BY host_id, number LIMIT 1 {lock}"""

_RESERVE = """UPDATE farm_port SET instance_id = %s
    WHERE id = COALESCE(({upper}), ({lower})) AND instance_id IS NULL
    RETURNING number"""


def preferred(host: Host, customer_id: int) -> int:
    """The number that this customer gets on ``host`` if it is free: the same in every process and on every day."""
    digest = blake2b(str(customer_id).encode(), digest_size=8).digest()
    return host.port_first + int.from_bytes(digest) % (host.port_last - host.port_first + 1)


def reserve(host: Host, instance: Instance) -> int:
    """Take a slot of ``host`` for ``instance``: the preferred number, else the next free one, wrapping round.

    Two statements, whatever the host holds. Call it inside a transaction; after :class:`errors.NoFreePort` the
    savepoint has taken everything back.
    """
    with transaction.atomic():
        free = Host.objects.filter(pk=host.pk, taken__lt=F("slots")).exclude(state=Host.State.RETIRED)
        if not free.update(taken=F("taken") + 1):
            raise errors.NoFreePort(f"All {host.slots} slots of {host.name} are taken, or it is retired.")
        number = _reserve_number(host, instance)
        if number is None:
            raise errors.NoFreePort(f"No port between {host.port_first} and {host.port_last} is free on {host.name}.")
    return number


def _reserve_number(host: Host, instance: Instance) -> int | None:
    # SQLite has one writer at a time and knows no row locks; elsewhere a row that another transaction is just taking
    # is passed over instead of waited for.
    lock = "FOR UPDATE SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    upper, lower = (_FREE.format(side=side, lock=lock) for side in (">=", "<"))
    start = preferred(host, instance.customer_id)
    with connection.cursor() as cursor:
        cursor.execute(_RESERVE.format(upper=upper, lower=lower), [instance.pk, host.pk, start, host.pk, start])
        row = cursor.fetchone()
    return row[0] if row else None


def release(instance: Instance) -> bool:
    """Give the slot back; False if it was given back before."""
    freed = Port.objects.filter(instance=instance).update(instance=None)
    if freed and instance.host_id is not None:
        Host.objects.filter(pk=instance.host_id).update(taken=F("taken") - 1)
    return bool(freed)


def quarantine(host: Host, instance: Instance) -> int:
    """Set the number aside that a stranger on the host holds and reserve the next one.

    Raise :class:`errors.NoFreePort`, with everything as it was, if there is none.
    """
    with transaction.atomic():
        Port.objects.filter(instance=instance).update(quarantined_at=clock.now())
        release(instance)
        return reserve(host, instance)


def provide(host: Host) -> int:
    """Make the rows for the host's range; return how many were missing. Numbers outside it stay while in use."""
    known = set(host.ports.values_list("number", flat=True))
    wanted = range(host.port_first, host.port_last + 1)
    missing = [Port(host=host, number=number) for number in wanted if number not in known]
    Port.objects.bulk_create(missing, batch_size=1000, ignore_conflicts=True)
    host.ports.filter(instance__isnull=True).exclude(number__range=(host.port_first, host.port_last)).delete()
    return len(missing)
