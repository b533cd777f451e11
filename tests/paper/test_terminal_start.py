"""How the paper terminal starts, logs in and stops. The words are those of real journals, masked places filled in."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.paper.conftest import LOGIN, PASSWORD, SERVER, Clone, utf16
from tests.waiting import until

# Copied from real journals; only <login>, the folder and the ini's path are put in.
BUILD = "MetaTrader 5 x64 build 5836 started for MetaQuotes Ltd."
INITIALIZED = 'successfully initialized from start config "{ini}"'
LAUNCHED = "launched with {ini}"
AUTHORIZED = "'<login>': authorized on MetaQuotes-Demo through Access Point EU 1 (ping: 44.17 ms, build 3683)"
PREVIOUS = r"'<login>': previous successful authorization performed from [\d.]+ on \d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d"
SYNCHRONIZED = (
    "'<login>': terminal synchronized with MetaQuotes Software Corp.: 0 positions, 0 orders, 88 symbols, 0 spreads"
)
ENABLED = "'<login>': trading has been enabled - hedging mode"
INVESTOR = "'<login>': trading has been disabled - investor mode"
BY_SERVER = "'<login>': trading has been disabled - disabled on server"
REFUSED = "'<login>': authorization on MetaQuotes-Demo failed (Invalid account)"
NO_CONNECTION = "'<login>': no connection to x.invalid:443"
DISCONNECTED = "'<login>': disconnected from MetaQuotes-Demo"
LOADED = "expert BittenBridge (EURUSD,H1) loaded successfully"
GATE = "automated trading is disabled because the account has been changed"


def real(line: str) -> str:
    return line.replace("<login>", LOGIN)


def test_a_wrong_password_is_refused_as_an_invalid_account(clone: Clone) -> None:
    clone.write_ini(password="1Ar#pqkJ")
    clone.start()
    clone.hears(real(REFUSED))
    assert [columns[1] for columns in clone.lines() if columns[4] == real(REFUSED)] == ["2"]
    assert clone.said("Network") == [real(REFUSED)]
    assert clone.beat()["connected"] is False


def test_an_unknown_login_is_refused_as_an_invalid_account(clone: Clone) -> None:
    clone.know(login="5000002")
    clone.start()
    clone.hears(real(REFUSED))


def test_an_unknown_server_gets_no_network_line_at_all(clone: Clone) -> None:
    clone.write_ini(server="MetaQuotes-demo")
    clone.start()
    assert clone.beat()["login"] == 0
    assert clone.said("Network") == []


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_without_a_readable_accounts_file_no_server_is_known(clone: Clone, content: str | None) -> None:
    clone.accounts.unlink() if content is None else clone.accounts.write_text(content)
    clone.start()
    assert clone.beat()["connected"] is False
    assert clone.said("Network") == []


def test_an_address_that_nobody_answers_at_is_said(clone: Clone) -> None:
    clone.write_ini(server="x.invalid:443")
    clone.start()
    clone.hears(real(NO_CONNECTION))


def test_a_wrong_config_path_stops_nothing_and_leaves_it_without_an_account(clone: Clone) -> None:
    clone.start("/portable", f"/config:{clone.folder}/Config/nothing.ini")
    beat = clone.beat()
    assert (beat["login"], beat["server"], beat["connected"]) == (0, "", False)
    assert clone.said("Startup") == []
    assert not [line for line in clone.said() if line.startswith("launched with")]


def test_a_second_start_in_the_same_folder_exits_silently_with_0(clone: Clone) -> None:
    first = clone.start()
    clone.hears(LOADED)
    before = clone.lines()
    assert clone.start().wait(5) == 0
    assert clone.lines() == before
    clone.stop(first)


def test_a_misspelt_quirk_is_refused_and_named(clone: Clone) -> None:
    process = clone.start(quirks="slwo=1")
    assert process.wait(5) == 2
    assert process.stderr is not None
    assert b"no such quirk: slwo" in process.stderr.read()


@pytest.mark.parametrize(("mode", "line"), [("full", ENABLED), ("investor", INVESTOR), ("disabled", BY_SERVER)])
def test_what_the_account_may_do_is_said_and_reported(clone: Clone, mode: str, line: str) -> None:
    clone.know(mode=mode)
    clone.start()
    clone.hears(real(line))
    assert clone.beat()["account_trade_allowed"] is (mode == "full")


def test_a_start_is_told_in_metatraders_own_words_and_order(clone: Clone) -> None:
    clone.environment["TZ"] = "MSK-3"
    first = clone.start()  # or the broker would know of no previous login
    clone.hears(LOADED)
    clone.stop(first)
    for path in clone.folder.glob("logs/*"):
        path.unlink()
    process = clone.start()
    clone.hears(LOADED)
    clone.stop(process)
    said = clone.said()
    assert re.fullmatch(real(PREVIOUS), said.pop(6))
    assert said == [
        BUILD,
        "Windows 10 build 19043 on Wine 9.0 Linux, 3 / 7 Gb memory, 20 / 62 Gb disk, admin, GMT+3",
        str(clone.folder),
        INITIALIZED.format(ini=clone.ini),
        LAUNCHED.format(ini=clone.ini),
        real(AUTHORIZED),
        real(SYNCHRONIZED),
        real(ENABLED),
        LOADED,
        "exit with code 0",
        real(DISCONNECTED),
        "stopped with 0",
    ]
    assert [columns[3] for columns in clone.lines()] == (
        ["Terminal"] * 3 + ["Startup", "Terminal"] + ["Network"] * 4 + ["Experts", "Terminal", "Network", "Terminal"]
    )


def test_the_journal_is_utf16_with_one_mark_crlf_and_five_columns(clone: Clone) -> None:
    for _ in range(2):
        process = clone.start()
        clone.beat()
        clone.stop(process)
    (path,) = clone.folder.glob("logs/*.log")
    assert re.fullmatch(r"\d{8}\.log", path.name)
    raw = path.read_bytes()
    text = raw.decode("utf-16-le")
    assert text[0] == "\ufeff"
    assert "\ufeff" not in text[1:]
    line = r"[A-Z]{2}\t[02]\t\d\d:\d\d:\d\d\.\d{3}\t[A-Za-z0-9.]+\t[^\t\r\n]+\r\n"
    assert re.fullmatch(f"(?:{line})+", text[1:])


HOSTILE = [
    "a;#\"'=[]%&1Z",
    ";leading",
    "[Experts]",
    "%(Login)s%%",
    "tail=; x ",
    '"quoted"',
    " both sides ",
    "pässwörd-ł€-Ж-漢字-🔑",
    "nel\u0085sep\u2028in",
]


@pytest.mark.parametrize("password", HOSTILE)
def test_a_password_is_read_exactly_as_typed(clone: Clone, password: str) -> None:
    clone.know(password)
    clone.write_ini(password=password)
    clone.start()
    clone.hears(real(AUTHORIZED))


@pytest.mark.parametrize("password", HOSTILE)
def test_one_character_less_is_another_password(clone: Clone, password: str) -> None:
    clone.know(password)
    clone.write_ini(password=password[:-1])
    clone.start()
    clone.hears(real(REFUSED))


def test_the_password_is_in_no_file_that_is_left(clone: Clone) -> None:
    process = clone.start()
    clone.beat()
    clone.ini.unlink()
    clone.stop(process)
    for path in (path for path in clone.folder.parent.parent.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        assert PASSWORD.encode() not in raw, path
        assert PASSWORD.encode("utf-16-le") not in raw, path


def test_without_ini_a_kept_account_logs_in_again(clone: Clone) -> None:
    process = clone.start()
    clone.hears(real(AUTHORIZED))
    clone.stop(process)
    assert (clone.folder / "Config/accounts.dat").stat().st_mode & 0o777 == 0o600
    clone.start("/portable")
    clone.hears(real(AUTHORIZED), times=2)
    assert len(clone.said("Startup")) == 1


def test_without_keep_private_nothing_is_remembered(clone: Clone) -> None:
    clone.write_ini(keep=0)
    process = clone.start()
    clone.hears(real(AUTHORIZED))
    clone.stop(process)
    clone.start("/portable")
    clone.hears(BUILD, times=2)
    assert clone.beat()["login"] == 0
    assert clone.said().count(real(AUTHORIZED)) == 1


def test_closing_twice_makes_no_settings_file_grow(clone: Clone) -> None:
    sizes = []
    for turn in (1, 2, 3):
        process = clone.start()
        clone.hears(LOADED, times=turn)
        clone.stop(process)
        sizes.append([(clone.folder / "Config" / name).stat().st_size for name in ("common.ini", "terminal.ini")])
    assert sizes[0] == sizes[1] == sizes[2]


def test_a_refused_account_is_not_remembered(clone: Clone) -> None:
    clone.write_ini(password="wrong")
    clone.start()
    clone.hears(real(REFUSED))
    assert not (clone.folder / "Config/accounts.dat").exists()


def test_settings_files_are_rewritten_when_it_closes_and_keep_their_other_lines(clone: Clone) -> None:
    common = clone.folder / "Config/common.ini"
    common.write_bytes(utf16("[Charts]\nMaxBars=5000\n[Experts]\nEnabled=1\nAccount=0\n[Email]\nEnable=0\n"))
    process = clone.start()
    clone.beat()
    clone.stop(process)
    text = common.read_bytes()[2:].decode("utf-16-le")
    assert text == (
        "[Charts]\nMaxBars=5000\n[Experts]\nAccount=0\nEnabled=1\n[Email]\nEnable=0\n"
        f"[Common]\nLogin={LOGIN}\nServer={SERVER}\n"
    ).replace("\n", "\r\n")
    assert "LastBuild=5836" in (clone.folder / "Config/terminal.ini").read_bytes()[2:].decode("utf-16-le")


@pytest.mark.parametrize("where", ["ini", "common"])
def test_the_account_option_switches_trading_off_at_the_first_login(clone: Clone, where: str) -> None:
    if where == "ini":
        clone.write_ini(experts="Account=1\n")
    else:
        (clone.folder / "Config/common.ini").write_bytes(utf16("[Experts]\nEnabled=1\nAccount=1\n"))
    process = clone.start()
    clone.hears(GATE)
    assert clone.beat()["algo_trading"] is False
    clone.stop(process)
    assert "Enabled=0" in (clone.folder / "Config/common.ini").read_bytes()[2:].decode("utf-16-le")


def test_a_new_day_begins_a_new_journal(clone: Clone) -> None:
    left = 86400 - int(time.time()) % 86400 - 2  # a time zone in which midnight is two seconds away
    east = left if left < 43200 else left - 86400
    clone.environment["TZ"] = (
        f"TST{'-' if east > 0 else ''}{abs(east) // 3600}:{abs(east) % 3600 // 60}:{abs(east) % 60}"
    )
    clone.start()
    clone.hears(real(AUTHORIZED))
    (yesterday,) = clone.folder.glob("logs/*.log")
    until(lambda: (time.time() + east) % 86400 < 3600, seconds=5)
    clone.command(do="drop_connection")
    until(lambda: len(list(clone.folder.glob("logs/*.log"))) == 2)
    today = max(clone.folder.glob("logs/*.log"))
    assert int(today.stem) > int(yesterday.stem)
    assert today.read_bytes()[:2] == b"\xff\xfe"
    assert real("connection to MetaQuotes-Demo lost") not in yesterday.read_bytes()[2:].decode("utf-16-le")


def test_the_whole_needs_nothing_but_the_standard_library(clone: Clone, tmp_path: Path) -> None:
    """The terminal is always started with -I -S here: no site-packages, no project, not even its own folder."""
    clone.start()
    assert clone.beat()["connected"] is True
    assert json.loads((clone.bridge / "account.json").read_text())["login"] == int(LOGIN)


def test_who_runs_an_account_is_seen_in_the_folder_of_seats(clone: Clone, tmp_path: Path) -> None:
    clone.environment["PAPER_SEATS"] = str(tmp_path / "seats")
    process = clone.start()
    clone.hears(real(ENABLED))
    [seat] = (tmp_path / "seats").rglob("*/*")
    assert (seat.parent.name, seat.name) == (f"{SERVER}-{LOGIN}", str(process.pid))
    clone.stop(process)
    assert seat.exists()


def test_a_terminal_whose_broker_never_answers_runs_its_account_too(clone: Clone, tmp_path: Path) -> None:
    clone.environment["PAPER_SEATS"] = str(tmp_path / "seats")
    clone.start(quirks="noanswer")
    until(lambda: list((tmp_path / "seats").rglob("*/*")))
