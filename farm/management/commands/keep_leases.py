"""Grant hosts the leases under which they run live terminals."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from farm import errors, leasekeeper, leases, orders


class Command(BaseCommand):
    help = (
        "Grants fenced hosts the leases under which they run live terminals, until SIGTERM. While none runs, live "
        "terminals stop LEASE_SECONDS later. Needs the database, the broker and ORDER_SIGNING_KEY, and nothing else of "
        "the portal; waits for both for ever. Two may run, on two machines."
    )
    requires_system_checks = ()  # what the web needs must not keep this from starting; what this needs is asked below

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            orders.signing_key()
        except errors.KeysMissing as error:
            raise CommandError(str(error)) from error
        if not leases.drift_is_covered():
            raise CommandError(leases.DRIFT_TOO_SMALL)
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        leasekeeper.keep(settings.CELERY_BROKER_URL, stopping, ssl=settings.CELERY_BROKER_USE_SSL)
