"""The customer's page: the terminal that it is about, what stands beside that one, and the plan that is paid for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo

from django.conf import settings

from farm import clock
from farm.models import Instance
from farm.states import Goal, Kind, Status
from presspass import moments
from presspass.billing import checkout, refunds
from presspass.lifecycle import coming, passes
from presspass.models import Subscription, User
from presspass.telling import Told
from presspass.telling.living import is_refused

ROWS = 12
"""How far back the page looks for what stands beside."""


@dataclass(frozen=True)
class Beside:
    """Another terminal of the customer's, in a sentence."""

    what: str
    headline: str
    mark: str
    below: tuple[str, ...] = ()
    corrects: bool = False
    """Whether a corrected login is the way on from it."""


@dataclass(frozen=True)
class Bought:
    name: str
    price: str
    lines: tuple[str, ...]
    may_refund: bool


@dataclass(frozen=True)
class Shown:
    told: Told
    instance_id: int | None
    beside: tuple[Beside, ...] = ()
    bought: Bought | None = None


def shown(customer: User, *, zone: tzinfo) -> Shown:
    mine = Instance.objects.filter(customer_id=customer.pk).select_related("host", "port", "account")
    rows = list(mine.order_by("-pk")[:ROWS])
    main = _main(rows)
    beside = [_beside(customer, row, zone=zone) for row in _others(rows, main)]
    return Shown(
        told=passes.told(customer, main, zone=zone),
        instance_id=main.pk if main else None,
        beside=tuple(beside),
        bought=_bought(customer, zone=zone),
    )


def _main(rows: list[Instance]) -> Instance | None:
    """The newest live terminal that is meant to be, else the newest of the others; what is gone only if all are."""
    wanted = [row for row in rows if row.goal != Goal.DESTROYED]
    live = next((row for row in wanted if row.kind == Kind.LIVE), None)
    return live or next(iter(wanted), None) or next(iter(rows), None)


def _others(rows: list[Instance], main: Instance | None) -> list[Instance]:
    """What else there is, and a last login that the broker refused."""
    others = [row for row in rows if row is not main and row.status != Status.DESTROYED and not is_refused(row)]
    away = coming.went_on(others) if others else set()
    others = [row for row in others if row.pk not in away]
    last = next((row for row in rows if row.kind == Kind.LIVE), None)
    if last is not None and last is not main and is_refused(last):
        others.insert(0, last)
    return others


def _beside(customer: User, row: Instance, *, zone: tzinfo) -> Beside:
    told = passes.told(customer, row, zone=zone)
    refused = is_refused(row)
    live = "Your last login" if refused else "Your live terminal so far"
    what = live if row.kind == Kind.LIVE else "Your demo"
    return Beside(what, told.headline, told.mark.value, told.below if refused else (), corrects=refused)


def _bought(customer: User, *, zone: tzinfo) -> Bought | None:
    row = checkout.subscription_of(customer)
    if row is None:
        return None
    return Bought(row.plan.name, f"{row.price} a month", tuple(_lines(row, zone)), refunds.may_ask(customer, row))


def _lines(row: Subscription, zone: tzinfo) -> list[str]:
    now = clock.now()
    period = moments.at_and_away(row.period_end, now=now, zone=zone)
    if row.ends_at is not None:
        until = moments.at_and_away(row.ends_at, now=now, zone=zone)
        payable = row.status != Subscription.Status.CANCELED and row.why == "not paid"
        more = ["Pay before that, and it starts again by itself."] if payable else []
        return [f"Your terminal is kept stopped until {until}, and destroyed then.", *more]
    if row.grace_until is not None:
        until = moments.at_and_away(row.grace_until, now=now, zone=zone)
        return [f"A payment failed. Your terminal runs on until {until}; paid by then, nothing changes."]
    if row.cancel_at_period_end:
        days = f"{settings.GRACE_DAYS:g} days"
        return [f"Cancelled: it runs until {period}, is stopped then, and destroyed {days} later. Close what is open."]
    return [f"Paid until {period}; renews by itself."]
