"""The demo master: real names, the wanted size, the same bytes every time, no account in it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paper.conftest import PAPER


def make(target: Path, *words: str) -> subprocess.CompletedProcess[str]:
    words = words or ("--files", "300", "--mb", "3")
    return subprocess.run(
        [sys.executable, "-I", "-S", str(PAPER / "master.py"), str(target), *words], capture_output=True, text=True
    )


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ini(path: Path) -> list[str]:
    raw = path.read_bytes()
    assert raw[:2] == b"\xff\xfe"
    return raw[2:].decode("utf-16-le").split("\r\n")


@pytest.mark.parametrize("words", [("--files", "10"), ("--mb", "0"), ("--files", "many")])
def test_a_master_that_is_too_small_is_refused(tmp_path: Path, words: tuple[str, str]) -> None:
    made = make(tmp_path / "M", *words)
    assert made.returncode == 2
    assert not (tmp_path / "M").exists()


def test_where_nothing_can_be_written_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = make(tmp_path / "file" / "M")
    assert made.returncode == 1
    assert made.stderr.startswith("can't make the master: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_one_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    make(tmp_path / "M")
    (tmp_path / "M/terminal64.exe").write_bytes(b"mine")
    made = make(tmp_path / "M", "--seed", "2")
    assert made.returncode == 0
    assert "already there" in made.stdout
    assert (tmp_path / "M/terminal64.exe").read_bytes() == b"mine"


def test_the_same_seed_gives_the_same_bytes_and_times_and_another_one_others(tmp_path: Path) -> None:
    for name, seed in (("A", "1"), ("B", "1"), ("C", "2")):
        assert make(tmp_path / name, "--files", "200", "--mb", "2", "--seed", seed).returncode == 0
    assert contents(tmp_path / "A") == contents(tmp_path / "B")
    assert contents(tmp_path / "A") != contents(tmp_path / "C")
    times = {path.stat().st_mtime for name in "AB" for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert len(times) == 1


@pytest.mark.parametrize(("files", "mb"), [(150, 1), (300, 3), (1200, 10)])
def test_it_has_the_wanted_number_of_files_and_megabytes(tmp_path: Path, files: int, mb: int) -> None:
    make(tmp_path / "M", "--files", str(files), "--mb", str(mb))
    paths = [path for path in (tmp_path / "M").rglob("*") if path.is_file()]
    assert len(paths) == files
    total = sum(path.stat().st_size for path in paths)
    assert abs(total - mb * 1e6) < 0.05 * mb * 1e6
    executables = sum(path.stat().st_size for path in paths if path.suffix == ".exe")
    assert executables > 0.6 * total


def test_no_account_and_no_trace_of_one_is_in_it(tmp_path: Path) -> None:
    make(tmp_path / "M")
    names = set(contents(tmp_path / "M"))
    assert "Config/accounts.dat" not in names
    assert not [name for name in names if name.startswith(("logs/", "MQL5/Logs/", "temp/")) or "/trades/" in name]
    keys = [line.partition("=")[0] for line in ini(tmp_path / "M/Config/common.ini")]
    assert not {"Login", "Server", "Password", "Environment"} & set(keys)


def test_it_has_what_a_clone_needs(tmp_path: Path) -> None:
    make(tmp_path / "M")
    names = set(contents(tmp_path / "M"))
    assert {"terminal64.exe", "MetaEditor64.exe", "metatester64.exe", "uninstall.exe", "Terminal.ico"} <= names
    assert {"Config/servers.dat", "Config/terminal.lic", "Config/terminal.ini"} <= names
    assert {"MQL5/Experts/BittenBridge.ex5", "Profiles/Charts/Default/chart01.chr"} <= names
    assert len([name for name in names if name.startswith("Sounds/")]) == 13
    common = ini(tmp_path / "M/Config/common.ini")
    experts = common[common.index("[Experts]") : common.index("[Objects]")]
    assert {"Enabled=1", "Account=0", "Profile=0"} <= set(experts)
    assistant = ini(tmp_path / "M/Config/assistant.ini")
    assert assistant[:4] == ["[MCP.MetaTrader]", "Enable=0", "[MCP.MetaEditor]", "Enable=0"]


def test_windows_can_hold_every_name(tmp_path: Path) -> None:
    make(tmp_path / "M", "--files", "1200", "--mb", "3")
    names = list(contents(tmp_path / "M"))
    assert len({name.lower() for name in names}) == len(names)
    assert not [name for name in names if set(name) & set('<>:"|?*\\') or name.endswith((".", " "))]


def test_the_proven_servers_stand_beside_it_not_in_it(tmp_path: Path) -> None:
    make(tmp_path / "BITTEN_MASTER")
    servers = json.loads((tmp_path / "BITTEN_MASTER.servers.json").read_text())
    assert {"MetaQuotes-Demo", "PaperBroker-Live", "PaperBroker-Demo"} <= set(servers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BITTEN_MASTER", "BITTEN_MASTER.servers.json"]
