"""Machines that terminals run on, and what happened to them."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from farm import clock
from farm.agent import protocol
from farm.models.words import validate_name


class Host(models.Model):
    """A machine that runs terminals. Whether it is suspect follows from ``surveyed_at``; it is not stored.

    ``fenced_until`` and ``lost_at`` guard the one promise: a lease is granted only while ``lost_at`` is empty, and
    ``lost_at`` is set only for the ``fenced_until`` that was read, each in one statement. See farm.fencing.
    """

    class Policy(models.TextChoices):
        FENCED = "fenced"
        STATIC = "static"

    class State(models.TextChoices):
        ONLINE = "online"
        DRAINING = "draining"
        RETIRED = "retired"

    name = models.CharField(max_length=64, unique=True, validators=[validate_name])
    state = models.CharField(max_length=10, choices=State, default=State.ONLINE)
    policy = models.CharField(
        max_length=10,
        choices=Policy,
        default=Policy.FENCED,
        help_text="Fenced: live terminals run under a lease, and come up elsewhere when the host is lost. "
        "Static: they run without; only staff who know that the machine is off may give it up.",
    )
    slots = models.PositiveIntegerField(default=20, help_text="Terminals it may hold at once.")
    taken = models.PositiveIntegerField(default=0, editable=False, help_text="Slots in use; kept by farm.ports.")
    port_first = models.PositiveIntegerField(validators=[MinValueValidator(1024)])
    port_last = models.PositiveIntegerField(validators=[MaxValueValidator(65535)])
    verify_key = models.CharField(max_length=64, help_text="Base64 Ed25519 key that its reports are signed with.")
    seal_key = models.CharField(max_length=64, help_text="Base64 X25519 key that credentials are sealed to.")
    previous_verify_key = models.CharField(max_length=64, blank=True, help_text="Still accepted while keys change.")
    epoch = models.PositiveIntegerField(default=1, help_text="Raised after a database restore, never lowered.")
    surveyed_at = models.DateTimeField(null=True, editable=False, help_text="When we last heard from it, by our clock.")
    survey_sent_at = models.DateTimeField(null=True, editable=False, help_text="By its own clock.")
    boot_id = models.CharField(max_length=64, blank=True, editable=False)
    agent = models.CharField(max_length=32, blank=True, editable=False)
    master_ok = models.BooleanField(default=True, editable=False)
    master_reason = models.CharField(max_length=200, blank=True, editable=False)
    master_digest = models.CharField(max_length=128, blank=True, editable=False)
    servers = models.JSONField(default=list, blank=True, editable=False)
    load = models.JSONField(default=dict, blank=True, editable=False)
    clock_off_seconds = models.FloatField(default=0, editable=False)
    said_policy = models.CharField(max_length=10, blank=True, editable=False, help_text="What it runs under, it says.")
    watchdog_ok = models.BooleanField(default=True, editable=False)
    stop_seconds = models.FloatField(
        default=0, editable=False, help_text="The longest that it takes to stop its live terminals, it says."
    )
    asked_at = models.DateTimeField(null=True, editable=False, help_text="When it was last granted a lease.")
    lease_boot = models.CharField(max_length=64, blank=True, editable=False, help_text="Which boot of it has that.")
    fenced_until = models.DateTimeField(
        null=True, editable=False, help_text="The end of the longest lease that it was ever granted."
    )
    leases_held_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Leases last until then, for a maintenance of ours."
    )
    lost_at = models.DateTimeField(
        null=True, editable=False, help_text="Given up then; empty again once it has destroyed what it had."
    )
    lost_why = models.CharField(max_length=200, blank=True, editable=False)
    drain_forced = models.BooleanField(default=False, help_text="Live terminals with open positions are moved too.")

    class Meta:
        constraints = [
            models.CheckConstraint(name="host_port_range", condition=Q(port_first__lte=F("port_last"))),
        ]
        indexes = [
            # Read by farm.placement: the host with the most free slots, without looking at the others.
            models.Index((F("slots") - F("taken")).desc(), name="host_free_slots", condition=Q(state="online")),
        ]
        permissions = [
            ("drain_host", "Can drain a host and take it into use again"),
            ("give_up_host", "Can say that a machine is off, so that its terminals come up elsewhere"),
            ("release_brake", "Can pull and release the brake on failover"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def queue(self) -> str:
        return protocol.host_queue(self.name)


class HostEvent(models.Model):
    """One line of a host's journal: enrolled, silent, lost, back, drained, its leases held. Written, never changed."""

    host = models.ForeignKey(Host, null=True, on_delete=models.PROTECT, related_name="events")
    """Empty: about the whole farm, as the brake is."""
    at = models.DateTimeField(default=clock.now)
    what = models.CharField(max_length=32)
    why = models.CharField(max_length=200, blank=True)
    who = models.CharField(max_length=64)

    class Meta:
        indexes = [models.Index(fields=["host", "-at"], name="host_event_newest")]
        verbose_name = "host event"

    def __str__(self) -> str:
        return f"{self.host or 'farm'}: {self.what}"
