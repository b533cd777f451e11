"""E-mail addresses: which ones we take, how we write them, and when two are one mailbox. Pure; asks no DNS."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata

from disposable_email_domains import blocklist
from django.core.exceptions import ValidationError
from email_validator import EmailNotValidError, validate_email

LONGEST = 254
"""RFC 5321's limit on a path, without its angle brackets."""

_GMAIL = frozenset({"gmail.com", "googlemail.com"})
_DISPOSABLE = frozenset(blocklist)
_ONE_SCRIPT_ONLY = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "GEORGIAN"})
"""Alphabets whose letters pass for each other; a name that mixes two of them is made to deceive."""


class BadAddress(ValidationError):
    """An address that we do not take; the message is for whoever typed it."""


def normalised(raw: str) -> str:
    """The one way we write this address: lower case, its domain in ASCII. Raise :class:`BadAddress` if it is none.

    The part before the @ is lowered too: servers that tell ``Ann@`` from ``ann@`` are all but extinct, people who type
    either are not.
    """
    text = unicodedata.normalize("NFC", raw.strip())
    if len(text) > LONGEST:
        raise BadAddress(f"That address is too long. Addresses have at most {LONGEST} characters.", code="too_long")
    if any(unicodedata.category(letter).startswith("C") for letter in text):
        raise BadAddress("That address contains a character that can't be seen.", code="invisible")
    local, at, _ = text.rpartition("@")
    if at and not local.isascii():
        raise BadAddress(
            "Before the @ we can only take plain letters, digits and signs. If yours looks plain, type it by hand.",
            code="look_alike",
        )
    try:
        found = validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError as error:
        raise BadAddress(
            "That is not a complete e-mail address. It should look like name@example.com.", code="invalid"
        ) from error
    if any(_mixes_alphabets(label) for label in found.domain.split(".")):
        raise BadAddress("That domain mixes letters of different alphabets. Type it by hand.", code="look_alike")
    address = (found.ascii_email or "").lower()
    if not address or len(address) > LONGEST:
        raise BadAddress(f"That address is too long. Addresses have at most {LONGEST} characters.", code="too_long")
    return address


def is_disposable(address: str) -> bool:
    """Whether the domain of a normalised address, or a parent of it, gives away mailboxes that vanish."""
    labels = address.rpartition("@")[2].split(".")
    return any(".".join(labels[start:]) in _DISPOSABLE for start in range(len(labels) - 1))


def mailbox_key(address: str, *, secret: str) -> str:
    """The same for all spellings that end in one mailbox (tags, Gmail's dots); tells nothing of the address itself."""
    local, _, domain = address.rpartition("@")
    local = local.partition("+")[0] or local
    if domain in _GMAIL:
        local, domain = local.replace(".", "") or local, "gmail.com"
    return hmac.new(secret.encode(), f"mailbox {local}@{domain}".encode(), hashlib.sha256).hexdigest()


def _mixes_alphabets(label: str) -> bool:
    scripts = {unicodedata.name(letter, "?").split()[0] for letter in label if letter.isalpha()}
    return len(scripts & _ONE_SCRIPT_ONLY) > 1
