"""What a broker login may look like. Pure: what is wrong is said in a sentence, for the field that it is wrong in.

The values become lines of a start-up file: whatever could end a line, hide or turn round what is read is refused.
"""

from __future__ import annotations

import re

SERVER_LONGEST = 64
PASSWORD_SHORTEST, PASSWORD_LONGEST = 4, 32
LOGIN_LARGEST = 2**63 - 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?: [A-Za-z0-9._-]+)*\Z")
_PLACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?:([0-9]{1,5})\Z")
_NUMBER = re.compile(r"[1-9][0-9]{2,18}\Z")
_PASSWORD = re.compile(r"[ -~]+\Z")


class BadLogin(ValueError):
    """The message says what is wrong, and never what was typed."""


def server(text: str) -> str:
    """A broker server's name, or ``host:port``; blanks around it are taken away."""
    name = text.strip(" ")
    if not name:
        raise BadLogin("Type or pick your broker's server.")
    if len(name) > SERVER_LONGEST:
        raise BadLogin(f"That is longer than any server's name: at most {SERVER_LONGEST} characters.")
    place = _PLACE.match(name)
    if place and 0 < int(place[1]) < 65536:
        return name
    if not _NAME.match(name):
        raise BadLogin("A server's name has letters, digits, dots, hyphens and single blanks in it, nothing else.")
    return name


def number(text: str) -> int:
    digits = text.strip(" ")
    if not digits:
        raise BadLogin("Type the number of your account.")
    if not _NUMBER.match(digits) or int(digits) > LOGIN_LARGEST:
        raise BadLogin("The login is the number of your account: 3 to 19 digits, without blanks or signs.")
    return int(digits)


def password(text: str) -> str:
    """As typed, letter by letter: nothing is taken away from it."""
    if not text:
        raise BadLogin("Type the password that may trade, not the investor's.")
    if not PASSWORD_SHORTEST <= len(text) <= PASSWORD_LONGEST:
        raise BadLogin(f"A password has {PASSWORD_SHORTEST} to {PASSWORD_LONGEST} characters.")
    if not _PASSWORD.match(text):
        raise BadLogin("That has a character in it that no MetaTrader password has: use those of a US keyboard.")
    if text != text.strip(" "):
        raise BadLogin("There is a blank before or after the password; it was probably copied along.")
    return text


def doubt(text: str) -> str:
    """What is odd about a password that may all the same be right; empty if nothing."""
    if 8 <= len(text) <= 16:
        return ""
    return (
        f"The password has {len(text)} characters; MetaTrader's own have 8 to 16. If your broker says no, look there "
        "first."
    )
