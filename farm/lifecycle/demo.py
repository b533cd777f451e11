"""Demo accounts that a broker refuses: taken out of the vault, and the terminal is given another one.

A running terminal keeps the account that it was started with, so it is stopped, handed the new one, and started again
in the same clone. A broker that refuses everything at once is more likely ill than right: after a few, nothing more is
taken out until staff have looked.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from farm import clock, errors, vault
from farm.lifecycle import moving
from farm.models import BrokerAccount, Instance, Seat, Transition
from farm.states import Connection, Goal, Kind, Refusal, Status

RETIRES = (Refusal.CREDENTIALS, Refusal.INVESTOR, Refusal.TRADING_DISABLED)
"""Refusals that are about the account; the others may pass by themselves."""
MOST_SWAPS = 2
BATCH = 50
WHO = "vault"
WHY = "the broker refused its demo account"

log = logging.getLogger(__name__)


def replace_refused() -> list[int]:
    """Retire refused demo accounts and go on with others; return the instances that were stopped or started for it."""
    refused = Instance.objects.filter(
        kind=Kind.PRESS_PASS,
        status=Status.RUNNING,
        goal=Goal.RUNNING,
        connection=Connection.REFUSED,
        refusal__in=RETIRES,
        account__owner__isnull=True,
    )
    stopped = Instance.objects.filter(
        kind=Kind.PRESS_PASS, status=Status.STOPPED, goal=Goal.STOPPED, account__retired_at__isnull=False
    )
    done = []
    for rows, step in ((refused, _give_up), (stopped, _give_another)):
        for row in list(rows.select_related("account").order_by("pk")[:BATCH]):
            try:
                with transaction.atomic():
                    if step(row):
                        done.append(row.pk)
            except errors.ClaimLost:
                continue
            except Exception:
                log.exception("a demo account could not be replaced", extra={"instance": row.pk})
    return done


def _give_up(row: Instance) -> bool:
    account = row.account
    if account is None or (account.retired_at is None and not _retire(account)):
        return False
    swaps = Transition.objects.filter(instance=row, became=Status.STOPPING, why=WHY).count()
    if swaps >= MOST_SWAPS or not vault.free_demos().exists():
        return False
    moving.move(row, Status.STOPPING, why=WHY, who=WHO, goal=Goal.STOPPED)
    return True


def _retire(account: BrokerAccount) -> bool:
    now = clock.now()
    since = now - timedelta(seconds=settings.BROKER_PAUSE_SECONDS)
    lately = BrokerAccount.objects.filter(owner__isnull=True, server=account.server, retired_at__gte=since)
    if lately.count() >= settings.BROKER_PAUSE_REFUSALS:
        return False
    BrokerAccount.objects.filter(pk=account.pk, retired_at__isnull=True).update(retired_at=now)
    log.warning("demo account retired", extra={"account": account.pk, "server": account.server})
    return True


def _give_another(row: Instance) -> bool:
    Seat.objects.filter(instance=row).update(instance=None)
    changes: dict[str, Any]
    try:
        changes = {"account": vault.take_demo(row, now=clock.now()), "connection": Connection.UNKNOWN}
        why, to = "another demo account was free", Status.INJECTING
    except errors.NoFreeAccount:
        changes = {"account": None, "connection": Connection.NO_ACCOUNT}
        why, to = "no other demo account is free: it goes on without", Status.STARTING
    cleared: dict[str, Any] = {
        "refusal": Refusal.NONE,
        "refusal_text": "",
        "connection_since": None,
        "facts": {},
        "heartbeat_at": None,
    }
    moving.move(row, to, why=why, who=WHO, goal=Goal.RUNNING, **changes, **cleared)
    return True
