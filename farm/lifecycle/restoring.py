"""After the database was put back from a backup: what runs on the hosts may be unknown to the rows.

Orders get a higher epoch, or every host would refuse them as old. Whatever leases were granted in the time that is
lacking may still run, so all fences begin anew, and nothing is failed over or logged in to a broker before a person has
looked at what the hosts show and let go of the brake.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, models, transaction

from farm import leases
from farm.agent.protocol import MOST_STOP_SECONDS
from farm.lifecycle import watching
from farm.models import Host, HostEvent, Instance, Watch

SKIPPED = 100_000
"""Numbers that may have been given to instances and customers in the time that is lacking: not given again."""
WHY = "the database was put back from a backup"


@dataclass(frozen=True)
class Restored:
    hosts: int
    fenced: int
    fenced_until: datetime


@transaction.atomic
def after_restore(*, leases_were_held: bool, who: str) -> Restored:
    """Make a database that was put back safe to work with. To be run before anything else of the portal is.

    Done twice it costs time and nothing else. ``leases_were_held``: somebody held all leases, perhaps for this.
    """
    now = leases.later_now()
    lease = timedelta(seconds=settings.LEASE_SECONDS)
    until = now + (max(leases.longest_hold(), lease) if leases_were_held else lease)
    hosts = list(Host.objects.select_for_update(no_key=True).exclude(state=Host.State.RETIRED).order_by("pk"))
    fenced = [host for host in hosts if host.policy == Host.Policy.FENCED]
    for host in hosts:
        # By the time of day, so that a second restore, from an older backup, still comes out above the first.
        host.epoch = max(host.epoch + 1, int(now.timestamp() // 60))
    for host in fenced:
        host.fenced_until = max(host.fenced_until or until, until, leases.held_until(host, now) or until)
        host.stop_seconds = MOST_STOP_SECONDS  # until it says again what it needs
    Host.objects.bulk_update(hosts, ["epoch", "fenced_until", "stop_seconds"])
    for model in (Instance, get_user_model()):
        _skip_numbers(model)
    watching.pull_brake(WHY, who=who)
    Watch.objects.filter(pk=1).update(restored_at=now)
    HostEvent.objects.create(host=None, what="restored", why=WHY, who=who)
    return Restored(len(hosts), len(fenced), until)


def _skip_numbers(model: type[models.Model]) -> None:
    """An instance's number is its magic number and its name on hosts, a customer's is in the name of their folders."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            sequence = "pg_get_serial_sequence(%s, 'id')"
            cursor.execute(f"SELECT setval({sequence}, nextval({sequence}) + %s)", [table, table, SKIPPED])
        else:
            cursor.execute("UPDATE sqlite_sequence SET seq = seq + %s WHERE name = %s", [SKIPPED, table])


def is_unclear() -> bool:
    """Whether nobody has looked yet at what the hosts run since the database was put back."""
    return Watch.objects.filter(pk=1, restored_at__isnull=False).exclude(brake_why="").exists()
