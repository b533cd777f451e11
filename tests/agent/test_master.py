"""What a master is, that a change to it is noticed, and what must not be in one."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from farm.agent import errors, manifest, tree
from farm.agent import master as masters
from farm.agent.findings import Severity
from tests.agent.farms import contents, fresh, make_farm


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_farm(tmp_path)


@pytest.fixture
def master(root: Path) -> Path:
    return masters.folder(root)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which files of a master are read through, from now on."""
    seen: list[str] = []
    hashed = manifest._hashed

    def noting(path: Path, stamp: manifest.Stamp) -> manifest.File:
        seen.append(stamp.path)
        return hashed(path, stamp)

    monkeypatch.setattr(manifest, "_hashed", noting)
    return seen


# --- refused ---------------------------------------------------------------------------------------------------------


def test_an_absent_master_is_missing(tmp_path):
    with pytest.raises(errors.MasterMissing):
        fresh(tmp_path)


def test_an_empty_master_is_missing(tmp_path):
    masters.folder(tmp_path).mkdir(parents=True)
    with pytest.raises(errors.MasterMissing):
        fresh(tmp_path)


def test_a_master_without_a_terminal_is_unfit(root, master):
    (master / "terminal64.exe").unlink()
    with pytest.raises(errors.MasterUnfit, match="terminal64"):
        fresh(root)


@pytest.mark.parametrize("target", ["/etc", "../../Users", "Sounds"])
def test_a_master_with_a_link_is_unfit(root, master, target):
    (master / "MQL5" / "Libraries").symlink_to(target)
    with pytest.raises(errors.MasterUnfit, match="MQL5/Libraries"):
        fresh(root)


def test_a_master_with_a_pipe_in_it_is_unfit(root, master):
    os.mkfifo(master / "pipe")
    with pytest.raises(errors.MasterUnfit, match="pipe"):
        fresh(root)


def test_a_master_that_never_stops_changing_is_unfit(root, master, monkeypatch):
    looked = manifest.look

    def look_and_change(path: Path) -> manifest.Look:
        seen = looked(path)
        with open(master / "terminal64.exe", "ab") as file:
            file.write(b"!")
        return seen

    monkeypatch.setattr(manifest, "look", look_and_change)
    with pytest.raises(errors.MasterUnfit, match="changes"):
        fresh(root)


def test_a_master_that_cannot_be_read_says_so(root, monkeypatch):
    def refuse(path: object) -> object:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(manifest, "look", refuse)
    with pytest.raises(errors.FolderTrouble, match="EIO"):
        fresh(root)


# --- noticed ---------------------------------------------------------------------------------------------------------


def test_a_touched_file_leaves_the_digest(root, master):
    before = fresh(root).digest
    os.utime(master / "terminal64.exe", (1, 1))
    assert fresh(root).digest == before


def test_the_same_files_elsewhere_have_the_same_digest(root, master, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(master, masters.folder(other))
    assert fresh(other).digest == fresh(root).digest


def test_a_changed_byte_gives_a_new_digest_and_reads_that_file_alone(root, master, reads):
    before = fresh(root).digest
    reads.clear()
    (master / "Config" / "servers.dat").write_bytes(b"SERVERS")
    assert fresh(root).digest != before
    assert reads == ["Config/servers.dat"]


def test_a_replaced_file_of_same_size_and_time_is_noticed(root, master):
    before = fresh(root).digest
    old = master / "Config" / "servers.dat"
    seen = old.stat()
    new = master / "new"
    new.write_bytes(b"SERVERS")
    os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    new.replace(old)
    assert fresh(root).digest != before


@pytest.mark.parametrize(
    "change",
    [
        lambda master: (master / "new.txt").write_text("new"),
        lambda master: (master / "Sounds" / "tick.wav").unlink(),
        lambda master: (master / "Sounds" / "tick.wav").rename(master / "Sounds" / "tock.wav"),
        lambda master: (master / "Images").mkdir(),
        lambda master: (master / "Tester").rmdir(),
    ],
    ids=["file added", "file removed", "file renamed", "folder added", "folder removed"],
)
def test_another_tree_has_another_digest(root, master, change):
    before = fresh(root).digest
    change(master)
    assert fresh(root).digest != before


def test_the_terminals_journals_and_saved_accounts_are_no_part_of_it(root, master):
    before = fresh(root)
    for name in ("Config/accounts.dat", "logs/20261122.log", "MQL5/Logs/20261122.log", "Bases/X/trades/5/d.dat"):
        (master / name).parent.mkdir(parents=True, exist_ok=True)
        (master / name).write_bytes(b"somebody's")
    after = fresh(root)
    assert [file.path for file in after.manifest.files] == [file.path for file in before.manifest.files]


def test_an_unchanged_master_is_not_read_again_by_the_next_process(root, reads, monkeypatch):
    before = fresh(root).digest
    reads.clear()
    monkeypatch.setattr(masters, "_known", {})
    assert fresh(root).digest == before
    assert reads == []


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"schema":1,"digest":"00","folders":[],"files":[["a"]]}'])
def test_a_spoiled_manifest_is_made_anew(root, master, monkeypatch, junk):
    before = fresh(root).digest
    manifest.beside(master, "manifest").write_text(junk)
    monkeypatch.setattr(masters, "_known", {})
    assert fresh(root).digest == before
    assert json.loads(manifest.beside(master, "manifest").read_text())["digest"] == before


