"""A stack as `make run` starts it: it refuses in a sentence, tells each process only what it needs, and ends whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis

from bitten_portal.stack import Stack, StackError, commands, reaper
from bitten_portal.stack.__main__ import make_manage
from bitten_portal.stack.children import Child
from bitten_portal.stack.environments import Environments, terminal_command
from bitten_portal.stack.keys import Keys
from bitten_portal.stack.places import REPOSITORY, Lock, Places, free_port
from bitten_portal.stack.running import short, silent
from farm.agent.settings import words
from tests.waiting import until

SMALL = {"MASTER_MB": "2", "MASTER_FILES": "150", "ACCOUNTS": "3", "FARM_POOL": "0", "FARM_STOP_SECONDS": "1"}


def alive(data_dir: Path) -> list[psutil.Process]:
    """Every process of the stack on ``data_dir``, terminals and reaper included."""
    return reaper.marked(str(data_dir))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_said_in_a_sentence_and_nothing_is_left(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {port} is taken by another program"):
            Stack(data_dir=tmp_path, port=port).__enter__()
    assert alive(tmp_path) == []


def test_a_number_that_is_no_port_is_not_called_taken(tmp_path) -> None:
    with pytest.raises(StackError, match="65536 is no port"):
        Stack(data_dir=tmp_path, port=65536).__enter__()


def test_a_data_folder_that_cannot_be_is_said_in_a_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot be used as the data folder"):
        Stack(data_dir=tmp_path / "file" / "var").__enter__()


def test_a_secrets_file_that_cannot_be_read_is_never_overwritten(tmp_path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text("{broken")
    with pytest.raises(StackError, match="nothing was changed"):
        Keys.kept(path)
    assert path.read_text() == "{broken"


def test_a_second_stack_on_the_same_folder_is_refused(tmp_path) -> None:
    places = Places(tmp_path)
    places.make()
    first = Lock(places.lock)
    first.take(say=silent)
    with pytest.raises(StackError, match=f"runs on {tmp_path} already \\(process {os.getpid()}\\)"):
        Lock(places.lock).take(say=silent)
    first.leave()
    again = Lock(places.lock)
    again.take(say=silent)
    again.leave()


def test_a_command_before_the_first_run_is_said_in_a_sentence(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bitten_portal.stack", "--data-dir", str(tmp_path), "manage", "check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "make run comes first" in done.stderr
    assert "Traceback" not in done.stderr


# --- who is told what -------------------------------------------------------------------------------------------------


@pytest.fixture
def environments(tmp_path) -> Environments:
    extra = {"FARM_POOL": "7", "IDLE_HOURS": "1", "MASTER_MB": "2"}
    return Environments(places=Places(tmp_path), keys=Keys.make(), port=1, broker_port=2, extra=extra)


def test_only_the_portal_worker_has_the_keys(environments) -> None:
    keys = {"ORDER_SIGNING_KEY", "FIELD_KEYS", "INTAKE_SECRET_KEYS"}
    assert keys <= environments.worker().keys()
    secret = {environments.worker()[name] for name in keys}
    for others in (environments.web(), environments.reports(), environments.host()):
        assert not keys & others.keys()
        assert not secret & set(others.values())


def test_who_grants_leases_can_sign_and_opens_no_password(environments) -> None:
    told = environments.leases()
    assert told["ORDER_SIGNING_KEY"] == environments.worker()["ORDER_SIGNING_KEY"]
    assert not {"FIELD_KEYS", "INTAKE_SECRET_KEYS"} & told.keys()


def test_who_takes_in_what_hosts_say_can_take_no_money(environments) -> None:
    environments = replace(environments, stripe_port=3, extra={"STRIPE_WEBHOOK_SECRET": "whsec_x"})
    assert environments.web().keys() - environments.reports().keys() == {
        "STRIPE_API_BASE",
        "STRIPE_SECRET_KEY",
        "STRIPE_WEBHOOK_SECRET",
    }


def test_a_host_knows_nothing_of_django_or_the_database(environments) -> None:
    told = environments.host()
    assert not {"SECRET_KEY", "DATABASE_URL", "DJANGO_SETTINGS_MODULE"} & told.keys()
    assert environments.keys.secret_key not in told.values()


def test_an_option_goes_to_whom_it_concerns(environments) -> None:
    assert (environments.host()["FARM_POOL"], environments.web()["IDLE_HOURS"]) == ("7", "1")
    assert "FARM_POOL" not in environments.web()
    assert "IDLE_HOURS" not in environments.host()
    assert not {"MASTER_MB"} & {*environments.host(), *environments.web()}


def test_a_database_and_a_broker_that_are_given_are_used_and_no_other_broker_is_started(environments) -> None:
    given = {"DATABASE_URL": "postgres://127.0.0.1/farm", "BROKER_URL": "redis://127.0.0.1:1/0"}
    elsewhere = replace(environments, extra=given)
    for told in (elsewhere.web(), elsewhere.worker(), elsewhere.reports(), elsewhere.leases()):
        assert {name: told[name] for name in given} == given
    assert elsewhere.host()["FARM_BROKER_URL"] == given["BROKER_URL"]
    elsewhere.places.make()
    assert "broker" not in {child.name for child in commands.children(elsewhere)}


def test_each_host_has_its_own_folder_keys_ports_and_name(tmp_path) -> None:
    first, second = Places(tmp_path, hosts=2).hosts
    assert (first.name, second.name) == ("laptop", "laptop-2")
    assert (first.farm, first.keys) == (tmp_path / "MT5_Farm", tmp_path / "host" / "keys.json"), "as ever"
    assert (first.ports, second.ports) == ("9000-9999", "10000-10999")
    assert not {first.farm, first.keys, first.master} & {second.farm, second.keys, second.master}


def test_each_host_has_a_worker_and_a_watchdog_and_what_it_alone_is_told(environments) -> None:
    places = Places(environments.places.data_dir, hosts=3)
    places.make()
    several = replace(environments, places=places, per_host={"laptop-2": {"FARM_POLICY": "static"}})
    told = {child.name: child.env for child in commands.children(several) if "FARM_HOST" in child.env}
    assert {name: env["FARM_HOST"] for name, env in told.items()} == {
        "host": "laptop",
        "watchdog": "laptop",
        "host-2": "laptop-2",
        "host-3": "laptop-3",
        "watchdog-3": "laptop-3",
    }, "a host under the policy static has nothing that its watchdog could stop"
    assert "FARM_POLICY" not in told["host"]
    assert len({env["FARM_KEY_FILE"] for env in told.values()}) == 3


def test_what_else_is_in_our_own_environment_reaches_nobody(environments, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://elsewhere/db")
    monkeypatch.setenv("AWS_SECRET", "hush")
    assert environments.web()["DATABASE_URL"].startswith("sqlite:///")
    assert "AWS_SECRET" not in {*environments.web(), *environments.worker(), *environments.host()}


def test_the_secrets_are_kept_and_readable_by_their_owner_only(tmp_path) -> None:
    path = tmp_path / "secrets.json"
    made = Keys.kept(path)
    assert Keys.kept(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.secret_key not in repr(made)


def test_a_new_data_folder_is_its_owners_alone_and_one_that_stood_keeps_its_rights(tmp_path) -> None:
    tmp_path.chmod(0o750)
    for folder in (tmp_path, tmp_path / "new"):
        Places(folder).make()
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (tmp_path, tmp_path / "new")] == [0o750, 0o700]


def test_make_hands_the_data_folder_on_as_one_word(tmp_path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    shutil.copy(REPOSITORY / "requirements" / "dev.lock", tmp_path / "installed.lock")
    said = subprocess.run(
        ["make", "--silent", "run", f"VENV={tmp_path}", "DATA_DIR=my 'big' farm; true"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "my 'big' farm; true" in said.stdout.splitlines()


def test_the_way_to_a_command_names_the_folder_unless_it_is_the_usual_one(tmp_path) -> None:
    assert make_manage(Places(tmp_path / "a b"), "check") == f"make manage DATA_DIR='{tmp_path / 'a b'}' C=check"
    assert make_manage(Places(Path("var")), "migrate --plan") == "make manage C='migrate --plan'"


def test_a_secret_that_a_newer_version_needs_is_added_to_those_that_are_kept(tmp_path) -> None:
    path = tmp_path / "secrets.json"
    made = Keys.kept(path)
    stored = json.loads(path.read_text())
    del stored["intake_secret_key"]
    path.write_text(json.dumps(stored))
    again = Keys.kept(path)
    assert (again.secret_key, again.field_key) == (made.secret_key, made.field_key)
    assert Keys.kept(path) == again


def test_the_terminals_command_survives_a_folder_with_blanks_and_braces(monkeypatch) -> None:
    monkeypatch.setattr("bitten_portal.stack.environments.REPOSITORY", Path("/my {repo}/it's here"))
    argv = words(terminal_command(), folder="/f", ini="/f/i n.ini")
    assert argv[1:] == ["/my {repo}/it's here/farm/paper/terminal.py", "/portable", "/config:/f/i n.ini"]


# --- one child --------------------------------------------------------------------------------------------------------


def test_who_dies_again_and_again_is_started_ever_later(tmp_path) -> None:
    child = Child(name="x", argv=[sys.executable, "-c", ""], env={}, log=tmp_path / "x.log")
    child.start()
    child.end(seconds=10)
    assert [child.died() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_errors_in_a_log_are_told_once_and_in_short(tmp_path) -> None:
    log = tmp_path / "x.log"
    child = Child(name="x", argv=[], env={}, log=log)
    event = {"level": "error", "message": "it broke", "traceback": "Traceback\n  File\nValueError: no"}
    log.write_text('{"level": "info", "message": "fine"}\n' + json.dumps(event) + "\nhalf a li")
    [line] = child.new_errors()
    assert short(line) == "it broke ValueError: no"
    assert child.new_errors() == []


def test_the_reaper_leaves_be_what_the_launcher_ended_itself() -> None:
    told = json.dumps({"name": "web", "pid": 1, "created": 0.0}) + "\n"
    assert reaper.read_lifeline([told, '{"finished": true}\n']) is None
    assert reaper.read_lifeline([told, '{"name": "we']) == [json.loads(told)]


def test_the_reaper_takes_no_process_for_another_that_has_its_number() -> None:
    mine = psutil.Process()
    assert reaper.running({"pid": mine.pid, "created": mine.create_time()}) == mine
    assert reaper.running({"pid": mine.pid, "created": mine.create_time() - 60}) is None


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    """In a folder whose name holds what a shell, a URL and a configuration file each read as their own."""
    with Stack(data_dir=tmp_path_factory.mktemp("stack") / "große Farm #1 + 50%20?", env=SMALL) as running:
        yield running


@pytest.mark.acceptance
def test_a_stack_answers_and_its_login_was_made(stack) -> None:
    with urllib.request.urlopen(f"{stack.url}/", timeout=5) as page:
        assert page.status == 200
    assert stack.staff_password
    of_the_host = {"host", "watchdog"}
    of_the_portal = {"broker", "portal", "reports", "leases", "beat", "web", "stripe"}
    assert set(stack.processes) == of_the_host | of_the_portal


@pytest.mark.acceptance
def test_no_process_of_a_stack_is_in_anothers_group(stack) -> None:
    groups = {name: os.getpgid(child.pid) for name, child in stack.processes.items() if child.pid}
    assert len(set(groups.values())) == len(stack.processes)
    assert psutil.Process(stack.processes["watchdog"].pid).ppid() == os.getpid()


@pytest.mark.acceptance
def test_the_death_of_a_hosts_worker_leaves_its_watchdog(stack) -> None:
    watchdog = stack.processes["watchdog"].pid
    stack.kill("host")
    assert (stack.processes["watchdog"].alive, stack.processes["watchdog"].pid) == (True, watchdog)
    stack.start("host")


@pytest.mark.acceptance
def test_the_demo_accounts_passwords_are_left_in_no_file(stack) -> None:
    assert not stack.places.new_accounts.exists()
    assert stack.places.accounts.exists()


@pytest.mark.acceptance
def test_nobody_reaches_the_broker_without_its_password(stack) -> None:
    port = stack.environments.broker_port
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    argv = " ".join(word for process in alive(stack.places.data_dir) for word in process.cmdline())
    assert stack.environments.keys.broker_password not in argv


@pytest.mark.acceptance
def test_a_process_that_dies_is_started_again_and_said(tmp_path) -> None:
    said: list[str] = []
    with Stack(data_dir=tmp_path, env=SMALL, say=said.append) as stack:
        beat = stack.processes["beat"]
        first = beat.pid
        assert first
        os.kill(first, signal.SIGKILL)
        until(lambda: beat.alive and beat.pid != first, seconds=15)
        assert any("beat ended by itself (-9)" in line for line in said)
        stack.kill("beat")
        time_of_death = time.monotonic()
        until(lambda: time.monotonic() - time_of_death > 2, seconds=5)
        assert not beat.alive
        stack.start("beat")
        assert beat.alive


def launch(data_dir: Path, port: int) -> subprocess.Popen[str]:
    """`make run`, but for the installing, from a parent of its own that can be killed: the parent's process."""
    command = [sys.executable, "-m", "bitten_portal.stack", "--port", str(port), "--data-dir", str(data_dir)]
    parent = f"import subprocess; print(subprocess.Popen({command!r}).pid, flush=True); input()"
    return subprocess.Popen(
        [sys.executable, "-c", parent],
        env={**os.environ, **SMALL},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def upto(parent: subprocess.Popen[str], words: str) -> list[str]:
    assert parent.stdout is not None
    lines = []
    for line in parent.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"never said {words!r}: {lines}")


