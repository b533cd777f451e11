"""What a customer may be told no for, besides what farm.errors says.

Refused (farm)
    NotVerified     the address is not confirmed, and this is more than looking
    TrialOver       the days of the Press Pass are used up
    NotSold         live terminals are not sold here, or the customer has one
    NotTheirs       no such terminal, or another customer's: the same answer for both
BadLink             a sign-in link that is used, expired or never was one
Overtaken           a mail that has nothing true to say any more
Later               a mail that has nothing true to say yet; says when to look again
TooMany             asked more often than the limit; says when to ask again
"""

from __future__ import annotations

from datetime import datetime

from farm.errors import Refused


class NotVerified(Refused):
    """Confirm your address first: we send you a link, and it leads back here."""


class TrialOver(Refused):
    """The 7 days of your Press Pass are over."""


class NotSold(Refused):
    """Live terminals are not sold here at the moment."""


class NotTheirs(Refused):
    """There is no such terminal."""


class BadLink(Exception):
    """This link was used already, has expired, or is not complete."""


class Overtaken(Exception):
    """What a mail was to say is no longer so: it is not sent."""


class Later(Exception):
    """What a mail is to say may still become so: it is looked at again."""

    def __init__(self, at: datetime) -> None:
        super().__init__(f"looked at again at {at:%H:%M:%S} UTC")
        self.at = at


class TooMany(Exception):
    """Asked too often from here."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"asked too often; again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class StripeSilent(Exception):
    """Stripe did not answer, or could not be asked. What was asked for may have happened all the same."""


class StripeRefused(Exception):
    """Stripe understood, and said no. ``code`` is its word for why."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code
