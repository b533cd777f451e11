"""Somebody types an address on the first page."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import timedelta

from django.db import IntegrityError, transaction

from farm import clock
from farm import lifecycle as farm_lifecycle
from farm.states import Kind
from presspass import moments
from presspass.lifecycle.links import known_customer
from presspass.models import PastMailbox, User, mailbox_mark

SAME_SUBMISSION = timedelta(minutes=1)
"""A form sent twice from one browser within this time is one sign-up."""


@dataclass(frozen=True)
class Joined:
    """``signs_in``: this browser may go on at once. False: the address is known, and only its mailbox may answer."""

    customer: User
    signs_in: bool


def join(email: str, *, mark: str, time_zone: str = "") -> Joined:
    """Make a customer of a normalised address and ask for their terminal, both or neither; or find the known one.

    Another spelling of a known mailbox is the known customer: one mailbox has one Press Pass.

    ``mark`` stands for the sending browser before it was signed in (its CSRF secret, hashed; signing in changes that).
    Of a form sent twice, the second finds the customer that the first made: if it bears the same mark and comes within
    a minute, it is the same person at the same click, not somebody else who knows the address.
    """
    known = known_customer(email)
    if known is None:
        try:
            return Joined(_new(email, mark=mark, time_zone=time_zone), signs_in=True)
        except IntegrityError:
            known = known_customer(email)
            if known is None:
                raise
    return Joined(known, signs_in=_is_same_submission(known, mark))


def remember_zone(customer: User, name: str) -> None:
    """Keep what the browser says of its time zone, for mails; a name that is none is not kept."""
    if name != customer.time_zone and moments.is_zone(name):
        User.objects.filter(pk=customer.pk).update(time_zone=name)
        customer.time_zone = name


@transaction.atomic
def _new(email: str, *, mark: str, time_zone: str) -> User:
    zone = time_zone if moments.is_zone(time_zone) else ""
    past = PastMailbox.objects.filter(mark=mailbox_mark(email)).values_list("pass_ends_at", flat=True).first()
    customer = User.objects.create_user(email, sign_up_mark=mark, time_zone=zone, pass_ends_at=past)
    if past is None or past > clock.now():
        farm_lifecycle.request(
            customer_id=customer.pk, kind=Kind.PRESS_PASS, who=f"customer:{customer.pk}", ends_at=past
        )
    return customer


def _is_same_submission(known: User, mark: str) -> bool:
    if not mark or known.verified or known.is_staff or not known.is_active:
        return False
    fresh = clock.now() - known.date_joined < SAME_SUBMISSION
    return fresh and hmac.compare_digest(known.sign_up_mark.encode(), mark.encode())
