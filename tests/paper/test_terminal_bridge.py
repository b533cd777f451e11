"""The EA's side of the bridge, as the paper terminal plays it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.paper.conftest import LOGIN, SERVER, Clone, utf16
from tests.waiting import until

LOST = f"'{LOGIN}': connection to {SERVER} lost"
SCANNING = f"'{LOGIN}': scanning network for access points"
AUTHORIZED = f"'{LOGIN}': authorized on MetaQuotes-Demo through Access Point EU 1 (ping: 44.17 ms, build 3683)"


def prints(clone: Clone) -> str:
    return "".join(path.read_bytes()[2:].decode("utf-16-le") for path in clone.folder.glob("MQL5/Logs/*.log"))


def positions(clone: Clone) -> list[dict[str, object]]:
    clone.beat()
    found = clone.file("positions")["positions"]
    assert isinstance(found, list)
    return found


def test_without_a_compiled_ea_nobody_writes_heartbeats(clone: Clone) -> None:
    (clone.folder / "MQL5/Experts/BittenBridge.ex5").unlink()
    process = clone.start()
    clone.hears(AUTHORIZED)
    clone.stop(process)
    assert clone.file("heartbeat") == {}
    assert clone.said("Experts") == []


def test_without_an_account_it_reports_nobody_and_nothing(clone: Clone) -> None:
    clone.start("/portable")
    beat = clone.beat()
    assert (beat["login"], beat["server"], beat["connected"], beat["account_trade_allowed"]) == (0, "", False, False)
    assert clone.file("account")["balance"] == 0.0
    assert clone.file("positions") == {"schema": 1, "positions": [], "orders": 0, "last_order_at": None}


def test_the_three_files_keep_the_contract(clone: Clone) -> None:
    clone.know(balance=2500.0)
    clone.start()
    beat = clone.beat()
    assert abs(float(str(beat.pop("at"))) - time.time()) < 5
    assert int(str(beat.pop("sequence"))) > 0
    assert beat == {
        "schema": 1,
        "login": 5000001,
        "server": SERVER,
        "connected": True,
        "terminal_trade_allowed": True,
        "account_trade_allowed": True,
        "algo_trading": True,
        "build": 5836,
    }
    assert clone.file("account") == {
        "schema": 1,
        "login": 5000001,
        "server": SERVER,
        "name": "",
        "currency": "USD",
        "balance": 2500.0,
        "equity": 2500.0,
        "margin": 0.0,
        "margin_free": 2500.0,
        "leverage": 100,
    }
    assert clone.file("positions") == {"schema": 1, "positions": [], "orders": 0, "last_order_at": None}


def test_the_heartbeat_is_written_last(clone: Clone) -> None:
    clone.start()
    clone.beat()
    for name in ("account", "positions"):
        assert (clone.bridge / f"{name}.json").stat().st_mtime_ns <= (
            clone.bridge / "heartbeat.json"
        ).stat().st_mtime_ns
    assert int(str(clone.file("heartbeat")["sequence"])) >= 1


def test_no_reader_ever_sees_half_a_file(clone: Clone) -> None:
    clone.start()
    clone.beat()
    sequences = [json.loads((clone.bridge / "heartbeat.json").read_bytes())["sequence"] for _ in range(2000)]
    assert sequences == sorted(sequences)


def test_with_algo_trading_off_the_ea_runs_and_says_so(clone: Clone) -> None:
    (clone.folder / "Config/common.ini").write_bytes(utf16("[Experts]\nEnabled=0\n"))
    clone.write_ini()
    clone.ini.write_bytes(
        clone.ini.read_bytes().replace("Enabled=1".encode("utf-16-le"), "Enabled=0".encode("utf-16-le"))
    )
    clone.start()
    beat = clone.beat()
    assert (beat["connected"], beat["algo_trading"], beat["terminal_trade_allowed"]) == (True, False, False)


def test_a_position_is_opened_and_carries_the_magic_number(clone: Clone) -> None:
    clone.start()
    clone.beat()
    clone.command(do="open", symbol="EURUSD", volume=0.1)
    (position,) = positions(clone)
    assert abs(int(str(position.pop("opened_at"))) - time.time()) < 5
    assert position == {
        "ticket": 1,
        "symbol": "EURUSD",
        "side": "buy",
        "volume": 0.1,
        "open_price": 1.1,
        "profit": 0.0,
        "magic": 700000017,
    }
    assert clone.file("positions")["last_order_at"] is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"symbol": "EURUSD", "volume": 0},
        {"symbol": "EURUSD", "volume": True},
        {"symbol": 7, "volume": 1},
        {"symbol": "EURUSD"},
        {"symbol": "EURUSD", "volume": 1, "side": "up"},
    ],
)
def test_a_malformed_order_opens_nothing(clone: Clone, wrong: dict[str, object]) -> None:
    clone.start()
    clone.beat()
    clone.command(do="open", **wrong)
    assert positions(clone) == []
    assert "refused: invalid symbol, volume or side" in prints(clone)


@pytest.mark.parametrize("mode", ["investor", "disabled"])
def test_an_account_that_may_not_trade_opens_nothing(clone: Clone, mode: str) -> None:
    clone.know(mode=mode)
    clone.start()
    clone.beat()
    clone.command(do="open", symbol="EURUSD", volume=0.1)
    assert positions(clone) == []
    assert "refused: trading is disabled" in prints(clone)


def test_positions_survive_a_restart_and_are_the_accounts_not_the_folders(clone: Clone, tmp_path: Path) -> None:
    process = clone.start()
    clone.beat()
    clone.command(do="open", symbol="EURUSD", volume=0.1)
    (before,) = positions(clone)
    clone.stop(process)
    other = Clone(tmp_path / "Users/user_10", clone.accounts)
    accounts = clone.accounts.read_text()
    other.lay()
    clone.accounts.write_text(accounts)
    try:
        other.start()
        assert positions(other) == [before]
        assert (
            f"'{LOGIN}': terminal synchronized with MetaQuotes Software Corp.: 1 positions, 0 orders, 88 symbols"
            in ("".join(other.said("Network")))
        )
        assert (tmp_path / f"accounts.json.positions/{SERVER}-{LOGIN}.json").exists()
    finally:
        other.end()


def test_closing_closes_all(clone: Clone) -> None:
    clone.start()
    clone.beat()
    clone.command(do="open", symbol="EURUSD", volume=0.1)
    clone.command(do="open", symbol="GBPUSD", volume=1, side="sell")
    assert [position["ticket"] for position in positions(clone)] == [1, 2]
    clone.command(do="close")
    assert positions(clone) == []


@pytest.mark.parametrize("content", ['{"do":"dance"}', "{}", "[1]", "not json", ""])
def test_what_is_no_command_is_removed_and_noted(clone: Clone, content: str) -> None:
    clone.start()
    clone.beat()
    path = clone.bridge / "commands/two.json"
    path.with_suffix(".tmp").write_text(content)
    path.with_suffix(".tmp").rename(path)
    until(lambda: not path.exists())
    until(lambda: "command two.json refused: unknown command" in prints(clone))
    assert clone.beat()["connected"] is True


def test_a_dropped_connection_is_said_and_reported_until_it_is_restored(clone: Clone) -> None:
    clone.start()
    clone.beat()
    clone.command(do="drop_connection")
    clone.hears(LOST)
    clone.hears(SCANNING)
    until(lambda: clone.file("heartbeat")["connected"] is False)
    clone.command(do="open", symbol="EURUSD", volume=0.1)
    until(lambda: "refused: no connection" in prints(clone))
    clone.command(do="restore_connection")
    clone.hears(AUTHORIZED, times=2)
    until(lambda: clone.file("heartbeat")["connected"] is True)


def test_an_idle_account_is_not_written_again_and_again(clone: Clone) -> None:
    clone.start()
    clone.beat()
    before = (clone.bridge / "account.json").stat().st_mtime_ns
    for _ in range(3):
        clone.beat()
    assert (clone.bridge / "account.json").stat().st_mtime_ns == before