def agent(data_dir: Path, *command: str) -> None:
    """What an operator on the stack's host would type."""
    places = Places(data_dir)
    ports = json.loads(places.ports.read_text())
    env = Environments(
        places=places, keys=Keys.kept(places.secrets), port=ports["web"], broker_port=ports["broker"], extra=SMALL
    )
    subprocess.run([sys.executable, "-m", "farm.agent", *command], env=env.host(), check=True, capture_output=True)


def terminals(data_dir: Path) -> list[psutil.Process]:
    return [process for process in alive(data_dir) if "/portable" in process.cmdline()]


def test_an_interrupt_waits_for_no_lock_that_the_interrupted_may_hold(tmp_path) -> None:
    stack = Stack(data_dir=tmp_path / "var")
    with stack._stopping._cond:  # held, as by an Event.set that a second signal falls into
        handler = threading.Thread(target=stack.interrupt, daemon=True)
        handler.start()
        handler.join(timeout=5)
    assert stack.interrupted
    assert not handler.is_alive()


ENDS = [("self", signal.SIGINT), ("storm", signal.SIGTERM), ("self", signal.SIGKILL), ("parent", signal.SIGKILL)]


@pytest.mark.acceptance
def test_no_end_of_the_launcher_leaves_a_process_and_the_next_run_goes_on(tmp_path) -> None:
    """Ctrl-C, SIGTERM many times over, its own SIGKILL, its parent's. A terminal that ran is there again after each."""
    port = free_port()
    for number, (whom, sent) in enumerate(ENDS):
        parent = launch(tmp_path, port)
        lines = upto(parent, "Ctrl-C ends it")
        assert ("shown this once" in "".join(lines)) == (number == 0), "the password is told on the first run only"
        if number == 0:
            agent(tmp_path, "clone", "--instance", "1", "--folder", "user_1")
            agent(tmp_path, "start", "--instance", "1")
        until(lambda: terminals(tmp_path), seconds=20)
        launcher = int(lines[0])
        for _ in range(500 if whom == "storm" else 1):
            os.kill(parent.pid if whom == "parent" else launcher, sent)
        until(lambda: not alive(tmp_path), seconds=40)
        until(partial(ended, launcher), seconds=10)
        parent.kill()
        parent.communicate()


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
