"""Logins at brokers, and those that a broker refused."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from farm import clock
from farm.models.words import words
from farm.states import Refusal


class BrokerAccount(models.Model):
    """A login at a broker: a customer's own, or one of the vault's demo accounts (no owner)."""

    server = models.CharField(max_length=64)
    login = models.BigIntegerField()
    password = models.TextField(editable=False, help_text="Encrypted; see farm.vault.")
    fingerprint = models.CharField(
        max_length=64, blank=True, editable=False, help_text="Keyed hash of server, login and password; see farm.vault."
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="broker_accounts"
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True, help_text="Given to no instance from then on.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["server", "login"], name="vault_account_once", condition=Q(owner__isnull=True)
            ),
            models.CheckConstraint(name="account_login_positive", condition=Q(login__gt=0)),
        ]

    def __str__(self) -> str:
        return f"{self.login} on {self.server}"


class RefusedLogin(models.Model):
    """A server, login and password that a broker refused: not tried again by themselves until staff clear it."""

    fingerprint = models.CharField(max_length=64, unique=True, editable=False)
    server_key = models.CharField(max_length=64)
    refusal = models.CharField(max_length=20, choices=words(Refusal))
    at = models.DateTimeField(default=clock.now)

    class Meta:
        indexes = [
            # Read by farm.vault: how many of ours a broker refused lately.
            models.Index(fields=["server_key", "at"], name="refused_by_server"),
        ]

    def __str__(self) -> str:
        return f"{self.server_key}: {self.refusal}"
