"""A customer's rights over what is stored about them: to have all of it, and to have it deleted.

ask       they confirm it: signed out everywhere at once, their terminals are destroyed
finish    once those are gone: nothing is left that names them, but what must be kept

Kept are payments (amounts, dates and Stripe's own names for them), the farm's journal of numbers that then belong to
nobody, and a keyed mark of the mailbox, from which the address cannot be read, so that free days are given once.
"""

from __future__ import annotations

import base64
import logging
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from farm import clock, errors
from farm import lifecycle as farm_lifecycle
from farm.models import BrokerAccount, Instance, Keepsake, Ticket, Transition
from farm.states import Goal, Status
from presspass.errors import NotVerified
from presspass.lifecycle import passes
from presspass.models import Attempt, Checkout, Notice, PastMailbox, Refund, Subscription, User

BATCH = 100
OWED = "Your plan runs: cancel it first, under Manage the payment. Then your account can go."
PAYING = "A payment of yours is open: cancel it first."

log = logging.getLogger(__name__)


# --- all of it --------------------------------------------------------------------------------------------------------


def export(customer: User) -> dict[str, Any]:
    """Everything that is stored about the customer, but secrets: a password is closed to us as well."""
    if not customer.verified:
        raise NotVerified
    names = ("email", "email_verified_at", "time_zone", "date_joined", "last_login", "pass_ends_at")
    return {
        "exported_at": _plain(clock.now()),
        "account": {name: _plain(getattr(customer, name)) for name in names},
        "terminals": [_terminal(row) for row in customer.instances.order_by("pk").prefetch_related("transitions")],
        "broker_accounts": _rows(BrokerAccount.objects.filter(owner=customer), "server", "login", "created_at"),
        "logins_typed": _rows(Attempt.objects.filter(instance__customer=customer), "instance_id", "server", "login"),
        "mails": _rows(Notice.objects.filter(customer=customer), "kind", "created_at", "sent_at", "data"),
        "kept_of_your_terminals": [_kept(one) for one in Keepsake.objects.filter(customer=customer)],
        "payments": _rows(
            Checkout.objects.filter(customer=customer),
            "plan__name", "cents", "status", "created_at", "expires_at", "stripe_session", "stripe_subscription",
        ),
        "plans": _rows(
            Subscription.objects.filter(customer=customer),
            "plan__name", "cents", "status", "created_at", "period_end", "ended_at", "stripe_customer",
            "stripe_subscription",
        ),
        "refunds": _rows(Refund.objects.filter(customer=customer), "why", "cents", "created_at", "done_at"),
    }  # fmt: skip


def _terminal(row: Instance) -> dict[str, Any]:
    names = (
        "id", "kind", "status", "connection", "folder", "created_at", "first_running_at", "status_since", "activity_at",
        "heartbeat_at", "ends_at", "facts", "refusal", "refusal_text",
    )  # fmt: skip
    lines = sorted(row.transitions.all(), key=lambda line: line.pk)
    journal = [{name: _plain(getattr(line, name)) for name in ("at", "was", "became", "why", "who")} for line in lines]
    return {name: _plain(getattr(row, name)) for name in names} | {"journal": journal}


def _kept(one: Keepsake) -> dict[str, Any]:
    archive = base64.b64encode(bytes(one.data)).decode()
    return {"made_at": _plain(one.made_at), "bytes": one.size, "sha256": one.digest, "archive_base64": archive}


def _rows(rows: Any, *names: str) -> list[dict[str, Any]]:
    return [{name: _plain(value) for name, value in row.items()} for row in rows.order_by("pk").values(*names)]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


# --- none of it -------------------------------------------------------------------------------------------------------


def ask(customer: User) -> None:
    """Begin to delete the account. Raise :class:`errors.Refused` while something is being paid for."""
    if not customer.verified:
        raise NotVerified
    if customer.is_staff or customer.is_superuser:
        raise errors.Refused("Staff accounts are deleted by other staff.")
    with transaction.atomic():
        User.objects.select_for_update().get(pk=customer.pk)
        if Subscription.objects.filter(customer=customer, ended_at__isnull=True).exists():
            raise errors.Refused(OWED)
        if Checkout.objects.filter(customer=customer, status=Checkout.Status.OPEN).exists():
            raise errors.Refused(PAYING)
        customer.leaving_at = clock.now()
        customer.is_active = False  # from now on every session of theirs is nobody's
        customer.set_unusable_password()
        customer.save(update_fields=["leaving_at", "is_active", "password"])
        Notice.objects.filter(customer=customer, sent_at__isnull=True).update(next_at=None)
    for row in customer.instances.exclude(goal=Goal.DESTROYED).order_by("pk"):
        _end(row, customer)


def finish() -> int:
    """Delete what is left of customers whose terminals are all gone; return how many. One that fails stops nobody."""
    done = 0
    for customer in User.objects.filter(leaving_at__isnull=False).order_by("leaving_at")[:BATCH]:
        try:
            done += _finished(customer)
        except Exception:
            log.exception("an account could not be deleted", extra={"customer": customer.pk})
    return done


def _finished(customer: User) -> bool:
    left = customer.instances.exclude(status=Status.DESTROYED)
    if left.exists():
        for row in left.exclude(goal=Goal.DESTROYED).order_by("pk"):
            _end(row, customer)  # it was just moving by itself when it was first asked
        return False
    with transaction.atomic():
        _delete(User.objects.select_for_update().get(pk=customer.pk))
    log.info("account deleted", extra={"customer": customer.pk})
    return True


def _end(row: Instance, customer: User) -> None:
    try:
        farm_lifecycle.end(row.pk, why="its customer leaves", who=f"customer:{customer.pk}")
    except errors.ClaimLost:
        log.info("asked again later", extra={"instance": row.pk})


def _delete(customer: User) -> None:
    ends_at = passes.trial_ends_at(customer)
    if customer.mailbox and ends_at is not None:
        PastMailbox.objects.update_or_create(mark=customer.mailbox, defaults={"pass_ends_at": ends_at})
    mine = Instance.objects.filter(customer=customer)
    Ticket.objects.filter(instance__in=mine).delete()
    Keepsake.objects.filter(customer=customer).delete()
    Notice.objects.filter(customer=customer).delete()
    Attempt.objects.filter(instance__in=mine).delete()
    mine.filter(account__owner=customer).update(account=None)
    BrokerAccount.objects.filter(owner=customer).delete()
    mine.update(facts={}, refusal_text="", reason_detail="")
    Transition.objects.filter(instance__in=mine, noticed_at__isnull=True).update(noticed_at=clock.now())
    kind = ContentType.objects.get_for_model(User)
    LogEntry.objects.filter(content_type=kind, object_id=str(customer.pk)).update(object_repr="deleted")
    customer.email = f"deleted-{customer.pk}@deleted.invalid"
    customer.mailbox = customer.time_zone = customer.sign_up_mark = ""
    customer.email_verified_at = customer.last_login = customer.pass_ends_at = customer.leaving_at = None
    customer.set_unusable_password()
    customer.save()


def kept() -> tuple[str, ...]:
    """What is not deleted, and why, for the page that asks."""
    return (
        "Payments: amounts, dates and the names that Stripe gave them. The law asks us to.",
        "A mark made of your mailbox with a key, from which the address cannot be read: so that free days are given "
        "once.",
        "The journal of the machines: numbers, times and states that then belong to nobody.",
        f"Copies in backups go with the backups. Questions: {settings.SUPPORT_EMAIL}.",
    )
