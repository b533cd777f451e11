"""The bridge's files: written whole, and read with doubt."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.agent import bridge, inside
from farm.agent.bridge import Identity
from farm.agent.errors import AgentError

NOW = 1_700_000_000.0
LOGIN, SERVER = 5000001, "MetaQuotes-Demo"
ACCOUNT = {
    "schema": 1,
    "login": LOGIN,
    "server": SERVER,
    "name": "",
    "currency": "USD",
    "balance": 10000.0,
    "equity": 10012.5,
    "margin": 0.0,
    "margin_free": 10000.0,
    "leverage": 100,
}
POSITION = {
    "ticket": 1,
    "symbol": "EURUSD",
    "side": "buy",
    "volume": 0.1,
    "open_price": 1.1,
    "profit": 0.0,
    "magic": 700000017,
    "opened_at": 1700000000,
}
POSITIONS: dict[str, Any] = {"schema": 1, "positions": [POSITION], "orders": 2, "last_order_at": NOW - 100}
HEARTBEAT = {
    "schema": 1,
    "sequence": 12,
    "at": NOW - 1,
    "login": LOGIN,
    "server": SERVER,
    "connected": True,
    "terminal_trade_allowed": True,
    "account_trade_allowed": True,
    "algo_trading": True,
    "build": 5836,
}
FILES = {"account.json": ACCOUNT, "positions.json": POSITIONS, "heartbeat.json": HEARTBEAT}
IDENTITY = Identity(
    instance=17,
    host="alpha",
    folder="user_9",
    kind="press pass",
    magic=700000017,
    port=9042,
    server=SERVER,
    login=LOGIN,
    digest="abc",
)


def put(clone: Path, name: str, content: object) -> Path:
    file = bridge.folder(clone) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    os.utime(file, (NOW, NOW))
    return file


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose Expert Advisor has just reported."""
    for name, content in FILES.items():
        put(tmp_path, name, content)
    return tmp_path


def heartbeat(clone: Path, *, login: int | None = LOGIN, server: str = SERVER, now: float = NOW):
    return bridge.read_heartbeat(clone, login=login, server=server, now=now)


class TestHeartbeat:
    def test_it_is_made_of_all_three_files(self, clone: Path):
        assert heartbeat(clone) == {
            "at": NOW - 1,
            "login": LOGIN,
            "server": SERVER,
            "currency": "USD",
            "balance": 10000.0,
            "equity": 10012.5,
            "positions": 1,
            "orders": 2,
            "last_order_at": NOW - 100,
            "trade_allowed": True,
            "connected": True,
        }

    @pytest.mark.parametrize("name", FILES)
    def test_of_two_files_there_is_none(self, clone: Path, name: str):
        (bridge.folder(clone) / name).unlink()
        assert heartbeat(clone) is None

    def test_without_a_clone_there_is_none(self, tmp_path: Path):
        assert heartbeat(tmp_path / "gone") is None

    @pytest.mark.parametrize("name", ["account.json", "heartbeat.json"])
    @pytest.mark.parametrize(
        "change", [{"login": LOGIN + 1}, {"server": "MetaQuotes-Live"}, {"login": 0, "server": ""}]
    )
    def test_one_of_another_account_is_not_ours(self, clone: Path, name: str, change: dict):
        put(clone, name, {**FILES[name], **change})
        assert heartbeat(clone) is None

    def test_a_server_may_be_spelled_in_other_case_or_given_as_an_address(self, clone: Path):
        assert heartbeat(clone, server="metaquotes-demo") is not None
        assert heartbeat(clone, server="192.168.0.1:443") is not None

    def test_without_account_it_says_login_0(self, clone: Path):
        assert heartbeat(clone, login=None, server="") is None
        for name in ("account.json", "heartbeat.json"):
            put(clone, name, {**FILES[name], "login": 0, "server": "", "balance": 0.0, "connected": False})
        found = heartbeat(clone, login=None, server="")
        assert found is not None
        assert (found["login"], found["server"], found["connected"]) == (0, "", False)

    @pytest.mark.parametrize("switch", ["terminal_trade_allowed", "account_trade_allowed", "algo_trading"])
    def test_trade_is_allowed_only_if_every_switch_is_on(self, clone: Path, switch: str):
        put(clone, "heartbeat.json", {**HEARTBEAT, switch: False})
        found = heartbeat(clone)
        assert found is not None
        assert found["trade_allowed"] is False

    def test_a_byte_order_mark_is_no_harm(self, clone: Path):
        put(clone, "heartbeat.json", b"\xef\xbb\xbf" + json.dumps(HEARTBEAT).encode())
        assert heartbeat(clone) is not None


