"""Terminals under a user of their own, with a real paper terminal of that user, and what a hostile one may plant."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from farm.agent import bridge, cli, errors, journal, keepsake, keys, probe, processes, protocol, purge, startup, survey
from farm.agent import context as contexts
from farm.agent import terminal_user as users
from farm.agent.bridge import Identity
from farm.agent.copying import Modes
from farm.agent.errors import AgentError
from farm.agent.protocol import Outcome, Process, Reason
from farm.agent.settings import BadSettings, Settings
from farm.agent.supervise import prune_journals, tend
from farm.agent.worker import Worker
from tests.agent.farms import open_place
from tests.agent.house import ACCOUNT, PASSWORD, TERMINAL, House, end_all
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("needs_root")

NOBODY = "nobody"


def python_for_all() -> str:
    """An interpreter that every user may run: this test's own may lie in somebody's home."""
    nobody = pwd.getpwnam(NOBODY)
    for name in (os.path.realpath(sys.executable), shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        if name and users.tried(nobody.pw_uid, nobody.pw_gid, '"$0" -I -S -c ""', name, cwd=Path("/")) == 0:
            return name
    pytest.fail("no Python here that another user may run")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with open_place() as folder:
        nobody = pwd.getpwnam(NOBODY)
        (folder / "broker").mkdir()
        os.chown(folder / "broker", nobody.pw_uid, nobody.pw_gid)
        monkeypatch.setenv("PAPER_ACCOUNTS", str(folder / "broker" / "accounts.json"))
        monkeypatch.delenv("PAPER_QUIRKS", raising=False)
        yield folder


@pytest.fixture
def house(place: Path) -> Iterator[House]:
    """A house whose terminals run as nobody, and share what they may."""
    shutil.copy(TERMINAL, place / "terminal.py")
    made = House(place / "farm", place / "broker" / "accounts.json")
    made.settings = replace(
        made.settings,
        terminal_user=NOBODY,
        link="auto",
        terminal_command=f"{python_for_all()} {place}/terminal.py /portable /config:{{ini}}",
    )
    made.context = contexts.opened(made.settings, made.keys)
    made.context.now = made.clock
    try:
        yield made
    finally:
        end_all(made.settings.users)


def nobody() -> int:
    return pwd.getpwnam(NOBODY).pw_uid


# --- refused ---------------------------------------------------------------------------------------------------------


def test_root_is_no_user_for_terminals():
    with pytest.raises(errors.TerminalCommand, match="root"):
        users.found("root")


def test_an_unknown_user_is_named():
    with pytest.raises(errors.TerminalCommand, match="no-such-user"):
        users.found("no-such-user")


def test_there_is_no_such_setting_on_windows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(BadSettings, match="FARM_TERMINAL_USER"):
        Settings.from_environment({"FARM_TERMINAL_USER": NOBODY, "FARM_ROOT": "/farm"})


def test_a_user_that_may_not_enter_the_farm_gets_neither_clone_nor_start(house: House, place: Path):
    house.done("clone")
    place.chmod(0o700)
    house.context = contexts.opened(house.settings, house.keys)
    assert "execute permission" in house.context.modes.barred
    for verb, more in (("start", {}), ("clone", {"instance": 18, "folder": "user_10"})):
        report = house.obey(verb, **more)
        assert report is not None
        assert (report.outcome, report.reason) == (Outcome.FAILED, Reason.TERMINAL_COMMAND)
        assert "execute permission" in report.detail
    assert os.listdir(house.root / "Users") == ["user_9"]
    assert house.processes() == []
    house.done("destroy")


def test_a_worker_does_not_begin_where_terminals_could_not_run(house: House, place: Path):
    place.chmod(0o700)
    context = contexts.opened(replace(house.settings, broker_url="memory://"), house.keys)
    with pytest.raises(errors.TerminalCommand, match="execute permission"):
        Worker(context)


@pytest.mark.parametrize("name", [".", "Users"])
def test_a_user_that_may_write_the_farm_itself_is_refused(house: House, name: str):
    os.chown(house.root / name, nobody(), -1)
    assert "may write" in probe.probe(house.root, link=True, terminal_user=NOBODY).barred


def test_an_agent_that_may_not_change_user_says_so(house: House, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(subprocess, "run", refused)
    modes = probe.probe(house.root, link=True, terminal_user=NOBODY)
    assert "must be root" in modes.barred
    assert not modes.link


def test_that_the_way_to_a_file_is_closed_is_no_proof_that_it_cannot_be_written(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Path, "chmod", lambda path, mode: os.chmod(path, 0o666))
    assert not probe.probe(house.root, link=True, terminal_user=NOBODY).link


def test_a_clone_that_was_made_for_another_user_is_not_started(house: House):
    house.done("clone")
    house.context.modes = Modes()
    report = house.report("start")
    assert (report.reason, "another user" in report.detail) == (Reason.TERMINAL_COMMAND, True)


def test_ready_clones_made_for_another_user_are_not_taken(house: House):
    pool = house.context.pool
    assert pool is not None
    pool.size = 1
    assert pool.refill()
    pool.modes = Modes()
    house.context.modes = Modes()
    house.done("clone")
    assert house.clone.stat().st_uid == os.geteuid()
    assert pool.misses == 1


# --- its life --------------------------------------------------------------------------------------------------------


def test_a_terminal_runs_as_that_user_and_lives_its_life_there(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/root")
    house.running(**ACCOUNT)
    (proc,) = house.processes()
    process = psutil.Process(proc.pid)
    assert set(process.uids()) == {nobody()}
    assert set(process.gids()) == {pwd.getpwnam(NOBODY).pw_gid}
    groups = next(line for line in Path(f"/proc/{proc.pid}/status").read_text().splitlines() if "Groups:" in line)
    assert groups.split()[1:] == []
    assert process.environ()["HOME"] == pwd.getpwnam(NOBODY).pw_dir
    until(lambda: house.context.watch.observe(house.state()).heartbeat)
    assert not house.ini.exists()
    (row,) = survey.Surveyor(house.context).survey().instances
    assert (row.process, row.log_bytes and row.log_bytes > 0) == (Process.RUNNING, True)
    house.kill()
    house.clock.ahead += 60
    tend(house.context)
    house.clock.ahead += 60
    tend(house.context)
    until(lambda: house.processes() and psutil.Process(house.processes()[0].pid).uids().real == nobody())
    house.done("stop")
    house.done("destroy")
    purge.purge(house.root, things=10**6, seconds=60)
    assert os.listdir(house.root / "Users") == os.listdir(house.root / "Trash") == []


def test_all_of_a_clone_is_that_users_but_what_clones_share(house: House):
    house.done("clone")
    house.done("inject", **ACCOUNT)
    owners = {path.relative_to(house.clone).as_posix(): path.lstat().st_uid for path in house.clone.rglob("*")}
    assert {name for name, uid in owners.items() if uid != nobody()} == {"terminal64.exe"}
    assert (house.clone / "terminal64.exe").stat().st_nlink == 2
    assert owners["MQL5/Files/bitten/identity.json"] == owners["MQL5/Files/bitten/commands"] == nobody()
    assert house.clone.stat().st_mode & 0o777 == 0o700


def test_the_start_up_file_is_that_users_alone(house: House):
    house.done("clone")
    startup.write(house.ini, server="Demo", login=12345, password=PASSWORD)
    assert (house.ini.stat().st_uid, house.ini.stat().st_mode & 0o777) == (nobody(), 0o600)


def test_that_user_gets_at_nothing_of_the_farm_but_its_clones(house: House):
    house.done("clone")
    entry = pwd.getpwnam(NOBODY)
    for name in (*users.CLOSED, "State/17.json", "Masters/BITTEN_MASTER/terminal64.exe"):
        script = 'ls "$0" >/dev/null 2>&1 || cat "$0" >/dev/null 2>&1 || exit 9'
        assert users.tried(entry.pw_uid, entry.pw_gid, script, str(house.root / name), cwd=Path("/")) == 9, name
    assert users.tried(entry.pw_uid, entry.pw_gid, 'ls "$0"', str(house.root / "Users"), cwd=Path("/")) != 0
    assert users.tried(entry.pw_uid, entry.pw_gid, 'ls "$0"', str(house.clone), cwd=Path("/")) == 0


def test_a_keepsake_is_taken_from_and_brought_to_that_user(house: House):
    house.done("clone")
    made = house.clone / "MQL5" / "Presets" / "mine.set"
    made.parent.mkdir(parents=True)
    made.write_text("a=1")
    kept = keepsake.pack(house.clone)
    house.done("clone", instance=18, folder="user_10", generation=1)
    other = house.root / "Users" / "user_10"
    keepsake.unpack(kept.data, other)
    for path in (other / "MQL5/Presets", other / "MQL5/Presets/mine.set"):
        assert path.stat().st_uid == nobody()


# --- what a hostile one plants ---------------------------------------------------------------------------------------


@pytest.fixture
def outside(place: Path) -> Path:
    """A folder of root's, as /etc is, that holds what must stay as it is."""
    folder = place / "outside"
    folder.mkdir()
    for name in ("20200101.log", "20200102.log", "bitten-start.ini", "heartbeat.json", "kept.set"):
        (folder / name).write_text("root's")
    return folder


