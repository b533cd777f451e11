"""Facts about customers: who they are, and what we told them by mail."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from farm import clock
from presspass import addresses
from presspass.sales import Attempt, Checkout, Plan, Refund, StripeEvent, Subscription

__all__ = [
    "Alert",
    "Attempt",
    "Checkout",
    "Notice",
    "PastMailbox",
    "Plan",
    "Refund",
    "Run",
    "StripeEvent",
    "Subscription",
    "User",
    "UserManager",
]


def mailbox_mark(address: str) -> str:
    """What stands for the mailbox of a normalised address, whichever of its spellings was typed."""
    return addresses.mailbox_key(address, secret=settings.MAILBOX_KEY)


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Raise :class:`presspass.addresses.BadAddress` unless ``email`` is one that we can write to."""
        address = addresses.normalised(email)
        user = self.model(email=address, **{"mailbox": mailbox_mark(address), **fields})
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, **{**fields, "is_staff": True, "is_superuser": True})

    def get_by_natural_key(self, username: str | None) -> User:
        """Staff log in with a password; the case of what they type does not matter."""
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser, PermissionsMixin):
    """A customer or one of the staff. The e-mail is the login, always stored as presspass.addresses normalises it."""

    email = models.EmailField("e-mail", max_length=254, unique=True)
    email_verified_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When a link from a mail of ours was first used. Empty: anyone may have typed it.",
    )
    time_zone = models.CharField(max_length=64, blank=True, help_text="As the browser last said; empty is UTC.")
    sign_up_mark = models.CharField(
        max_length=64, blank=True, editable=False, help_text="Of the browser that signed up; see presspass.lifecycle."
    )
    mailbox = models.CharField(
        max_length=64, blank=True, editable=False, help_text="Keyed mark of the mailbox, one for all its spellings."
    )
    pass_ends_at = models.DateTimeField(
        "Press Pass ends",
        null=True,
        blank=True,
        help_text="Set where that is not simply so many days after its first start: renewed, or begun before.",
    )
    leaving_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When they asked for their account to be deleted."
    )
    date_joined = models.DateTimeField(default=clock.now, editable=False)
    is_active = models.BooleanField(default=True, help_text="May sign in.")
    is_staff = models.BooleanField(default=False, help_text="May use the admin.")

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_once"),
            models.CheckConstraint(name="user_email_lower_case", condition=Q(email=Lower("email"))),
            models.UniqueConstraint(fields=["mailbox"], name="user_mailbox_once", condition=~Q(mailbox="")),
        ]
        indexes = [
            # Read by farm's front page in the admin, and by presspass.lifecycle.leaving.
            models.Index(fields=["date_joined"], name="user_joined"),
            models.Index(fields=["leaving_at"], name="user_leaving", condition=Q(leaving_at__isnull=False)),
        ]
        permissions = [("renew_press_pass", "Can renew Press Passes")]

    def __str__(self) -> str:
        return self.email

    @property
    def verified(self) -> bool:
        return self.email_verified_at is not None

    def clean(self) -> None:
        """The base class would lower only the domain; ours lowers all of it, and says a refusal at the field."""
        try:
            self.email = addresses.normalised(self.email)
        except addresses.BadAddress as error:
            raise ValidationError({"email": error}) from error


class Notice(models.Model):
    """One mail that a customer is to get. Mail is sent from these rows alone, by presspass.lifecycle.notices.

    ``data`` holds what its words need and the journal does not say; never a secret: a sign-in link's token is made
    when the mail is written and stored nowhere.
    """

    class Kind(models.TextChoices):
        SIGN_IN_LINK = "sign-in link", "sign-in link"
        LIVE = "live", "live"
        REFUSED = "refused", "the broker refused"
        PAID_WITHOUT_SLOT = "paid without slot", "paid, no slot"
        PAYMENT_FAILED = "payment failed", "payment failed"
        STOPPED = "stopped", "stopped"
        RESUMED = "resumed", "runs again"
        ENDED = "ended", "ended"
        REFUNDED = "refunded", "refunded"
        IDLE_WARNING = "idle warning", "will be recycled"
        END_WARNING = "end warning", "days soon over"
        RECYCLED = "recycled", "was recycled"
        PASS_OVER = "pass over", "days over"
        SLOT_HELD = "slot held", "a slot is held"
        OFFER_PASSED = "offer passed", "the slot went on"
        SLOT_CAME = "slot came", "a slot came free"
        DOWN = "down", "its machine is down"
        UP_AGAIN = "up again", "runs on another machine"
        SILENT = "silent", "its machine is silent"
        HEARD = "heard", "its machine is heard again"

    customer = models.ForeignKey(User, on_delete=models.PROTECT, related_name="notices")
    kind = models.CharField(max_length=40, choices=Kind)
    transition = models.ForeignKey(
        "farm.Transition", null=True, blank=True, on_delete=models.PROTECT, related_name="notices"
    )
    """The journal line that it is news of; None for what the customer asked for."""
    about = models.CharField(max_length=120, blank=True, editable=False)
    """What else it is news of, an invoice for example; told once per customer and kind. Empty for none."""
    data = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=clock.now)
    sent_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(
        null=True, blank=True, default=clock.now, help_text="When it is sent, or tried again; empty: never again."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["transition", "kind"], name="notice_once_per_news"),
            models.UniqueConstraint(
                fields=["customer", "kind", "about"], name="notice_once_about", condition=~Q(about="")
            ),
        ]
        indexes = [
            # Read by send_notices; what was sent costs it nothing.
            models.Index(fields=["next_at"], name="notice_due", condition=Q(next_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.kind} to customer {self.customer_id}"


class PastMailbox(models.Model):
    """What is left of an account that was deleted: a keyed mark, so that its free days are not given out twice."""

    mark = models.CharField(max_length=64, unique=True)
    pass_ends_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"a mailbox whose Press Pass ends {self.pass_ends_at:%Y-%m-%d}"


class Run(models.Model):
    """The last run of a command that must run every few minutes, so that it is noticed when it does not."""

    name = models.CharField(max_length=40, unique=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    counts = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"{self.name}, begun {self.started_at:%Y-%m-%d %H:%M:%S} UTC"


class Alert(models.Model):
    """Something that a person must see to; told by mail once, and gone when its cause is."""

    cause = models.CharField(max_length=60, unique=True)
    text = models.CharField(max_length=300)
    since = models.DateTimeField(default=clock.now)
    told_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.text