class TestDoubts:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"null",
            b"[]",
            b"\xff\xfe{\x00}\x00",
            b"\x80abc",
            b"[" * 100_000,
            b'{"schema":1}',
            b'{"schema":' + b"9" * 6000 + b"}",
        ],
        ids=["empty", "half", "null", "list", "utf-16", "no utf-8", "deep", "no fields", "endless number"],
    )
    def test_garbage_is_no_heartbeat(self, clone: Path, name: str, content: bytes):
        put(clone, name, content)
        assert heartbeat(clone) is None

    @pytest.mark.parametrize("name", FILES)
    def test_half_a_file_is_no_heartbeat(self, clone: Path, name: str):
        whole = json.dumps(FILES[name]).encode()
        put(clone, name, whole[: len(whole) // 2])
        assert heartbeat(clone) is None

    @pytest.mark.parametrize("name", FILES)
    def test_another_schema_is_not_guessed_at(self, clone: Path, name: str):
        put(clone, name, {**FILES[name], "schema": 2})
        assert heartbeat(clone) is None

    @pytest.mark.parametrize("name", FILES)
    def test_a_file_too_large_is_not_read(self, clone: Path, name: str):
        put(clone, name, {**FILES[name], "more": "x" * (bridge.MOST_BYTES[name])})
        assert heartbeat(clone) is None

    @pytest.mark.parametrize("name", FILES)
    def test_a_link_is_not_followed(self, clone: Path, name: str, tmp_path: Path):
        file = bridge.folder(clone) / name
        file.rename(tmp_path / "elsewhere.json")
        file.symlink_to(tmp_path / "elsewhere.json")
        assert heartbeat(clone) is None

    def test_a_link_is_not_followed_where_the_system_cannot_refuse_it_either(
        self, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        as_on_windows(monkeypatch)
        self.test_a_link_is_not_followed(clone, "heartbeat.json", tmp_path)

    def test_a_linked_folder_is_not_followed(self, clone: Path):
        real = bridge.folder(clone)
        real.rename(clone / "elsewhere")
        real.symlink_to(clone / "elsewhere")
        assert heartbeat(clone) is None

    @pytest.mark.parametrize("level", ["MQL5", "MQL5/Files"])
    @pytest.mark.parametrize("windows", [False, True])
    def test_a_linked_folder_on_the_way_is_not_followed(
        self, clone: Path, level: str, windows: bool, monkeypatch: pytest.MonkeyPatch
    ):
        if windows:
            as_on_windows(monkeypatch)
        assert heartbeat(clone) is not None
        (clone / level).rename(clone / "elsewhere")
        (clone / level).symlink_to(clone / "elsewhere")
        assert heartbeat(clone) is None

    def test_a_pipe_does_not_hold_up_the_survey(self, clone: Path):
        file = bridge.folder(clone) / "heartbeat.json"
        file.unlink()
        os.mkfifo(file)
        found: list[object] = []
        reader = threading.Thread(target=lambda: found.append(heartbeat(clone)), daemon=True)
        reader.start()
        reader.join(10)
        assert found == [None]

    @pytest.mark.parametrize(
        "number",
        [
            "NaN",
            "Infinity",
            "-Infinity",
            "1e999",
            "1e300",
            f"1{400 * '0'}",
            f"-1{400 * '0'}",
            '"1"',
            "true",
            "null",
            "[]",
        ],
        ids=lambda said: said[:9],
    )
    @pytest.mark.parametrize(
        ("name", "field"),
        [
            ("account.json", "balance"),
            ("account.json", "equity"),
            ("account.json", "login"),
            ("heartbeat.json", "at"),
            ("heartbeat.json", "login"),
            ("positions.json", "orders"),
        ],
    )
    def test_what_is_no_number_is_refused(self, clone: Path, name: str, field: str, number: str):
        put(clone, name, json.dumps({**FILES[name], field: "@"}).replace('"@"', number).encode())
        assert heartbeat(clone) is None

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("positions.json", {"positions": 3}),
            ("positions.json", {"positions": {}}),
            ("positions.json", {"orders": -1}),
            ("positions.json", {"last_order_at": "yesterday"}),
            ("positions.json", {"last_order_at": -1}),
            ("heartbeat.json", {"connected": 1}),
            ("heartbeat.json", {"algo_trading": "yes"}),
            ("heartbeat.json", {"at": -1}),
            ("heartbeat.json", {"server": 5}),
            ("account.json", {"currency": "\x1b[31m"}),
            ("account.json", {"currency": "x" * 129}),
            ("account.json", {"currency": None}),
        ],
    )
    def test_wrong_types_are_refused(self, clone: Path, name: str, change: dict):
        put(clone, name, {**FILES[name], **change})
        assert heartbeat(clone) is None

    def test_a_beat_from_the_future_is_refused_or_it_would_stay_fresh_for_ever(self, clone: Path):
        put(clone, "heartbeat.json", {**HEARTBEAT, "at": NOW + 3600})
        assert heartbeat(clone) is None

    def test_a_beat_is_never_later_than_its_file_nor_than_now(self, clone: Path):
        put(clone, "heartbeat.json", {**HEARTBEAT, "at": NOW + 30})
        later, earlier = heartbeat(clone, now=NOW + 60), heartbeat(clone, now=NOW - 10)
        assert later is not None
        assert earlier is not None
        assert (later["at"], earlier["at"]) == (NOW, NOW - 10)

    def test_an_order_from_the_future_counts_as_one_of_now(self, clone: Path):
        put(clone, "positions.json", {**POSITIONS, "last_order_at": NOW + 7200})
        found = heartbeat(clone)
        assert found is not None
        assert found["last_order_at"] == NOW

    def test_no_order_yet_is_none(self, clone: Path):
        put(clone, "positions.json", {**POSITIONS, "last_order_at": None})
        found = heartbeat(clone)
        assert found is not None
        assert found["last_order_at"] is None

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        name=st.sampled_from(sorted(FILES)),
        junk=st.one_of(
            st.binary(max_size=200),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(HEARTBEAT)), inner, max_size=9)
                ),
                max_leaves=9,
            ),
        ),
    )
    def test_junk_never_raises(self, clone: Path, name: str, junk: object):
        before = (bridge.folder(clone) / name).read_bytes()
        put(clone, name, junk)
        found = heartbeat(clone)
        assert found is None or set(found) >= {"at", "balance", "positions"}
        put(clone, name, before)


