"""What is refused before anything is done with it, and what survives the wire."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from farm.agent import protocol

KEY, OTHER = SigningKey(b"k" * 32), SigningKey(b"o" * 32)
SEAL = PrivateKey(b"s" * 32)


def order(**changes):
    facts = {
        "verb": "inject", "host": "alpha", "instance": 7, "epoch": 1, "generation": 3, "issued_at": 1.0,
        "folder": "user_7", "port": 9000, "magic": 7, "kind": "live", "server": "Demo", "login": 5001,
    }  # fmt: skip
    return protocol.Order(**(facts | changes))


def credentials(**changes):
    facts = {"host": "alpha", "instance": 7, "epoch": 1, "generation": 3, "server": "Demo", "login": 5001}
    return protocol.Credentials(**({**facts, "password": "pa55-Word"} | changes))


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", "C:", "x:stream", "nul", "CON", "com1", "LPT9.txt", "COM¹", "ends.", "ends ", " a",
     "-a", "a" * 65, "a\x00b", "a\nb", "ü", "a..b", "~", "%TEMP%", "$x"],
)  # fmt: skip
def test_a_name_that_could_leave_the_farm_or_break_windows_is_refused(name):
    with pytest.raises(protocol.BadName):
        protocol.checked_name(name)


@pytest.mark.parametrize("name", ["user_1", "user_12-3", "host-1.example", "BITTEN_MASTER", "console"])
def test_a_plain_name_is_taken(name):
    assert protocol.checked_name(name) == name


@pytest.mark.parametrize("field", ["host", "folder"])
def test_an_order_with_a_name_that_leaves_the_farm_cannot_even_be_made(field):
    with pytest.raises(protocol.BadName):
        order(**{field: "../x"})


def test_a_signature_by_another_key_is_refused():
    with pytest.raises(protocol.Forged):
        protocol.opened(protocol.sign(order(), OTHER), [KEY.verify_key])


def test_a_changed_text_is_refused():
    envelope = protocol.sign(order(), KEY)
    envelope["body"] = envelope["body"].replace('"instance":7', '"instance":8')
    with pytest.raises(protocol.Forged):
        protocol.opened(envelope, [KEY.verify_key])


@pytest.mark.parametrize(
    "envelope", [{}, {"body": "x"}, {"body": 1, "signature": "x"}, {"body": "x", "signature": "?"}]
)
def test_what_is_no_envelope_is_refused(envelope):
    with pytest.raises(protocol.Malformed):
        protocol.opened(envelope, [KEY.verify_key])


def test_a_text_that_is_nested_without_end_is_malformed_and_nothing_worse():
    deep = "[" * 100_000
    with pytest.raises(protocol.Malformed):
        protocol.Order.parse(deep)
    with pytest.raises(protocol.Malformed):
        protocol.claimed_host({"body": deep})


def test_a_report_is_not_taken_for_an_order():
    report = protocol.Report(host="alpha", instance=7, epoch=1, generation=3, verb="clone", outcome="done", sent_at=1.0)
    with pytest.raises(protocol.Malformed):
        protocol.Order.parse(report.body())


@given(st.text(max_size=200))
def test_arbitrary_text_is_malformed_and_nothing_worse(text):
    with pytest.raises(protocol.Malformed):
        protocol.Order.parse(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda x: st.lists(x, max_size=3)))
def test_any_field_may_hold_nonsense_and_is_refused_or_kept(value):
    data = json.loads(order().body())
    for name in data:
        with contextlib.suppress(protocol.ProtocolError):
            protocol.Order.parse(json.dumps({**data, name: value}))


def test_two_keys_are_accepted_while_one_replaces_the_other():
    assert protocol.opened(protocol.sign(order(), OTHER), [KEY.verify_key, OTHER.verify_key]) == order().body()


def test_messages_survive_the_wire():
    line = protocol.Observation(instance=7, folder="user_7", present=True, process=protocol.Process.RUNNING)
    survey = protocol.Survey(
        host="alpha", sent_at=1.0, nonce="n", boot_id="b", agent="1", master_ok=True, instances=[line]
    )
    assert protocol.Survey.parse(survey.body()) == survey
    assert protocol.Order.parse(order().body()) == order()


@pytest.mark.parametrize(
    "said",
    [
        {"sent_at": 10**400},
        {"sent_at": None},
        {"since_boot": 10**400},
        {"lease_left": "much"},
        {"lease_left": 10**400},
        {"nonce": 5},
        {"nonce": "n" * 65},
        {"boot_id": ["x"]},
        {"boot_id": "\0"},
        {"agent": None},
        {"master_reason": 5},
        {"master_digest": {}},
    ],
    ids=lambda said: f"{said}"[:40],
)
def test_a_survey_that_says_nonsense_is_malformed_and_nothing_worse(said):
    survey = {"host": "alpha", "sent_at": 1.0, "nonce": "n", "boot_id": "b", "agent": "1", "master_ok": True}
    assert protocol.Survey.parse(json.dumps({"type": "survey", **survey})).host == "alpha"
    with pytest.raises(protocol.Malformed):
        protocol.Survey.parse(json.dumps({"type": "survey", **survey, **said}))


@pytest.mark.parametrize(
    "field", [{"host": "beta"}, {"instance": 8}, {"epoch": 2}, {"generation": 4}, {"server": "Live"}, {"login": 1}]
)
def test_credentials_sealed_for_another_order_are_refused(field):
    sealed = credentials(**field).seal(SEAL.public_key)
    with pytest.raises(protocol.Unsealable):
        protocol.unseal(order(sealed=sealed), [SEAL])


def test_credentials_sealed_to_another_host_are_refused():
    with pytest.raises(protocol.Unsealable):
        protocol.unseal(order(sealed=credentials().seal(PrivateKey(b"x" * 32).public_key)), [SEAL])


def test_credentials_sealed_for_this_order_are_read_and_never_shown():
    found = protocol.unseal(order(sealed=credentials().seal(SEAL.public_key)), [SEAL])
    assert found.password == "pa55-Word"
    assert "pa55" not in repr(found)
