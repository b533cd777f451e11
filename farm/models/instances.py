"""Clones, each for its whole life, and their journal."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist
from django.db import models
from django.db.models import F, Q

from farm import clock
from farm.models.accounts import BrokerAccount
from farm.models.hosts import Host
from farm.models.words import one_of, validate_name, words
from farm.states import Connection, Goal, Kind, Reason, Refusal, Status

MAGIC_BASE = 700_000_000
"""Magic numbers start here, clear of the small ones that people's own EAs use, and stay below 2^31 for 1.4 billion
instances."""


class Instance(models.Model):
    """One clone on one host for its whole life. Its ``status`` is written by farm.lifecycle alone."""

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="instances")
    kind = models.CharField(max_length=12, choices=words(Kind), default=Kind.PRESS_PASS)
    status = models.CharField(max_length=12, choices=words(Status))
    goal = models.CharField(max_length=12, choices=words(Goal), default=Goal.RUNNING)
    connection = models.CharField(max_length=12, choices=words(Connection), default=Connection.UNKNOWN)
    refusal = models.CharField(max_length=20, choices=words(Refusal), blank=True, default="")
    refusal_text = models.CharField(max_length=200, blank=True)
    reason = models.CharField(max_length=20, choices=words(Reason), blank=True, default="")
    reason_detail = models.CharField(max_length=200, blank=True)

    host = models.ForeignKey(Host, null=True, blank=True, on_delete=models.PROTECT, related_name="instances")
    folder = models.CharField(max_length=64, validators=[validate_name])
    account = models.ForeignKey(
        BrokerAccount, null=True, blank=True, on_delete=models.PROTECT, related_name="instances"
    )
    held_until = models.DateTimeField(
        null=True, blank=True, help_text="Its slot is held until then for a payment; empty once that came."
    )
    proven_at = models.DateTimeField(
        null=True, blank=True, help_text="When a live one's broker was seen to let it trade."
    )
    first_in_line = models.BooleanField(default=False, help_text="Paid for, and left without a slot: served first.")
    watched_at = models.DateTimeField(
        null=True, blank=True, help_text="When its customer was last seen waiting for it; noted while it is in line."
    )
    replaces = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="replaced_by")
    digest = models.CharField(max_length=128, blank=True, help_text="Of the master that it was cloned from.")

    generation = models.PositiveIntegerField(default=0, help_text="Number of its newest order.")
    claimed_until = models.DateTimeField(null=True, blank=True, help_text="Until then an order is out for it.")
    next_at = models.DateTimeField(null=True, blank=True, help_text="When the sweep rings for it; empty at rest.")
    attempts = models.PositiveIntegerField(default=0, help_text="Failures in a row.")

    created_at = models.DateTimeField(default=clock.now)
    status_since = models.DateTimeField(default=clock.now)
    connection_since = models.DateTimeField(null=True, blank=True)
    first_running_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    activity_at = models.DateTimeField(null=True, blank=True, help_text="Empty: not known, which is not idle.")
    facts = models.JSONField(default=dict, blank=True, help_text="What the bridge last said: balance, positions …")
    ends_at = models.DateTimeField(null=True, blank=True, help_text="When the days of its Press Pass are over.")
    warn_end_at = models.DateTimeField(null=True, blank=True, help_text="When its customer is next told of that end.")
    keep_due_at = models.DateTimeField(
        null=True, blank=True, help_text="When its keepsake is next fetched while it runs; empty: never."
    )
    warned_idle_of = models.DateTimeField(
        null=True, blank=True, help_text="The last activity that its customer was warned of being long ago."
    )

    class Meta:
        permissions = [
            ("retry_instance", "Can try a failed terminal again"),
            ("recycle_instance", "Can recycle a Press Pass terminal"),
        ]
        constraints = [
            one_of("instance_kind", Kind),
            one_of("instance_status", Status),
            one_of("instance_goal", Goal),
            one_of("instance_connection", Connection),
            models.UniqueConstraint(fields=["customer", "folder"], name="instance_folder_once"),
            models.UniqueConstraint(
                fields=["customer"],
                name="one_press_pass_at_a_time",
                condition=Q(kind=Kind.PRESS_PASS) & ~Q(goal=Goal.DESTROYED),
            ),
            models.UniqueConstraint(
                fields=["customer"],
                name="one_hold_at_a_time",
                condition=Q(kind=Kind.LIVE, status=Status.WAITING, held_until__isnull=False),
            ),
            models.CheckConstraint(
                name="instance_has_host",
                condition=Q(host__isnull=False) | Q(status__in=[Status.WAITING, Status.DESTROYED]),
            ),
        ]
        indexes = [
            # Each is partial, so that rows at rest cost its reader nothing. Readers: sweep; line; idleness; survey.
            models.Index(fields=["next_at"], name="instance_step_due", condition=Q(next_at__isnull=False)),
            models.Index(F("first_in_line").desc(), "id", name="instance_in_line", condition=Q(status=Status.WAITING)),
            models.Index(fields=["held_until"], name="instance_held", condition=Q(held_until__isnull=False)),
            models.Index(
                fields=["activity_at", "id"],
                name="instance_maybe_idle",
                condition=Q(kind=Kind.PRESS_PASS, status=Status.RUNNING),
            ),
            # Read by recycle_idle: days that are over, ends to tell of, ends not yet reckoned.
            models.Index(
                fields=["ends_at", "id"],
                name="instance_ends",
                condition=Q(kind=Kind.PRESS_PASS, goal=Goal.RUNNING, ends_at__isnull=False),
            ),
            models.Index(
                fields=["warn_end_at", "id"],
                name="instance_end_to_tell",
                condition=Q(kind=Kind.PRESS_PASS, goal=Goal.RUNNING, warn_end_at__isnull=False),
            ),
            models.Index(
                fields=["id"],
                name="instance_end_not_reckoned",
                condition=Q(
                    kind=Kind.PRESS_PASS, goal=Goal.RUNNING, ends_at__isnull=True, first_running_at__isnull=False
                ),
            ),
            # Read by farm.lifecycle.keeping: live ones whose keepsake has become old.
            models.Index(fields=["keep_due_at"], name="instance_keep_due", condition=Q(keep_due_at__isnull=False)),
            # Read by farm.lifecycle.demo: demo accounts that a broker refuses.
            models.Index(
                fields=["id"],
                name="instance_demo_refused",
                condition=Q(kind=Kind.PRESS_PASS, status=Status.RUNNING, connection=Connection.REFUSED),
            ),
            models.Index(
                fields=["id"],
                name="instance_demo_stopped",
                condition=Q(kind=Kind.PRESS_PASS, status=Status.STOPPED),
            ),
            # Read by farm.lifecycle.line and farm.glance: how many went, came and stand before staff lately.
            models.Index(fields=["status_since"], name="instance_gone", condition=Q(status=Status.DESTROYED)),
            models.Index(fields=["first_running_at"], name="instance_ran", condition=Q(first_running_at__isnull=False)),
            models.Index(
                fields=["id"], name="instance_before_staff", condition=Q(status=Status.FAILED, next_at__isnull=True)
            ),
            models.Index(
                fields=["host"],
                name="instance_on_host",
                condition=~Q(status__in=[Status.WAITING, Status.DESTROYED]),
            ),
        ]

    def __str__(self) -> str:
        return f"instance {self.pk} ({self.kind}, {self.status})"

    @property
    def magic(self) -> int:
        """The number that its EA stamps on orders."""
        return int(MAGIC_BASE + self.pk)

    @property
    def port_number(self) -> int | None:
        """The number in its bridge; None while it has no slot. A query unless ``port`` was selected."""
        try:
            return self.port.number
        except ObjectDoesNotExist:
            return None

    @property
    def at_rest(self) -> bool:
        return self.next_at is None


class Transition(models.Model):
    """One line of the journal: an instance went from one status to another."""

    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="transitions")
    at = models.DateTimeField(default=clock.now)
    was = models.CharField(max_length=12, choices=words(Status), blank=True)
    became = models.CharField(max_length=12, choices=words(Status))
    why = models.CharField(max_length=200)
    who = models.CharField(max_length=64, help_text="customer:<id>, staff:<id>, host:<name>, or a part of the portal")
    noticed_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it was looked at for news to its customer."
    )

    class Meta:
        indexes = [
            # Read by presspass.lifecycle.news. Not an id cursor: ids commit out of order.
            models.Index(fields=["id"], name="transition_not_noticed", condition=Q(noticed_at__isnull=True)),
        ]
        verbose_name = "journal line"
        verbose_name_plural = "journal"

    def __str__(self) -> str:
        return f"{self.instance_id}: {self.was or 'new'} -> {self.became}"