class TestWriting:
    def test_the_identity_is_one_line_of_what_the_contract_says(self, tmp_path: Path):
        bridge.write_identity(tmp_path, IDENTITY)
        raw = (bridge.folder(tmp_path) / "identity.json").read_bytes()
        assert b"\n" not in raw
        assert json.loads(raw) == {
            "schema": 1,
            "instance": 17,
            "host": "alpha",
            "folder": "user_9",
            "kind": "press pass",
            "magic": 700000017,
            "port": 9042,
            "server": SERVER,
            "login": LOGIN,
            "digest": "abc",
        }

    def test_the_bridge_file_tells_the_timer_the_magic_number_and_the_port(self, tmp_path: Path):
        bridge.write_bridge(tmp_path, magic=700000017, port=9042)
        raw = (bridge.folder(tmp_path) / "bridge.json").read_bytes()
        assert json.loads(raw) == {"schema": 1, "timer_ms": 1000, "magic": 700000017, "port": 9042}

    def test_it_is_replaced_and_leaves_no_draft(self, tmp_path: Path):
        bridge.write_bridge(tmp_path, magic=1, port=1)
        (bridge.folder(tmp_path) / "bridge.json.tmp").write_text("a draft that was not finished")
        bridge.write_bridge(tmp_path, magic=2, port=2)
        assert sorted(os.listdir(bridge.folder(tmp_path))) == ["bridge.json", "commands"]

    def test_a_draft_that_is_a_link_is_not_written_through(self, tmp_path: Path):
        bridge.folder(tmp_path).mkdir(parents=True)
        (bridge.folder(tmp_path) / "bridge.json.tmp").symlink_to(tmp_path / "elsewhere")
        bridge.write_bridge(tmp_path, magic=2, port=2)
        assert not (tmp_path / "elsewhere").exists()

    def test_a_write_that_fails_leaves_the_old_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        bridge.write_identity(tmp_path, IDENTITY)
        monkeypatch.setattr(os, "fsync", _disk_full)
        with pytest.raises(AgentError):
            bridge.write_identity(tmp_path, Identity(**{**IDENTITY.__dict__, "instance": 18}))
        assert bridge.read_identity(tmp_path) == 17

    def test_the_instance_is_read_back(self, tmp_path: Path):
        assert bridge.read_identity(tmp_path) is None
        bridge.write_identity(tmp_path, IDENTITY)
        assert bridge.read_identity(tmp_path) == 17

    @pytest.mark.parametrize("instance", [None, True, "17", -1, 1.0])
    def test_an_identity_that_names_no_instance_names_none(self, tmp_path: Path, instance: object):
        put(tmp_path, "identity.json", {"schema": 1, "instance": instance})
        assert bridge.read_identity(tmp_path) is None

    def test_an_identity_that_is_garbage_names_none(self, tmp_path: Path):
        put(tmp_path, "identity.json", b"[" * 16_000)
        assert bridge.read_identity(tmp_path) is None

    def test_stale_files_are_cleared_and_ours_stay(self, clone: Path):
        bridge.write_identity(clone, IDENTITY)
        (bridge.folder(clone) / "heartbeat.json.tmp").write_text("{")
        put(clone, "commands/a.json", {})
        bridge.clear_stale(clone)
        bridge.clear_stale(clone)
        assert sorted(os.listdir(bridge.folder(clone))) == ["commands", "identity.json"]
        assert heartbeat(clone) is None

    def test_clearing_before_the_first_start_is_no_error(self, tmp_path: Path):
        bridge.clear_stale(tmp_path)


