"""What is missing or wrong in the environment is named in one plain sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from farm.agent import keys, protocol
from farm.agent.protocol import Policy
from farm.agent.settings import BadSettings, Settings, words

ROOT = {"FARM_ROOT": str(Path.cwd())}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FARM_ROOT", "relative/path"),
        ("FARM_HOST", "../alpha"),
        ("FARM_BROKER_URL", "redis"),
        ("FARM_PORTAL_KEYS", "not base64!"),
        ("FARM_PORTAL_KEYS", "c2hvcnQ="),
        ("FARM_TERMINAL_COMMAND", "{password} /portable"),
        ("FARM_TERMINAL_COMMAND", "'unclosed"),
        ("FARM_SURVEY_SECONDS", "often"),
        ("FARM_SURVEY_SECONDS", "0"),
        ("FARM_READY_SECONDS", "nan"),
        ("FARM_POOL", "-1"),
        ("FARM_LINK", "yes"),
        ("FARM_POLICY", "loose"),
        ("FARM_SURVEY_SECONDS", "31"),  # on a fenced host: it asks for its lease with each
    ],
)
def test_a_bad_value_is_named_by_its_variable(name: str, value: str):
    with pytest.raises(BadSettings, match=name):
        Settings.from_environment({**ROOT, name: value})


def test_a_host_is_fenced_unless_it_says_that_it_is_not():
    assert Settings.from_environment(ROOT).policy is Policy.FENCED
    assert Settings.from_environment({**ROOT, "FARM_POLICY": ""}).policy is Policy.FENCED
    static = Settings.from_environment({**ROOT, "FARM_POLICY": "static", "FARM_SURVEY_SECONDS": "300"})
    assert (static.policy, static.survey_seconds) == (Policy.STATIC, 300.0)


@pytest.mark.skipif(sys.platform == "win32", reason="there the root has a default")
def test_a_missing_root_is_named():
    with pytest.raises(BadSettings, match="FARM_ROOT is not set"):
        Settings.from_environment({})


def test_what_only_some_commands_need_is_asked_for_by_name():
    with pytest.raises(BadSettings, match="FARM_BROKER_URL"):
        Settings.from_environment(ROOT).need("broker_url")


def test_all_that_is_set_is_read():
    one, two = SigningKey.generate(), SigningKey.generate()
    both = ", ".join(protocol.b64(bytes(key.verify_key)) for key in (one, two))
    found = Settings.from_environment(
        {**ROOT, "FARM_HOST": "alpha", "FARM_PORTAL_KEYS": both, "FARM_POOL": "7", "FARM_LINK": "auto"}
    )
    assert (found.host, found.pool, found.link) == ("alpha", 7, "auto")
    assert found.portal_keys == (one.verify_key, two.verify_key)


def test_the_brokers_password_is_in_no_repr():
    assert "hunter2" not in repr(Settings.from_environment({**ROOT, "FARM_BROKER_URL": "redis://:hunter2@h/0"}))


def test_a_path_with_a_blank_stays_one_argument():
    found = words("{python} t.py /portable /config:{ini}", folder="/a b", ini="/a b/x.ini")
    assert found == [sys.executable, "t.py", "/portable", "/config:/a b/x.ini"]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_that_others_can_read_are_refused(tmp_path: Path):
    path = tmp_path / "keys.json"
    keys.generate(path)
    path.chmod(0o640)
    with pytest.raises(keys.BadKeys, match="0600"):
        keys.load(path)


def test_keys_are_never_overwritten(tmp_path: Path):
    path = tmp_path / "keys.json"
    made = keys.public(keys.generate(path))
    with pytest.raises(keys.BadKeys):
        keys.generate(path)
    assert keys.public(keys.load(path)) == made


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"sign":"eA==","seal":"eA=="}', '{"sign":1,"seal":2}'])
def test_what_is_no_key_file_is_refused_without_quoting_it(tmp_path: Path, content: str):
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(keys.BadKeys) as raised:
        keys.load(path)
    assert raised.value.__cause__ is None
    with pytest.raises(keys.BadKeys):
        keys.load(tmp_path / "absent")


def test_a_rotated_sealing_key_keeps_the_old_one_for_reading_and_the_signature(tmp_path: Path):
    path = tmp_path / "keys.json"
    old = keys.generate(path)
    new = keys.generate(path, rotate=True)
    assert bytes(new.sign) == bytes(old.sign)
    assert [bytes(key) for key in keys.load(path).unsealing] == [bytes(new.seal), bytes(old.seal)]


def test_no_secret_is_in_a_repr_or_in_what_is_published(tmp_path: Path):
    made = keys.generate(tmp_path / "keys.json")
    for secret in (bytes(made.sign), bytes(made.seal)):
        assert protocol.b64(secret) not in repr(made) + str(keys.public(made))
        assert str(secret) not in repr(made)