def test_a_manifest_that_claims_other_hashes_is_not_believed(root, master, monkeypatch):
    before = fresh(root).digest
    kept = manifest.beside(master, "manifest")
    content = json.loads(kept.read_text())
    content["files"][0][-1] = "0" * 40
    kept.write_text(json.dumps(content))
    monkeypatch.setattr(masters, "_known", {})
    assert fresh(root).digest == before


def test_a_disk_that_keeps_no_manifest_still_has_a_master(root, monkeypatch, caplog):
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(tree, "write", refuse)
    assert fresh(root).digest
    assert "could not be kept" in caplog.text


def test_a_look_is_good_for_as_long_as_the_caller_says(root, master):
    before = masters.load(root)
    (master / "new.txt").write_text("new")
    assert masters.load(root, max_age_seconds=3600) is before
    assert masters.load(root, max_age_seconds=0).digest != before.digest


def test_a_master_that_vanished_is_missing_at_the_next_look(root, master):
    fresh(root)
    shutil.rmtree(master)
    for _ in range(2):
        with pytest.raises(errors.MasterMissing):
            fresh(root)


# --- what may be shared ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "terminal64.exe",
        "TERMINAL64.EXE",
        "metaeditor64.exe",
        "uninstall.exe",
        "Terminal.ico",
        "Sounds/ok.wav",
        "Config/terminal.lic",
        "MQL5/Include/Trade/Trade.mqh",
    ],
)
def test_what_a_running_terminal_only_reads_may_be_shared(path):
    assert manifest.is_immutable(path)


@pytest.mark.parametrize(
    "path",
    [
        "Config/common.ini",
        "Config/servers.dat",
        "MQL5/Experts/BittenBridge.ex5",
        "MQL5/Files/a.mqh",
        "MQL5/Profiles/a.mq5",
        "Profiles/Charts/Default/chart01.chr",
        "Bases/Default/History/EURUSD/2024.hcc",
        "Bases/terminal64.exe",
        "Tester/terminal64.exe",
        "unknown.bin",
        "x/Sounds/ok.wav",
    ],
)
def test_all_else_is_mutable(path):
    assert not manifest.is_immutable(path)


# --- servers ---------------------------------------------------------------------------------------------------------


def test_proven_servers_are_read_from_beside_the_master(root, master):
    manifest.beside(master, "servers").write_text('["Exness-MT5Trial9", "VantageInternational-Live 5"]')
    assert masters.servers(root) == ["Exness-MT5Trial9", "VantageInternational-Live 5"]


@pytest.mark.parametrize("junk", ["", "{}", "7", '[1, null, "", " a", "a\\nb"]', '{"servers": 5}', "\x00"])
def test_what_is_no_list_of_servers_proves_none(root, master, junk):
    manifest.beside(master, "servers").write_text(junk)
    assert masters.servers(root) == []


# --- check and prepare -----------------------------------------------------------------------------------------------


def put(name: str, content: bytes = b"x"):
    def planted(master: Path) -> None:
        (master / name).parent.mkdir(parents=True, exist_ok=True)
        (master / name).write_bytes(content)

    return planted


def option(old: str, new: str, file: str = "Config/common.ini"):
    def planted(master: Path) -> None:
        text = (master / file).read_bytes().decode("utf-16")
        assert old in text
        (master / file).write_bytes(("\ufeff" + text.replace(old, new)).encode("utf-16-le"))

    return planted


