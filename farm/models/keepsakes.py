"""What customers made in their terminals, and the tickets to bring and fetch it."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from farm import clock
from farm.models.instances import Instance


class Keepsake(models.Model):
    """What a customer made in their terminals, as a host packed it last: the newest replaces the one before."""

    customer = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="keepsake")
    from_instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="keepsakes")
    made_at = models.DateTimeField(default=clock.now)
    data = models.BinaryField(help_text="An archive that only a host opens.")
    size = models.PositiveIntegerField()
    digest = models.CharField(max_length=64, help_text="SHA-256 of the data.")

    class Meta:
        indexes = [
            # Read by farm.keepsakes: those whose days are over.
            models.Index(fields=["made_at"], name="keepsake_made"),
        ]

    def __str__(self) -> str:
        return f"keepsake of {self.customer_id} ({self.size} bytes)"


class Ticket(models.Model):
    """Lets whoever holds its token bring or fetch one keepsake, once. The token itself is stored nowhere."""

    class Direction(models.TextChoices):
        PUT = "put"
        GET = "get"

    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="tickets")
    direction = models.CharField(max_length=3, choices=Direction)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            # Read by farm.keepsakes: those that are of no use any more.
            models.Index(fields=["expires_at"], name="ticket_expires"),
        ]

    def __str__(self) -> str:
        return f"ticket to {self.direction} the keepsake of instance {self.instance_id}"
