"""The farm as a whole: whether anything may be given up now, what nobody knows, and rehearsals."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from farm import clock
from farm.models.hosts import Host
from farm.states import Kind


class Watch(models.Model):
    """The one row (pk 1) of whoever watches over the hosts: when it last looked, and the brake. See farm.fencing."""

    looked_at = models.DateTimeField(null=True, help_text="By our clock.")
    looked_boot = models.CharField(max_length=64, blank=True)
    looked_since_boot = models.FloatField(default=0, help_text="By the clock that nobody sets; of that boot.")
    brake_why = models.CharField(max_length=200, blank=True, help_text="Empty while the brake is off.")
    brake_since = models.DateTimeField(null=True)
    brake_hosts = models.JSONField(default=list, help_text="Whose silence pulled it.")
    brake_accepted = models.JSONField(default=list, help_text="Silent hosts that staff have looked at.")
    brake_good_since = models.DateTimeField(null=True)
    brake_by_hand = models.BooleanField(default=False)
    restored_at = models.DateTimeField(null=True, help_text="When the database was last put back from a backup.")
    leases_seen_at = models.DateTimeField(null=True, help_text="When keep_leases last showed that it lives.")

    class Meta:
        verbose_name = verbose_name_plural = "watch over the hosts"

    def __str__(self) -> str:
        return f"brake on: {self.brake_why}" if self.brake_why else "brake off"


class Orphan(models.Model):
    """Something on a host that no row accounts for. Left alone, shown, and destroyed only when that is surely right."""

    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="orphans")
    folder = models.CharField(max_length=200, help_text="As the host names it.")
    instance_number = models.PositiveBigIntegerField(
        null=True, help_text="Which instance the host takes it for; empty: it does not know, nor how old it is."
    )
    generation = models.PositiveIntegerField(default=0)
    server_key = models.CharField(max_length=64, blank=True)
    login = models.BigIntegerField(null=True)
    """The account that it may run: until it is gone nobody else is given that seat."""
    facts = models.JSONField(default=dict, blank=True)
    first_seen_at = models.DateTimeField(default=clock.now)
    last_seen_at = models.DateTimeField(default=clock.now)
    asked_by = models.CharField(max_length=64, blank=True, help_text="Who of the staff wants it destroyed, at once.")
    ordered_at = models.DateTimeField(null=True, blank=True, help_text="When its host was last told to destroy it.")
    gone_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["host", "folder"], name="orphan_once", condition=Q(gone_at__isnull=True)),
        ]
        indexes = [
            # Read by farm.vault: whether somebody nobody knows may run this account.
            models.Index(fields=["server_key", "login"], name="orphan_account", condition=Q(gone_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"{self.folder} on {self.host}"

    @property
    def needs_lease(self) -> bool:
        """Whether it may run an account for which its host needs a lease, as far as is known; a demo needs none."""
        return self.login is not None and self.facts.get("kind") != Kind.PRESS_PASS

    @property
    def is_fenced_off(self) -> bool:
        """Whether it surely does not run: its host was given up, and stops it, or was not heard since."""
        if self.host.lost_at is None or not self.needs_lease:
            return False
        is_fenced = Host.Policy.FENCED == self.host.policy == self.host.said_policy
        return is_fenced or self.last_seen_at <= self.host.lost_at


class Drill(models.Model):
    """One rehearsed failover, measured."""

    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="drills")
    began_at = models.DateTimeField(default=clock.now)
    instances = models.PositiveIntegerField(default=0)
    detect_seconds = models.FloatField(null=True, help_text="From the last sign of life until it counts as silent.")
    fence_seconds = models.FloatField(null=True, help_text="From then until its fence had passed.")
    restore_seconds = models.FloatField(null=True, help_text="From then until the last canary ran elsewhere.")
    trouble = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return f"drill of {self.host}, {self.began_at:%Y-%m-%d %H:%M}"
