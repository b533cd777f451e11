"""Which processes are a clone's, and that these and no others are stopped. Every process here is a real one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from farm.agent import ownership, processes, protocol
from farm.agent.errors import TerminalCommand, WillNotStop
from farm.agent.processes import Proc, environment
from tests.agent.house import House, end_all
from tests.waiting import until

SLEEPER = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('deaf', 'w').close(); time.sleep(60)"
FORKER = "import os, time\nif os.fork(): os._exit(0)\nos.setsid(); time.sleep(60)"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins here are of Linux")


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "Users"
    for name in ("user_9", "user_91"):
        (folder / name / "Config").mkdir(parents=True)
    yield folder
    end_all(folder)


def launched(users: Path, code: str = SLEEPER, folder: str = "user_9") -> Proc:
    clone = users / folder
    return processes.launch(f"{{python}} -c '{code}' /portable /config:{{ini}}", clone, clone / "Config" / "x.ini")


def started(users: Path, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(argv, cwd=users / "user_9")
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def shell(users: Path) -> Iterator[subprocess.Popen[bytes]]:
    yield from started(users, sys.executable, "-c", SLEEPER)


# --- whose it is ------------------------------------------------------------------------------------------------------


def test_an_operators_shell_in_the_folder_does_not_count(users: Path, shell: subprocess.Popen[bytes]):
    until(lambda: psutil.Process(shell.pid).cmdline())
    assert processes.scan(users).process("user_9") is protocol.Process.STOPPED


def test_a_folder_whose_name_begins_the_same_has_no_part_in_it(users: Path):
    proc = launched(users, folder="user_91")
    seen = processes.scan(users)
    assert seen.of("user_91") == [proc]
    assert seen.of("user_9") == []


def test_a_program_that_lies_in_the_folder_belongs_to_it_wherever_it_stands(users: Path):
    link = users / "user_9" / "terminal64.exe"
    link.symlink_to(sys.executable)
    child = subprocess.Popen([str(link), "-c", SLEEPER], cwd="/")
    try:
        until(lambda: [proc.pid for proc in processes.scan(users).of("user_9")] == [child.pid])
    finally:
        child.kill()
        child.wait()


def test_wines_way_of_writing_a_path_is_understood(users: Path):
    argv0 = "Z:" + str(users / "user_9" / "terminal64.exe").replace("/", "\\")
    child = subprocess.Popen([argv0, "-c", SLEEPER], executable=sys.executable, cwd="/")
    try:
        until(lambda: [proc.pid for proc in processes.scan(users).of("user_9")] == [child.pid])
    finally:
        child.kill()
        child.wait()


def test_the_updater_of_a_clone_belongs_to_it_though_it_runs_elsewhere(users: Path):
    path = f"/path:{users / 'user_9'}"
    child = subprocess.Popen([sys.executable, "-c", SLEEPER, "/update", path, "/portable"], cwd="/")
    try:
        found = until(lambda: processes.scan(users).of("user_9"))
        assert [(proc.pid, proc.updater) for proc in found] == [(child.pid, True)]
    finally:
        child.kill()
        child.wait()


def test_a_zombie_does_not_count(users: Path):
    child = subprocess.Popen([sys.executable, "-c", "pass", "/portable"], cwd=users / "user_9")
    until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    proc = Proc(child.pid, psutil.Process(child.pid).create_time())
    assert not processes.is_alive(proc)
    assert processes.scan(users).of("user_9") == []
    child.wait()


def test_a_later_process_with_the_same_pid_is_not_the_one_that_is_known(users: Path):
    proc = launched(users)
    assert processes.is_alive(proc)
    assert not processes.is_alive(Proc(proc.pid, proc.created - 100))


def test_a_terminal_that_may_not_be_looked_at_is_unknown_and_never_stopped(users: Path, monkeypatch):
    launched(users)

    def refused(self) -> str:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "cwd", refused)
    by_config = processes.scan(users)
    assert by_config.process("user_9") is protocol.Process.RUNNING
    monkeypatch.setattr(ownership, "_named", lambda *_: None)
    nobody_knows = processes.scan(users)
    assert nobody_knows.process("user_9") is protocol.Process.UNKNOWN
    assert nobody_knows.process("user_91") is protocol.Process.UNKNOWN
    with pytest.raises(WillNotStop):
        processes.stop(users, "user_9", grace_seconds=0.1, kill_seconds=0.2)


def test_one_process_that_the_system_will_not_speak_of_does_not_end_the_scan(users: Path, monkeypatch):
    proc = launched(users)
    real = psutil.Process.cmdline

    def trouble(self) -> list[str]:
        if self.pid == 1:
            raise OSError(87, "The parameter is incorrect")
        return real(self)

    monkeypatch.setattr(psutil.Process, "cmdline", trouble)
    assert processes.scan(users).of("user_9") == [proc]


def test_a_wrong_hint_costs_a_scan_and_nothing_else(users: Path):
    proc = launched(users)
    assert processes.find(users, "user_9", Proc(proc.pid, 1.0)) == (protocol.Process.RUNNING, [proc])
    assert processes.find(users, "user_91", None) == (protocol.Process.STOPPED, [])


def cached(pid: int) -> psutil.Process:
    """What psutil keeps of a process, and gives to everyone who asks for all of them."""
    return next(process for process in psutil.process_iter() if process.pid == pid)


def test_a_later_process_is_not_taken_for_the_terminal_that_had_its_pid(
    users: Path, shell: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ownership, "WINDOWS", True)
    monkeypatch.setattr(cached(shell.pid), "_exe", str(users / "user_9" / "terminal64.exe"))
    assert processes.stop(users, "user_9", grace_seconds=5) is False
    assert shell.poll() is None


def test_a_terminal_is_not_taken_for_the_process_that_had_its_pid(users: Path, monkeypatch: pytest.MonkeyPatch):
    program = shutil.copy("/bin/sleep", users / "user_9" / "terminal64.exe")
    child = subprocess.Popen([str(program), "60"], cwd="/")
    monkeypatch.setattr(ownership, "WINDOWS", True)
    monkeypatch.setattr(cached(child.pid), "_exe", "/usr/bin/other")
    assert processes.stop(users, "user_9", grace_seconds=5)
    assert child.wait(5) == -signal.SIGTERM


class WindowsProcess:
    """What psutil tells of a process there, or refuses to."""

    def __init__(
        self, *, exe: str | Exception = "", cmdline: list[str] | Exception | None = None, name: str = "x.exe"
    ) -> None:
        self._told = {"exe": exe, "cmdline": cmdline or [], "name": name}

    def __getattr__(self, name: str):
        return lambda: self._tell(name)

    def _tell(self, name: str):
        if isinstance(self._told[name], Exception):
            raise self._told[name]
        return self._told[name]


NINE = r"C:\MT5_Farm\Users\user_9\terminal64.exe"
UPDATER = r"C:\Users\a\AppData\Roaming\MetaQuotes\Terminal\X\liveupdate\terminal64.exe"
NOT_UNDER_WINE = OSError(87, "The parameter is incorrect")


@pytest.mark.parametrize(
    ("process", "owner"),
    [
        (WindowsProcess(exe=NINE), "user_9"),
        (WindowsProcess(exe=NINE.upper()), "user_9"),
        (WindowsProcess(exe=r"C:\MT5_Farm\Users_old\user_9\terminal64.exe"), None),
        (WindowsProcess(exe=r"C:\Windows\cmd.exe", cmdline=["cmd", "/portable"]), None),
        (WindowsProcess(exe=NOT_UNDER_WINE, cmdline=[NINE, "/portable"]), "user_9"),
        (WindowsProcess(exe=UPDATER, cmdline=[UPDATER, "/update", r"/path:C:\MT5_Farm\Users\user_9"]), "user_9"),
        (WindowsProcess(exe=UPDATER, cmdline=[UPDATER, "/portable"]), None),
    ],
)
def test_on_windows_the_executables_path_decides(process: WindowsProcess, owner: str | None, monkeypatch):
    monkeypatch.setattr(ownership, "WINDOWS", True)
    assert ownership.owner(process, ownership.Base("c:/mt5_farm/users/")) == owner


def test_on_windows_a_terminal_that_hides_everything_but_its_name_is_somebodys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ownership, "WINDOWS", True)
    base, denied = ownership.Base("c:/mt5_farm/users/"), psutil.AccessDenied(4)
    with pytest.raises(ownership.Hidden):
        ownership.owner(WindowsProcess(exe=denied, cmdline=denied, name="Terminal64.exe"), base)
    with pytest.raises(psutil.AccessDenied):
        ownership.owner(WindowsProcess(exe=denied, cmdline=denied, name="lsass.exe"), base)


# --- start ------------------------------------------------------------------------------------------------------------


def test_a_terminal_inherits_nothing_of_the_agents_and_nothing_secret():
    kept = {"PATH": "/bin", "WINEPREFIX": "/w", "PAPER_ACCOUNTS": "/a", "PAPER_KEY": "1", "HOME": "/root"}
    secret = {
        "FARM_BROKER_URL": "redis://h",
        "FARM_ROOT": "/x",
        "DJANGO_SETTINGS_MODULE": "s",
        "SECRET_KEY": "s",
        "ORDER_SIGNING_KEY": "s",
        "FIELD_KEYS": "s",
        "API_TOKEN": "t",
        "DB_PASSWORD": "p",
        "DATABASE_URL": "postgres://u:p@h/d",
        "PROXY": "http://me:pw@proxy",
        "Github_Token": "t",
    }
    assert environment(kept | secret) == kept


def test_a_command_that_does_not_exist_is_a_typed_error(users: Path):
    clone = users / "user_9"
    with pytest.raises(TerminalCommand):
        processes.launch("/nowhere/terminal64.exe /portable", clone, clone / "x.ini")
    with pytest.raises(TerminalCommand):
        processes.launch("", clone, clone / "x.ini")


def test_a_started_terminal_is_in_a_session_of_its_own(users: Path):
    proc = launched(users)
    assert os.getsid(proc.pid) == proc.pid


def test_children_that_ended_leave_no_zombie_and_tell_their_exit_code(users: Path):
    proc = launched(users, "raise SystemExit(3)")
    assert until(lambda: processes.exit_code(proc.pid)) == 3
    assert not psutil.pid_exists(proc.pid)


def test_a_terminal_survives_the_death_of_the_process_that_started_it(users: Path):
    code = (
        "import sys; from pathlib import Path; from farm.agent import processes; clone = Path(sys.argv[1]);"
        "processes.launch('{python} -c \"import time; time.sleep(60)\" /portable', clone, clone / 'x');"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    agent = subprocess.run([sys.executable, "-c", code, str(users / "user_9")], check=False)
    assert agent.returncode == -signal.SIGKILL
    assert len(processes.scan(users).of("user_9")) == 1


# --- stop -------------------------------------------------------------------------------------------------------------


def test_stopping_what_does_not_run_is_no_error(users: Path):
    assert processes.stop(users, "user_9") is False


def test_only_this_clones_processes_are_stopped(users: Path, shell: subprocess.Popen[bytes]):
    mine, other = launched(users), launched(users, folder="user_91")
    assert processes.stop(users, "user_9", grace_seconds=5)
    assert not processes.is_alive(mine)
    assert processes.is_alive(other)
    assert shell.poll() is None


def test_one_that_ignores_a_polite_stop_is_killed_after_its_grace(users: Path):
    proc = launched(users, DEAF.replace("'", '"'))
    until((users / "user_9" / "deaf").exists)
    assert processes.stop(users, "user_9", grace_seconds=0.2)
    assert not processes.is_alive(proc)
    assert until(lambda: processes.exit_code(proc.pid)) == -signal.SIGKILL


def test_one_that_forks_and_exits_is_found_and_stopped_under_its_new_pid(users: Path):
    first = launched(users, FORKER)
    until(lambda: processes.exit_code(first.pid) == 0)
    found = processes.scan(users).of("user_9")
    assert len(found) == 1
    assert found[0].pid != first.pid
    assert processes.stop(users, "user_9", grace_seconds=5)
    assert processes.scan(users).of("user_9") == []


def test_a_later_process_that_was_given_the_pid_is_not_signalled(users: Path):
    proc = launched(users)
    processes._signal(Proc(proc.pid, proc.created - 100), psutil.Process.kill)
    assert processes.is_alive(proc)


@pytest.mark.parametrize("seconds", [-3600.0, 1.0])
def test_a_clock_that_was_set_since_the_last_look_does_not_keep_a_terminal_from_being_stopped(
    users: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
):
    proc = launched(users)
    monkeypatch.setattr(cached(proc.pid), "_create_time", proc.created + seconds)
    assert processes.stop(users, "user_9", grace_seconds=5, kill_seconds=0.5)
    assert not processes.is_alive(proc)


def test_one_that_cannot_be_killed_is_said_to_be_there(users: Path, monkeypatch):
    launched(users)
    monkeypatch.setattr(processes, "_signal", lambda proc, send: None)
    with pytest.raises(WillNotStop):
        processes.stop(users, "user_9", grace_seconds=0.05, kill_seconds=0.1)


def test_an_updater_is_given_time_and_not_told_to_stop(users: Path, monkeypatch):
    told: list[int] = []
    monkeypatch.setattr(processes, "_signal", lambda proc, send: told.append(proc.pid))
    processes._politely([Proc(1, 1.0, updater=True), Proc(2, 1.0)])
    assert told == [2]


def test_a_house_finds_its_paper_terminal(house: House):
    house.running()
    assert [proc.pid for proc in house.processes()] == [house.state().launch.pid]