def untouched(outside: Path) -> bool:
    names = ["20200101.log", "20200102.log", "bitten-start.ini", "heartbeat.json", "kept.set"]
    return sorted(os.listdir(outside)) == names and all((outside / n).read_text() == "root's" for n in names)


def planted(house: House, name: str, outside: Path) -> Path:
    """A clone in which a link to ``outside`` stands where ``name`` stood."""
    house.done("clone")
    path = house.clone / name
    if path.exists():
        path.rename(house.clone / "aside")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside)
    return house.clone


def test_a_link_for_config_gets_no_password_and_has_nothing_removed(house: House, outside: Path):
    planted(house, "Config", outside)
    house.done("inject", **ACCOUNT)
    report = house.report("start", **ACCOUNT)
    assert report.outcome is Outcome.FAILED
    assert PASSWORD not in report.detail
    house.done("stop")
    assert untouched(outside)


@pytest.mark.parametrize("name", ["MQL5", "MQL5/Files", "MQL5/Files/bitten", "MQL5/Files/bitten/commands"])
def test_a_link_on_the_way_to_the_bridge_is_neither_written_nor_cleared_through(house: House, outside: Path, name: str):
    clone = planted(house, name, outside)
    for act in (
        lambda: bridge.clear_stale(clone),
        lambda: bridge.write_bridge(clone, magic=1, port=0),
        lambda: bridge.write_identity(clone, Identity(instance=1, host="a", folder="b", kind="live", magic=1, port=0)),
    ):
        with suppress(AgentError):
            act()
    assert bridge.last_command_at(clone) is None
    assert bridge.read_heartbeat(clone, login=None, server="") is None
    assert untouched(outside)


