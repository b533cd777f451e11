"""A customer's Press Pass: what there is to tell of it, and what they may do with it."""

from __future__ import annotations

import logging
import statistics
from datetime import datetime, timedelta, tzinfo

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max, Min

from farm import clock, errors, keepsakes, silence
from farm import lifecycle as farm_lifecycle
from farm.models import Instance, Transition
from farm.states import Goal, Kind, Status
from presspass.billing import checkout
from presspass.errors import NotTheirs, NotVerified, TrialOver
from presspass.lifecycle import coming
from presspass.models import Attempt, User
from presspass.telling import Situation, Told, tell, tell_nothing

log = logging.getLogger(__name__)

JOURNAL_LINES = 60
STARTS_LOOKED_AT = 20


def told(customer: User, row: Instance | None, *, zone: tzinfo) -> Told:
    """What the customer's page says of ``row`` now; a few small queries, whatever the number of rows."""
    its = situation(customer, row, zone=zone)
    return tell_nothing(its) if row is None else tell(row, its)


def situation(customer: User, row: Instance | None, *, zone: tzinfo) -> Situation:
    position = None if row is None else farm_lifecycle.waiting_position(row)
    outlook = None if row is None else silence.outlook(row)
    ends_at = (row.ends_at if row is not None else None) or trial_ends_at(customer)
    return Situation(
        now=clock.now(),
        zone=zone,
        verified=customer.verified,
        journal=[] if row is None else list(row.transitions.order_by("-pk")[:JOURNAL_LINES])[::-1],
        position=position,
        usual_seconds=usual_start_seconds() if row is not None and row.status in _WAY_UP else None,
        trial_ends_at=ends_at,
        held_until=row.held_until if row is not None and row.kind == Kind.PRESS_PASS else None,
        expected=None if position is None else farm_lifecycle.expected_wait(position),
        kept_until=keepsakes.kept_until(customer.pk) if row is not None and row.goal == Goal.DESTROYED else None,
        keep_days=settings.KEEPSAKE_DAYS,
        trial_days=settings.PRESS_PASS_DAYS,
        idle_after=timedelta(hours=settings.IDLE_HOURS),
        survey_fresh=timedelta(seconds=settings.SURVEY_FRESH_SECONDS),
        sold=checkout.is_sold(),
        subscribed=checkout.subscription_of(customer) is not None,
        server=_typed_server(row),
        support=settings.SUPPORT_EMAIL,
        elsewhere_at=outlook.elsewhere_at if outlook else None,
        held_back=bool(outlook and outlook.brake),
        came=None if row is None else coming.came(row),
    )


def _typed_server(row: Instance | None) -> str:
    if row is None or row.kind != Kind.LIVE:
        return ""
    return Attempt.objects.filter(instance=row).values_list("server", flat=True).first() or ""


_WAY_UP = frozenset({Status.REQUESTED, Status.CLONING, Status.INJECTING, Status.STARTING})


def trial_ends_at(customer: User) -> datetime | None:
    """The end that stands in the rows, whatever ``PRESS_PASS_DAYS`` says by now.

    Before one does, it counts from when the customer's first one first ran; None while none ever did.
    """
    if customer.pass_ends_at is not None:
        return customer.pass_ends_at
    mine = Instance.objects.filter(customer_id=customer.pk, kind=Kind.PRESS_PASS)
    found = mine.aggregate(first=Min("first_running_at"), ends=Max("ends_at"))
    ends: datetime | None = found["ends"]
    first: datetime | None = found["first"]
    if ends is not None or first is None:
        return ends
    return first + timedelta(days=settings.PRESS_PASS_DAYS)


def usual_start_seconds() -> float | None:
    """The median of the last start-ups, from slot reserved to running; None without any to go by."""
    newest = Instance.objects.filter(first_running_at__isnull=False).order_by("-pk")
    found = newest.values_list("pk", "first_running_at")[:STARTS_LOOKED_AT]
    rows = {pk: first for pk, first in found if first is not None}
    reserved = Transition.objects.filter(instance_id__in=rows, was=Status.WAITING, became=Status.REQUESTED)
    took = [
        (rows[instance] - at).total_seconds()
        for instance, at in reserved.values_list("instance_id", "at")
        if rows[instance] > at
    ]
    return statistics.median(took) if took else None


def start_again(customer: User) -> Instance:
    """Ask for a new Press Pass terminal in place of the one that ended; one that has not ended is simply returned.

    Raise :class:`NotVerified` or :class:`TrialOver`.
    """
    _require_verified(customer)
    ends_at = trial_ends_at(customer)
    if ends_at is not None and ends_at <= clock.now():
        raise TrialOver
    try:
        with transaction.atomic():
            User.objects.select_for_update().get(pk=customer.pk)  # two clicks: the second finds what the first made
            before = farm_lifecycle.current(customer.pk)
            if before is not None and before.goal != Goal.DESTROYED:
                return before
            return farm_lifecycle.request(
                customer_id=customer.pk,
                kind=Kind.PRESS_PASS,
                who=f"customer:{customer.pk}",
                replaces=before,
                ends_at=ends_at,
            )
    except IntegrityError as error:
        there = farm_lifecycle.current(customer.pk)
        if there is None or there.goal == Goal.DESTROYED:
            raise errors.Refused from error
        return there


def accept_slot(customer: User, instance_id: int) -> None:
    """Take the slot that is held. No confirmed address is asked for: who waits may have no other way in yet."""
    farm_lifecycle.accept(_theirs(customer, instance_id).pk, who=f"customer:{customer.pk}")


@transaction.atomic
def renew(customer: User, *, days: float, who: str) -> datetime:
    """Give the customer so many days of Press Pass more, from now or from when it would have ended."""
    ends_at = trial_ends_at(customer)
    anew = max(ends_at or clock.now(), clock.now()) + timedelta(days=days)
    User.objects.filter(pk=customer.pk).update(pass_ends_at=anew)
    customer.pass_ends_at = anew
    farm_lifecycle.set_end(customer.pk, anew)
    log.info("Press Pass renewed", extra={"customer": customer.pk, "who": who, "ends_at": anew.isoformat()})
    return anew


def restart(customer: User, instance_id: int) -> None:
    """Raise :class:`errors.Refused` with a sentence for the customer."""
    _require_verified(customer)
    farm_lifecycle.restart(_theirs(customer, instance_id).pk, who=f"customer:{customer.pk}")


def end(customer: User, instance_id: int) -> None:
    """End the Press Pass; ended already is success. Raise :class:`errors.Refused`."""
    _require_verified(customer)
    row = _theirs(customer, instance_id)
    if row.kind != Kind.PRESS_PASS:
        raise errors.Refused("Only a Press Pass is ended here.")
    farm_lifecycle.end(row.pk, why="ended by its customer", who=f"customer:{customer.pk}")


def _theirs(customer: User, instance_id: int) -> Instance:
    row = Instance.objects.filter(pk=instance_id, customer_id=customer.pk).first()
    if row is None:
        raise NotTheirs
    return row


def _require_verified(customer: User) -> None:
    """Until a link from their mail was used, anybody may have typed that address; they get to look, not to act."""
    if not customer.verified:
        raise NotVerified
