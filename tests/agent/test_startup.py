"""The start-up ini: what may stand in it, and that nothing of it is left."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.agent import startup
from farm.agent.errors import AgentError
from farm.agent.protocol import Reason
from farm.agent.startup import BadValue

PASSWORD = "1Ar#pqkj"
ACCOUNT: dict[str, Any] = {"server": "MetaQuotes-Demo", "login": 5000001, "password": PASSWORD}

EXPECTED = (
    "[Common]\r\nLogin=5000001\r\nServer=MetaQuotes-Demo\r\nPassword=1Ar#pqkj\r\nKeepPrivate=1\r\n"
    "[Experts]\r\nAllowLiveTrading=1\r\nAllowDllImport=0\r\nEnabled=1\r\nAccount=0\r\nProfile=0\r\n"
    "[StartUp]\r\nExpert=BittenBridge\r\nSymbol=EURUSD\r\nPeriod=H1\r\n"
)
BREAKING = (
    "\r",
    "\n",
    "\r\n",
    "\x00",
    "\x1b",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "\ufeff",
    "\u202e",
    "\u200b",
    "\ud800",
)


def keys(content: str) -> list[tuple[str, str]]:
    """Read an ini as a terminal does, line by line."""
    section, found = "", []
    for line in content.splitlines():
        if line.startswith("["):
            section = line
        else:
            found.append((section, line.split("=", 1)[0]))
    return found


class TestRefused:
    @pytest.mark.parametrize("breaking", BREAKING, ids=lambda text: ascii(text)[1:-1])
    @pytest.mark.parametrize("field", ["server", "password", "expert", "symbol"])
    @pytest.mark.parametrize("place", ["{}Abcdef12", "Abc{}def12", "Abcdef12{}"])
    def test_what_could_begin_a_new_line_or_hide_in_one(self, field: str, breaking: str, place: str):
        with pytest.raises(BadValue) as refused:
            startup.text(**{**ACCOUNT, field: place.format(breaking)})
        assert refused.value.field == field

    def test_a_password_that_smuggles_a_setting_in(self):
        with pytest.raises(BadValue):
            startup.text(**{**ACCOUNT, "password": "secret12\r\n[Experts]\r\nAllowDllImport=1"})

    @pytest.mark.parametrize("password", ["", "abc", "x" * 33, " secret12", "secret12 ", "pässwört12", "\u0661234567"])
    def test_passwords_that_no_terminal_is_known_to_take(self, password: str):
        with pytest.raises(BadValue) as refused:
            startup.text(**{**ACCOUNT, "password": password})
        assert refused.value.field == "password"

    @pytest.mark.parametrize("login", [0, -5000001, 99, 10**19, True, 5000001.0, "5000001", "5000001\r\nProxyEnable=1"])
    def test_logins_that_are_none(self, login):
        with pytest.raises(BadValue) as refused:
            startup.text(**{**ACCOUNT, "login": login})
        assert refused.value.field == "login"

    @pytest.mark.parametrize(
        "server",
        [
            "",
            " MetaQuotes-Demo",
            "MetaQuotes-Demo ",
            "FxPro-MT5  Demo",
            "-Demo",
            ";Demo",
            "[Tester]",
            "a=b",
            "x" * 65,
            "MetaQuotes-Demo:port",
            "broker.example:0",
            "broker.example:65536",
            "broker.example:",
            ":443",
            "[::1]:443",
            "MetaQuotes-D\u0435mo",
        ],
    )
    def test_servers_that_are_neither_a_name_nor_an_address(self, server: str):
        with pytest.raises(BadValue) as refused:
            startup.text(**{**ACCOUNT, "server": server})
        assert refused.value.field == "server"

    @pytest.mark.parametrize(
        "expert", ["", r"..\BittenBridge", r"\BittenBridge", r"C:\x", "a/b", "BittenBridge.ex5", "a "]
    )
    def test_experts_outside_their_folder(self, expert: str):
        with pytest.raises(BadValue):
            startup.text(**ACCOUNT, expert=expert)

    @pytest.mark.parametrize("symbol", ["", "EUR USD", ";EURUSD", "[x]", "x" * 33, "a=b"])
    def test_symbols_that_are_none(self, symbol: str):
        with pytest.raises(BadValue):
            startup.text(**ACCOUNT, symbol=symbol)

    def test_a_login_without_password_and_a_password_without_login(self):
        with pytest.raises(BadValue):
            startup.text(server="MetaQuotes-Demo", login=5000001)
        with pytest.raises(BadValue):
            startup.text(server="MetaQuotes-Demo", password=PASSWORD)

    @given(
        st.text(alphabet="\x00\u00e9\u2028qzQZ0189", min_size=4).filter(
            lambda text: not text.isascii() or "\x00" in text
        )
    )
    def test_the_error_never_repeats_the_value(self, password: str):
        with pytest.raises(BadValue) as refused:
            startup.checked_password(password)
        assert password not in f"{refused.value} {refused.value!r} {refused.value.args}"

    def test_the_error_is_the_hosts_to_report_and_survives_a_queue(self):
        refused: BadValue = pickle.loads(pickle.dumps(BadValue("password", "too short")))
        assert (refused.field, refused.reason, str(refused)) == ("password", Reason.NOT_INJECTED, "password: too short")


class TestAccepted:
    def test_an_account(self):
        assert startup.text(**ACCOUNT) == EXPECTED

    def test_no_account(self):
        assert keys(startup.text(server="MetaQuotes-Demo"))[0] == ("[Common]", "KeepPrivate")
        assert "MetaQuotes" not in startup.text(server="MetaQuotes-Demo")

    @pytest.mark.parametrize(
        "server",
        [
            "MetaQuotes-Demo",
            "Exness-MT5Trial9",
            "Capital.ComMena-Demo",
            "DerivSVG-Server-03",
            "VantageInternational-Live 5",
            "FxPro-MT5 Demo",
            "broker_1",
            "192.168.0.1:443",
            "mt5.broker.example:1950",
        ],
    )
    def test_servers_as_brokers_name_them(self, server: str):
        assert f"\r\nServer={server}\r\n" in startup.text(**{**ACCOUNT, "server": server})

    @pytest.mark.parametrize("login", [123, 5000001, 2**32 + 7, 10**19 - 1])
    def test_logins_of_3_to_19_digits(self, login: int):
        assert f"\r\nLogin={login}\r\n" in startup.text(**{**ACCOUNT, "login": login})

    @pytest.mark.parametrize("symbol", ["EURUSD", "EURUSD.raw", "EURUSDm", "#AAPL", "XAUUSD.ecn", "US500+"])
    def test_symbols_as_brokers_name_them(self, symbol: str):
        assert f"\r\nSymbol={symbol}\r\n" in startup.text(**ACCOUNT, symbol=symbol)

    def test_an_expert_in_a_folder(self):
        assert "\r\nExpert=Examples\\MACD\\MACD Sample\r\n" in startup.text(
            **ACCOUNT, expert=r"Examples\MACD\MACD Sample"
        )

    @given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=4, max_size=32))
    def test_any_password_of_printable_ascii_stands_there_as_it_is_and_adds_no_key(self, password: str):
        written = startup.text(**{**ACCOUNT, "password": password})
        assert f"\r\nPassword={password}\r\n" in written
        assert keys(written) == keys(EXPECTED)

    @given(server=st.text(max_size=70), password=st.text(max_size=40), expert=st.text(max_size=20), symbol=st.text())
    def test_whatever_is_given_there_are_no_other_keys(self, server: str, password: str, expert: str, symbol: str):
        try:
            written = startup.text(server=server, login=5000001, password=password, expert=expert, symbol=symbol)
        except BadValue:
            return
        assert keys(written) == keys(EXPECTED)


class TestFile:
    @pytest.fixture
    def ini(self, tmp_path: Path) -> Path:
        return startup.ini_path(tmp_path)

    def test_it_is_where_the_terminal_is_told_and_reads_as_its_own_files(self, ini: Path, tmp_path: Path):
        startup.write(ini, **ACCOUNT)
        assert ini == tmp_path / "Config" / "bitten-start.ini"
        assert ini.read_bytes() == b"\xff\xfe" + EXPECTED.encode("utf-16-le")

    def test_only_its_owner_may_read_it(self, ini: Path):
        old = os.umask(0)
        try:
            startup.write(ini, **ACCOUNT)
        finally:
            os.umask(old)
        assert stat.S_IMODE(ini.stat().st_mode) == 0o600

    def test_an_old_one_is_replaced_with_its_permissions(self, ini: Path):
        ini.parent.mkdir()
        ini.write_text("old")
        ini.chmod(0o644)
        startup.write(ini, **ACCOUNT)
        assert b"old" not in ini.read_bytes()
        assert stat.S_IMODE(ini.stat().st_mode) == 0o600

    def test_a_link_in_its_place_is_replaced_and_not_followed(self, ini: Path, tmp_path: Path):
        ini.parent.mkdir()
        ini.symlink_to(tmp_path / "elsewhere")
        startup.write(ini, **ACCOUNT)
        assert not ini.is_symlink()
        assert not (tmp_path / "elsewhere").exists()

    def test_a_file_put_there_in_between_is_not_written_into(self, ini: Path, monkeypatch: pytest.MonkeyPatch):
        ini.parent.mkdir()
        ini.touch(0o666)
        monkeypatch.setattr(startup, "remove", lambda path: None)
        with pytest.raises(AgentError):
            startup.write(ini, **ACCOUNT)
        assert ini.read_bytes() == b""

    def test_a_value_that_is_refused_leaves_no_file_and_not_even_the_old_one(self, ini: Path):
        startup.write(ini, **ACCOUNT)
        with pytest.raises(BadValue):
            startup.write(ini, **{**ACCOUNT, "server": ""})
        assert list(ini.parent.iterdir()) == []

    def test_a_write_that_fails_leaves_no_file_and_says_nothing_of_its_content(
        self, ini: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(os, "fsync", _disk_full)
        with pytest.raises(AgentError) as failed:
            startup.write(ini, **ACCOUNT)
        assert failed.value.reason is Reason.DISK_FULL
        assert PASSWORD not in str(failed.value)
        assert list(ini.parent.iterdir()) == []

    def test_removing_it_twice_is_removing_it(self, ini: Path):
        startup.write(ini, **ACCOUNT)
        startup.remove(ini)
        startup.remove(ini)
        assert not ini.exists()

    def test_removing_it_where_no_clone_stands_is_no_error(self, tmp_path: Path):
        startup.remove(startup.ini_path(tmp_path / "gone"))


def _disk_full(file: int) -> None:
    raise OSError(28, "No space left on device")
