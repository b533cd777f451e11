"""Facts about what customers buy: plans, open payments, subscriptions, refunds, and what Stripe told us.

Part of presspass.models; the truth about money is Stripe's, and these rows say what it was when last asked.
"""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from farm import clock

CURRENCY = "usd"


class Plan(models.Model):
    """What a live terminal costs a month. Staff edit these; what somebody bought keeps its own price."""

    key = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=60)
    cents = models.PositiveIntegerField("US cents a month", validators=[MinValueValidator(50)])
    includes = models.TextField(blank=True, help_text="One line for each thing that it includes.")
    stripe_price = models.CharField(
        "Stripe price", max_length=100, blank=True, help_text="price_…; empty: the amount above is sent as it stands."
    )
    position = models.PositiveIntegerField(default=0, help_text="Plans are shown in this order.")
    active = models.BooleanField(default=True, help_text="Is offered.")

    class Meta:
        ordering = ("position", "pk")

    def __str__(self) -> str:
        return self.name

    @property
    def price(self) -> str:
        """``$39``, ``$39.50``."""
        whole, part = divmod(self.cents, 100)
        return f"${whole:,}" + (f".{part:02}" if part else "")

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.includes.splitlines() if line.strip()]


class Attempt(models.Model):
    """What a customer typed for one live terminal, without the password: told to them when the credentials are gone."""

    instance = models.OneToOneField("farm.Instance", on_delete=models.PROTECT, related_name="attempt")
    server = models.CharField(max_length=64)
    login = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.login} on {self.server}"


class Checkout(models.Model):
    """One way to Stripe's pay page, and what became of it."""

    class Status(models.TextChoices):
        OPEN = "open", "open"
        PAID = "paid", "paid"
        EXPIRED = "expired", "expired"
        CANCELLED = "cancelled", "cancelled by the customer"
        WRONG = "wrong", "paid, but not what was agreed"
        REFUNDED = "refunded", "refunded"

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="checkouts")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="checkouts")
    cents = models.PositiveIntegerField(help_text="The price when it was begun.")
    instance = models.ForeignKey("farm.Instance", on_delete=models.PROTECT, related_name="checkouts")
    """The hold."""
    status = models.CharField(max_length=12, choices=Status, default=Status.OPEN)
    problem = models.CharField(max_length=200, blank=True)
    tries = models.PositiveIntegerField(default=1, help_text="Sessions asked for; part of the idempotency key.")
    stripe_session = models.CharField(max_length=100, blank=True)
    stripe_subscription = models.CharField(max_length=100, blank=True, help_text="What came of it at Stripe.")
    url = models.URLField(max_length=1000, blank=True)
    created_at = models.DateTimeField(default=clock.now)
    expires_at = models.DateTimeField(help_text="When its session at Stripe expires.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer"], name="one_open_checkout", condition=Q(status="open")),
            models.UniqueConstraint(
                fields=["stripe_session"], name="checkout_session_once", condition=~Q(stripe_session="")
            ),
        ]
        permissions = [("refund_payment", "Can refund payments")]

    def __str__(self) -> str:
        return f"checkout {self.pk} ({self.status})"


class Subscription(models.Model):
    """A customer's right to a live terminal, as Stripe last said, and what we do about it."""

    class Status(models.TextChoices):
        """Stripe's words."""

        INCOMPLETE = "incomplete", "incomplete"
        INCOMPLETE_EXPIRED = "incomplete_expired", "incomplete, expired"
        TRIALING = "trialing", "trialing"
        ACTIVE = "active", "active"
        PAST_DUE = "past_due", "past due"
        PAUSED = "paused", "paused"
        UNPAID = "unpaid", "unpaid"
        CANCELED = "canceled", "cancelled"

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="subscriptions")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="subscriptions")
    cents = models.PositiveIntegerField("US cents a month")
    stripe_customer = models.CharField(max_length=100)
    stripe_subscription = models.CharField(max_length=100, unique=True)
    status = models.CharField(max_length=20, choices=Status)
    period_end = models.DateTimeField()
    cancel_at_period_end = models.BooleanField(default=False)
    instance = models.ForeignKey(
        "farm.Instance", null=True, blank=True, on_delete=models.PROTECT, related_name="subscriptions"
    )
    """The newest terminal that was asked for under it."""
    late_at = models.DateTimeField(null=True, blank=True, help_text="Paid after its slot was given back.")
    grace_until = models.DateTimeField(null=True, blank=True, help_text="A payment failed; until then it runs on.")
    stopped_at = models.DateTimeField(null=True, blank=True, help_text="Its terminal is kept stopped since.")
    ends_at = models.DateTimeField(null=True, blank=True, help_text="Then the stopped terminal is destroyed.")
    ended_at = models.DateTimeField(null=True, blank=True, help_text="Over, and its terminal given up.")
    why = models.CharField(max_length=60, blank=True, help_text="Why it was stopped.")
    look_at = models.DateTimeField(
        null=True, blank=True, default=clock.now, help_text="When Stripe is asked again, whatever it told us."
    )
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer"], name="one_subscription", condition=Q(ended_at__isnull=True)),
        ]
        indexes = [
            # Read by presspass.billing.lapse; those at rest cost it nothing.
            models.Index(
                fields=["look_at"], name="subscription_due", condition=Q(look_at__isnull=False, ended_at__isnull=True)
            ),
            models.Index(
                fields=["stopped_at"],
                name="subscription_stopped",
                condition=Q(stopped_at__isnull=False, ended_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.plan} of {self.customer} ({self.status})"

    @property
    def price(self) -> str:
        return Plan(cents=self.cents).price

    @property
    def is_paid(self) -> bool:
        return self.status in {self.Status.ACTIVE, self.Status.TRIALING} and self.ended_at is None


class Refund(models.Model):
    """A subscription at Stripe that is to be cancelled and its last payment given back: done by a worker, once."""

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="refunds")
    stripe_subscription = models.CharField(max_length=100, unique=True)
    why = models.CharField(max_length=100)
    who = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=clock.now)
    done_at = models.DateTimeField(null=True, blank=True)
    cents = models.PositiveIntegerField(null=True, blank=True, help_text="What was given back.")
    attempts = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=200, blank=True)
    next_at = models.DateTimeField(null=True, blank=True, default=clock.now)

    class Meta:
        indexes = [models.Index(fields=["next_at"], name="refund_due", condition=Q(next_at__isnull=False))]

    def __str__(self) -> str:
        return f"refund of {self.stripe_subscription}"


class StripeEvent(models.Model):
    """What Stripe told us, once per event. Only names of its objects are kept: what they are is asked of Stripe."""

    event = models.CharField(max_length=100, unique=True)
    type = models.CharField(max_length=100)
    created = models.DateTimeField(help_text="By Stripe's clock.")
    names = models.JSONField(default=dict, help_text="The ids in it; no addresses, no cards.")
    received_at = models.DateTimeField(default=clock.now)
    handled_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=200, blank=True)
    next_at = models.DateTimeField(null=True, blank=True, default=clock.now)

    class Meta:
        verbose_name = "Stripe event"
        indexes = [models.Index(fields=["next_at"], name="stripe_event_due", condition=Q(next_at__isnull=False))]

    def __str__(self) -> str:
        return f"{self.type} {self.event}"