@pytest.mark.parametrize("name", ["logs", "MQL5/Logs", "MQL5"])
def test_a_link_for_the_journals_has_none_pruned_read_or_counted(house: House, outside: Path, name: str):
    clone = planted(house, name, outside)
    (outside / "Logs").symlink_to(outside) if name == "MQL5" else None
    for folder in bridge.JOURNALS:
        prune_journals(clone, folder, now=house.clock() + 10**9, most_bytes=0)
    assert survey.log_bytes(clone) == 0
    assert journal.checkpoint(clone / "logs") == journal.Position()
    assert journal.read(clone / "logs", journal.Position()).lines == ()
    (outside / "Logs").unlink(missing_ok=True)
    assert untouched(outside)


def test_a_keepsake_holds_nothing_from_behind_a_link_or_a_hard_link(house: House, outside: Path):
    clone = planted(house, "MQL5/Presets", outside)
    (clone / "MQL5" / "Files").mkdir(parents=True, exist_ok=True)
    os.link(outside / "kept.set", clone / "MQL5" / "Files" / "kept.set")
    os.mkfifo(clone / "MQL5" / "Files" / "pipe.txt")
    assert keepsake.pack(clone).files == 0


def test_a_keepsake_is_not_brought_through_a_link(house: House, outside: Path):
    house.done("clone")
    (house.clone / "MQL5" / "Presets").mkdir(parents=True)
    (house.clone / "MQL5" / "Presets" / "mine.set").write_text("a=1")
    kept = keepsake.pack(house.clone)
    shutil.rmtree(house.clone / "MQL5" / "Presets")
    (house.clone / "MQL5" / "Presets").symlink_to(outside)
    with pytest.raises(AgentError):
        keepsake.unpack(kept.data, house.clone)
    assert untouched(outside)


def test_pipes_sockets_and_huge_holes_hold_nothing_up(house: House):
    house.running()
    logs = house.clone / "logs"
    os.mkfifo(logs / "99991231.log")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(logs / "s.log"))
    with (house.clone / "MQL5" / "Files" / "hole.csv").open("wb") as hole:
        hole.truncate(1 << 42)
    heartbeat = house.clone / bridge.FOLDER / "account.json"
    heartbeat.unlink(missing_ok=True)
    os.mkfifo(heartbeat)
    assert house.context.watch.observe(house.state()).process is Process.RUNNING
    assert survey.disk_bytes(house.clone) < 1 << 30
    assert "MQL5/Files/hole.csv" in keepsake.pack(house.clone).left_out
    house.done("destroy")
    purge.purge(house.root, things=10**6, seconds=60)
    assert os.listdir(house.root / "Trash") == []


def test_a_journal_from_behind_a_link_tells_nothing_of_the_account(house: House, outside: Path):
    house.running(**ACCOUNT)
    journals = house.clone / "logs"
    journals.rename(outside / "logs")
    journals.symlink_to(outside / "logs")
    house.kill()
    assert house.anew(terminal_user="") is not None  # nobody remembers what was read
    seen = house.context.watch.observe(house.state())
    assert seen.process is Process.STOPPED
    assert not seen.synchronized


def test_the_operators_commands_work_for_that_user_too(
    house: House, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    keys.generate(place / "keys.json")
    for name, value in {
        "FARM_ROOT": house.root,
        "FARM_HOST": "alpha",
        "FARM_KEY_FILE": place / "keys.json",
        "FARM_PORTAL_KEYS": protocol.b64(bytes(house.portal.verify_key)),
        "FARM_TERMINAL_COMMAND": house.settings.terminal_command,
        "FARM_TERMINAL_USER": NOBODY,
        "FARM_LINK": "auto",
    }.items():
        monkeypatch.setenv(name, str(value))
    for words in (["clone", "--instance", "3", "--folder", "user_3"], ["start", "--instance", "3"]):
        assert cli.main(words) == 0, capsys.readouterr().out
    (proc,) = processes.scan(house.settings.users).of("user_3")
    assert psutil.Process(proc.pid).uids().real == nobody()
    assert cli.main(["destroy", "--instance", "3"]) == 0
    capsys.readouterr()
    assert cli.main(["survey"]) == 0
    assert json.loads(capsys.readouterr().out)["pool"]["way"] == "link"