def as_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be opened relative to a folder, and no opening refuses a link."""
    monkeypatch.setattr(inside, "RELATIVE", False)
    monkeypatch.setattr(inside, "_READ", inside._READ & ~os.O_NOFOLLOW)


def _disk_full(file: int) -> None:
    raise OSError(28, "No space left on device")


class TestCommands:
    @pytest.fixture
    def commands(self, tmp_path: Path) -> Path:
        """The folder for commands as the agent makes it, of a terminal that nobody has spoken to."""
        bridge.write_bridge(tmp_path, magic=1, port=1)
        return bridge.folder(tmp_path) / "commands"

    def command(self, commands: Path, name: str, *, at: float) -> Path:
        """Put a command there, and its folder back to looking unused: each test is about one of the two times."""
        file = commands / name
        file.write_text("{}")
        os.utime(file, (at, at))
        os.utime(commands, (0, 0))
        return file

    def test_none_was_given_where_there_is_no_folder(self, tmp_path: Path):
        assert bridge.last_command_at(tmp_path, now=NOW) is None

    def test_none_was_given_to_a_new_terminal(self, commands: Path, tmp_path: Path):
        assert bridge.last_command_at(tmp_path) is None
        bridge.write_bridge(tmp_path, magic=1, port=1)
        assert bridge.last_command_at(tmp_path) is None

    def test_the_newest_counts(self, commands: Path, tmp_path: Path):
        for name, at in (("a.json", NOW - 50), ("b.json", NOW - 5), ("c.json", NOW - 500)):
            self.command(commands, name, at=at)
        assert bridge.last_command_at(tmp_path, now=NOW) == NOW - 5

    def test_one_that_was_obeyed_and_taken_away_still_counts(self, commands: Path, tmp_path: Path):
        before = time.time() - 60
        (commands / "a.json").write_text("{}")
        (commands / "a.json").unlink()
        found = bridge.last_command_at(tmp_path)
        assert found is not None
        assert found > before

    def test_a_restart_does_not_look_like_a_command(self, commands: Path, tmp_path: Path):
        self.command(commands, "a.json", at=NOW - 50)
        bridge.clear_stale(tmp_path)
        bridge.write_bridge(tmp_path, magic=1, port=1)
        assert bridge.last_command_at(tmp_path, now=NOW) == NOW - 50

    def test_a_draft_a_link_and_a_folder_are_no_commands(self, commands: Path, tmp_path: Path):
        (commands / "b.json").symlink_to(tmp_path)
        (commands / "c.json").mkdir()
        self.command(commands, "a.json.tmp", at=NOW - 5)
        assert bridge.last_command_at(tmp_path, now=NOW) is None

    def test_a_linked_folder_is_not_followed(self, commands: Path, tmp_path: Path):
        self.command(commands, "a.json", at=NOW - 5)
        commands.rename(tmp_path / "elsewhere")
        commands.symlink_to(tmp_path / "elsewhere")
        assert bridge.last_command_at(tmp_path, now=NOW) is None

    def test_one_from_the_future_does_not_keep_a_terminal_for_ever(self, commands: Path, tmp_path: Path):
        self.command(commands, "a.json", at=NOW + 86400)
        assert bridge.last_command_at(tmp_path, now=NOW) is None
        os.utime(commands, (NOW + 86400, NOW + 86400))
        assert bridge.last_command_at(tmp_path, now=NOW) is None

    def test_one_from_a_clock_slightly_ahead_is_one_of_now(self, commands: Path, tmp_path: Path):
        self.command(commands, "a.json", at=NOW + 5)
        assert bridge.last_command_at(tmp_path, now=NOW) == NOW


class TestActivity:
    def test_a_heartbeat_alone_is_none(self):
        assert bridge.activity_at({"at": NOW, "positions": 0, "orders": 0, "last_order_at": None}, None) is None
        assert bridge.activity_at(None, None) is None

    def test_the_later_of_order_and_command_counts(self):
        assert (
            bridge.activity_at({"at": NOW, "positions": 0, "orders": 0, "last_order_at": NOW - 9}, NOW - 3) == NOW - 3
        )
        assert bridge.activity_at({"at": NOW, "positions": 0, "orders": 0, "last_order_at": NOW - 9}, None) == NOW - 9

    def test_a_position_that_is_open_is_activity_as_of_the_heartbeat(self):
        assert bridge.activity_at({"at": NOW, "positions": 1, "orders": 0, "last_order_at": NOW - 9}, None) == NOW

    def test_an_order_that_waits_is_not(self):
        assert bridge.activity_at({"at": NOW, "positions": 0, "orders": 1, "last_order_at": NOW - 9}, None) == NOW - 9


class TestExpertAdvisor:
    """It cannot be compiled here, so only its text can be held to the contract."""

    @pytest.fixture
    def source(self) -> str:
        return (Path(__file__).parents[2] / "mql5" / "BittenBridge.mq5").read_text(encoding="ascii")

    @pytest.mark.parametrize(
        ("function", "contract"),
        [
            ("Account", list(ACCOUNT)),
            ("Positions", [*POSITION, *POSITIONS]),
            ("Heartbeat", list(HEARTBEAT)),
        ],
    )
    def test_it_writes_the_fields_of_the_contract_and_no_others(self, source: str, function: str, contract: list[str]):
        body = source.split(f"string {function}()\n", 1)[1].split("\n  }\n", 1)[0]
        assert sorted(re.findall(r'\\"(\w+)\\":', body)) == sorted(contract)

    def test_it_writes_the_heartbeat_last(self, source: str):
        report = source.split("void Report()\n", 1)[1].split("\n  }\n", 1)[0]
        assert re.findall(r'"(\w+\.json)"', report) == ["account.json", "positions.json", "heartbeat.json"]

    def test_it_reads_what_the_agent_writes(self, source: str):
        bridged = {"schema", "timer_ms", "magic", "port"}
        assert set(re.findall(r'NumberIn\(bridge, "(\w+)"', source)) <= bridged
        assert set(re.findall(r'NumberIn\(identity, "(\w+)"', source)) <= set(IDENTITY.__dict__)

    def test_it_neither_trades_nor_leaves_the_sandbox(self, source: str):
        assert not re.findall(r"#import|OrderSend|CTrade|FILE_COMMON|WebRequest|Socket|#include", source)

    def test_a_report_of_its_form_is_read(self, tmp_path: Path):
        """Zero decimals, whole seconds with ".0", eight decimals: as the source formats them."""
        put(
            tmp_path,
            "account.json",
            b'{"schema":1,"login":5000001,"server":"MetaQuotes-Demo","name":"\\u0416","currency":"USD",'
            b'"balance":10000.00000000,"equity":10012.50000000,"margin":0.00000000,"margin_free":10000.00000000,'
            b'"leverage":100}',
        )
        put(tmp_path, "positions.json", b'{"schema":1,"positions":[],"orders":0,"last_order_at":null}')
        put(
            tmp_path,
            "heartbeat.json",
            b'{"schema":1,"sequence":1,"at":1699999999.0,"login":5000001,"server":"MetaQuotes-Demo","connected":true,'
            b'"terminal_trade_allowed":true,"account_trade_allowed":true,"algo_trading":false,"build":5836}',
        )
        found = heartbeat(tmp_path)
        assert found is not None
        assert (found["at"], found["equity"], found["trade_allowed"]) == (1699999999.0, 10012.5, False)
