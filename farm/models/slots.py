"""What only one instance may have at a time: a port of a host, the seat of an account."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from farm.models.accounts import BrokerAccount
from farm.models.hosts import Host
from farm.models.instances import Instance


class Port(models.Model):
    """One port number of one host; the instance that has it, if any."""

    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="ports")
    number = models.PositiveIntegerField()
    instance = models.OneToOneField(
        Instance, null=True, blank=True, on_delete=models.PROTECT, related_name="port", editable=False
    )
    quarantined_at = models.DateTimeField(null=True, blank=True, help_text="A stranger on the host has it.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["host", "number"], name="port_once"),
        ]
        indexes = [
            # Read by farm.ports: the next free number costs the same however full the host is.
            models.Index(
                fields=["host", "number"],
                name="port_free",
                condition=Q(instance__isnull=True, quarantined_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.host}:{self.number}"


class Seat(models.Model):
    """The one instance that may run a broker account, unique per (normalised server, login)."""

    server_key = models.CharField(max_length=64, help_text="The server's name, case folded.")
    login = models.BigIntegerField()
    instance = models.OneToOneField(
        Instance, null=True, blank=True, on_delete=models.PROTECT, related_name="seat", editable=False
    )
    vault_account = models.OneToOneField(
        BrokerAccount, null=True, blank=True, on_delete=models.PROTECT, related_name="seat", editable=False
    )
    """The demo account behind it, if it is one of the vault's."""
    rested_until = models.DateTimeField(
        null=True, blank=True, help_text="Given to nobody before: what the last one had open may close meanwhile."
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["server_key", "login"], name="seat_once")]
        indexes = [
            # Read by farm.vault: the next free demo account.
            models.Index(
                fields=["id"], name="seat_free", condition=Q(instance__isnull=True, vault_account__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"seat of {self.login} on {self.server_key}"
