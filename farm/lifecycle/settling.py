"""A row gets a slot on the best host that has one, and whatever its caller does there; or the farm is full."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

from farm import errors, placement, ports, vault
from farm.models import Host, Instance


def settle(row: Instance, then: Callable[[Host], None], *, avoid: int | None = None) -> bool:
    """Reserve a slot for ``row`` on the best host and do ``then`` there, both or neither; False if there is no slot.

    A demo account that ``then`` found none of is no better on the next host: False as well.
    """
    server_key = vault.server_key(row.account.server) if row.account is not None else ""
    for host in placement.candidates(server_key=server_key, avoid=avoid):
        try:
            with transaction.atomic():
                ports.reserve(host, row)
                then(host)
        except errors.NoFreePort:
            continue
        except errors.NoFreeAccount:
            return False
        return True
    return False
