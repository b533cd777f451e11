"""Accounts at the paper broker: hashes in the one file, passwords told once."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.paper.conftest import PAPER, Clone


def broker(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(PAPER / "broker.py"), *map(str, words)], capture_output=True, text=True)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("content", ["", "[]", '{"server": 1}', "password"])
def test_a_file_that_is_none_of_ours_is_refused_and_left(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    made = broker(tmp_path / "a.json", "--demo", "1", "--csv", tmp_path / "v.csv")
    assert made.returncode == 1
    assert made.stderr.startswith("can't open the accounts: ")
    assert (tmp_path / "a.json").read_text() == content
    assert not (tmp_path / "v.csv").exists()


def test_a_negative_number_is_refused(tmp_path: Path) -> None:
    assert broker(tmp_path / "a.json", "--demo", "-1").returncode == 2
    assert not (tmp_path / "a.json").exists()


def test_passwords_are_of_four_kinds_and_only_their_hashes_are_kept(tmp_path: Path) -> None:
    made = broker(tmp_path / "a.json", "--demo", "50")
    accounts = json.loads((tmp_path / "a.json").read_text())["MetaQuotes-Demo"]
    opened = rows(made.stdout)
    assert [row["login"] for row in opened] == [str(number) for number in range(5000001, 5000051)]
    assert len({row["password"] for row in opened}) == 50
    for row in opened:
        assert 8 <= len(row["password"]) <= 16
        assert all(re.search(kind, row["password"]) for kind in ("[a-z]", "[A-Z]", "[0-9]", "[^A-Za-z0-9]"))
        assert accounts[row["login"]]["sha256"] == hashlib.sha256(row["password"].encode()).hexdigest()
        assert datetime.fromisoformat(row["expires_at"]) > datetime.now(UTC)
        assert row["password"] not in (tmp_path / "a.json").read_text()


def test_more_accounts_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    for _ in range(2):
        assert broker(tmp_path / "a.json", "--demo", "3", "--csv", tmp_path / "v.csv").stdout == ""
    opened = rows((tmp_path / "v.csv").read_text())
    assert [row["login"] for row in opened] == ["5000001", "5000002", "5000003", "5000004", "5000005", "5000006"]
    assert (tmp_path / "v.csv").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "v.csv"]


def test_a_taken_login_is_passed_over(tmp_path: Path) -> None:
    broker(tmp_path / "a.json", "--demo", "1", "--first", "5000002")
    opened = rows(broker(tmp_path / "a.json", "--demo", "2", "--first", "5000001").stdout)
    assert [row["login"] for row in opened] == ["5000001", "5000003"]


def test_the_fixed_accounts_have_the_passwords_that_the_help_states(tmp_path: Path, clone: Clone) -> None:
    told = broker("--help").stdout
    broker(clone.accounts)
    accounts = json.loads(clone.accounts.read_text())["PaperBroker-Live"]
    stated = dict(re.findall(r"^ +(7\d{6})  (\S+)", told, re.MULTILINE))
    assert {"7000001", "7000002", "7000003", "7000004"} <= set(stated) == set(accounts)
    for login, password in stated.items():
        assert accounts[login]["sha256"] == hashlib.sha256(password.encode()).hexdigest()
    clone.write_ini(password=stated["7000002"], login="7000002", server="PaperBroker-Live")
    clone.start()
    clone.hears("'7000002': trading has been disabled - investor mode")


def test_a_fixed_account_that_was_changed_stays_changed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"PaperBroker-Live": {"7000001": {"sha256": "00"}}}')
    broker(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["PaperBroker-Live"]["7000001"] == {"sha256": "00"}