MENDABLE = {
    "Config/accounts.dat": put("Config/accounts.dat"),
    "Config/ACCOUNTS.DAT": put("Config/ACCOUNTS.DAT"),
    "Config/bitten-start.ini": put("Config/bitten-start.ini"),
    "mt5_config.ini": put("mt5_config.ini", b"[Common]\nLogin=5\nPassword=secret\n"),
    "Config/common.ini [Common] Login": option("NewsEnable=0", "Login=5000001"),
    "Config/common.ini [Common] Server": option("NewsEnable=0", "server = X-Demo"),
    "Config/common.ini [Common] Environment": option("NewsEnable=0", "Environment=AA11"),
    "Config/common.ini [Experts] Account": option("Account=0", "Account=1"),
    "Config/common.ini [Experts] Profile": option("Profile=0", "Profile=1"),
    "Config/common.ini [Experts] Enabled": option("Enabled=1", "Enabled=1\r\nEnabled=0"),
    "Config/assistant.ini [MCP.MetaTrader] Enable": option(
        "[MCP.MetaTrader]\r\nEnable=0", "[MCP.MetaTrader]\r\nEnable=1", "Config/assistant.ini"
    ),
    "Config/assistant.ini": lambda master: (master / "Config/assistant.ini").unlink(),
    "Config/common.ini": put("Config/common.ini", b"[Experts]\nEnabled=1\nAccount=0\nProfile=0\n"),
    "logs/20261122.log": put("logs/20261122.log"),
    "MQL5/Logs/20261122.log": put("MQL5/Logs/20261122.log"),
    "MQL5/Files/bitten/heartbeat.json": put("MQL5/Files/bitten/heartbeat.json"),
    "Bases/X-Demo/mail/1.dat": put("Bases/X-Demo/mail/1.dat"),
    "Bases/X-Demo/trades/5000001": put("Bases/X-Demo/trades/5000001/deals.dat"),
    "temp/EBWebView": put("temp/EBWebView/Cookies"),
    "MQL5/Libraries": lambda master: (master / "MQL5/Libraries").symlink_to("/etc"),
}
FOR_A_PERSON = {
    "terminal64.exe": lambda master: (master / "terminal64.exe").unlink(),
    "MQL5/Experts/BittenBridge.ex5": lambda master: (master / "MQL5/Experts/BittenBridge.ex5").unlink(),
    "Config/servers.dat": put("Config/servers.dat", bytes(50_544)),
    "'MQL5/con.mqh'": put("MQL5/con.mqh"),
    "'a:b'": put("a:b"),
    "'dot.'": put("dot."),
    "Sounds/tick.wav": put("Sounds/TICK.wav"),
    "x" * 240: put("x" * 240),
    "servers.json": lambda master: manifest.beside(master, "servers").unlink(),
}


def test_a_good_master_has_no_findings(root):
    assert masters.check(root) == []


def test_an_absent_master_is_a_finding_not_an_error(tmp_path):
    assert [finding.severity for finding in masters.check(tmp_path)][:1] == [Severity.ERROR]


@pytest.mark.parametrize("item", FOR_A_PERSON)
def test_what_only_a_person_can_put_right_is_found(root, master, item):
    FOR_A_PERSON[item](master)
    found = [finding for finding in masters.check(root) if finding.item == item]
    assert found
    assert not any(finding.mendable for finding in found)


@pytest.mark.parametrize("item", MENDABLE)
def test_what_can_be_mended_is_found_and_mended(root, master, item):
    MENDABLE[item](master)
    found = masters.check(root)
    assert [(finding.item, finding.mendable) for finding in found] == [(item, True)]
    assert all(action.done for action in masters.prepare(root, dry_run=False))
    assert masters.check(root) == []


@pytest.mark.parametrize("item", MENDABLE)
def test_a_dry_run_tells_and_does_nothing(root, master, item):
    MENDABLE[item](master)
    before = contents(root)
    assert [action.done for action in masters.prepare(root, dry_run=True)] == [False]
    assert contents(root) == before


def test_mending_moves_aside_and_deletes_nothing(root, master):
    put("Config/accounts.dat", b"saved")(master)
    masters.prepare(root, dry_run=False)
    (aside,) = master.parent.glob("BITTEN_MASTER.removed-*")
    assert (aside / "Config" / "accounts.dat").read_bytes() == b"saved"


def test_a_link_is_moved_not_followed(root, master, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("kept")
    (master / "link").symlink_to(outside)
    masters.prepare(root, dry_run=False)
    assert not (master / "link").is_symlink()
    assert (outside / "kept").read_text() == "kept"


def test_mended_options_keep_every_other_line_and_the_encoding(root, master):
    text = "\ufeff; mine\r\n[Common]\r\nLogin=5\r\nProxy=é\r\n[Experts]\r\nAccount=1\r\nEnabled=1\r\n[Odd]\r\na=b\r\n"
    (master / "Config/common.ini").write_bytes(text.encode("utf-16-le"))
    masters.prepare(root, dry_run=False)
    raw = (master / "Config/common.ini").read_bytes()
    assert raw.startswith(b"\xff\xfe")
    assert raw.decode("utf-16").split("\r\n") == [
        "; mine",
        "[Common]",
        "Proxy=é",
        "[Experts]",
        "Profile=0",
        "Account=0",
        "Enabled=1",
        "[Odd]",
        "a=b",
        "",
    ]


def test_errors_are_named_before_warnings(root, master):
    put("logs/a.log")(master)
    put("Config/accounts.dat")(master)
    assert [finding.severity for finding in masters.check(root)] == [Severity.ERROR, Severity.WARNING]


def test_preparing_an_absent_master_is_refused(tmp_path):
    with pytest.raises(errors.MasterMissing):
        masters.prepare(tmp_path, dry_run=False)
