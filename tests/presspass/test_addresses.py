"""Which addresses we take, and when two are one mailbox."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presspass import addresses
from presspass.addresses import BadAddress

REFUSED = {
    "empty": "",
    "no at": "ann.example.com",
    "no dot in the domain": "ann@localhost",
    "two at": "ann@b@example.com",
    "a space inside": "ann smith@example.com",
    "a display name": "Ann <ann@example.com>",
    "a quoted local part": '"ann"@example.com',
    "an address instead of a domain": "ann@[127.0.0.1]",
    "a header after a line feed": "ann@example.com\nBcc: eve@example.com",
    "a header after a carriage return": "ann@example.com\rBcc: eve@example.com",
    "a header as the local part": "a\r\nBcc:eve@example.com",
    "a null": "ann\x00@example.com",
    "a zero width space": "an\u200bn@example.com",
    "a right-to-left override": "ann\u202e@example.com",
    "a Cyrillic letter before the at": "\u0430nn@example.com",
    "an umlaut before the at": "\u00e4nn@example.com",
    "a Cyrillic letter in a Latin domain": "ann@gm\u0430il.com",
    "the same, written in its ASCII form": "ann@xn--gmil-63d.com",
    "a local part that is too long": "a" * 65 + "@example.com",
    "an address that is too long": "a@" + ".".join(["b" * 60] * 5) + ".com",
    "a megabyte": "a" * 1_000_000 + "@example.com",
    "a domain that is never real": "ann@example.invalid",
    "a test domain": "ann@somewhere.test",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_a_sentence(raw):
    with pytest.raises(BadAddress) as refusal:
        addresses.normalised(raw)
    assert refusal.value.messages[0].endswith(("hand.", "com.", "seen.", "characters."))


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("Ann.Smith@GMAIL.com", "ann.smith@gmail.com"),
        ("  ann@example.com\n", "ann@example.com"),
        ("ann@b\u00fccher.de", "ann@xn--bcher-kva.de"),
        ("ann@bu\u0308cher.de", "ann@xn--bcher-kva.de"),  # the same letter in two code points
        ("ann@\uff47mail.com", "ann@gmail.com"),  # full width
        ("ann@\u043f\u043e\u0447\u0442\u0430.\u0440\u0444", "ann@xn--80a1acny.xn--p1ai"),  # all of one alphabet
    ],
)
def test_one_way_to_write_an_address(raw, written):
    assert addresses.normalised(raw) == written


@given(st.text(max_size=80) | st.emails())
def test_whatever_is_taken_is_plain_and_taken_again_unchanged(raw):
    try:
        address = addresses.normalised(raw)
    except BadAddress:
        return
    assert address.isascii()
    assert address.isprintable()
    assert address == address.lower()
    assert len(address) <= 254
    assert addresses.normalised(address) == address


@pytest.mark.parametrize("domain", ["mailinator.com", "anything.mailinator.com"])
def test_mailboxes_that_vanish_are_known_by_their_parents_too(domain):
    assert addresses.is_disposable(f"ann@{domain}")


@pytest.mark.parametrize("domain", ["example.com", "gmail.com", "mailinator.com.example.org"])
def test_others_are_not_taken_for_them(domain):
    assert not addresses.is_disposable(f"ann@{domain}")


def key(address):
    return addresses.mailbox_key(address, secret="s")


@pytest.mark.parametrize("other", ["ann+x@example.com", "ann+x+y@example.com"])
def test_tags_do_not_make_another_mailbox(other):
    assert key(other) == key("ann@example.com")


def test_gmail_dots_do_not_make_another_mailbox():
    assert key("a.n.n+x@googlemail.com") == key("ann@gmail.com")


def test_dots_elsewhere_do():
    assert key("a.nn@example.com") != key("ann@example.com")


def test_a_mailbox_key_says_nothing_without_the_secret():
    assert addresses.mailbox_key("ann@example.com", secret="another") != key("ann@example.com")
    assert "ann" not in key("ann@example.com")
