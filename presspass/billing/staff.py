"""What staff ask for about payments: who paid and has no terminal, and money given back."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, QuerySet

from farm import clock, errors
from farm.models import Instance
from farm.states import Goal, Kind
from presspass.billing import refunds
from presspass.models import Checkout, Refund, Subscription

UNSOLVED = "paid, and no working terminal"


def unsolved(rows: QuerySet[Subscription]) -> QuerySet[Subscription]:
    """Paid for long enough, and no live terminal of theirs was ever proven or none is left."""
    proven = Instance.objects.filter(customer=OuterRef("customer"), kind=Kind.LIVE, proven_at__isnull=False)
    works = Exists(proven.exclude(goal=Goal.DESTROYED))
    since = clock.now() - timedelta(days=settings.UNSOLVED_DAYS)
    return rows.filter(~works, ended_at__isnull=True, stopped_at__isnull=True, created_at__lte=since)


def refund_subscription(row: Subscription, *, who: str) -> Refund:
    return refunds.ask(row.customer_id, row.stripe_subscription, why="by our staff", who=who)


def refund_checkout(row: Checkout, *, who: str) -> Refund:
    """Raise :class:`errors.Refused` for one that nothing was paid for, or that became a subscription."""
    if row.status != Checkout.Status.WRONG:
        raise errors.Refused("Only a payment that is not what was agreed is given back here.")
    return refunds.ask(row.customer_id, row.stripe_subscription, why="not what was agreed", who=who)
