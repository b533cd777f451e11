"""A stack: broker, web, the portal's workers, and hosts with their terminals, on free or given ports, in one folder."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil
import psycopg
import redis

from bitten_portal.stack import commands, database, reaper
from bitten_portal.stack.children import Child
from bitten_portal.stack.environments import Environments
from bitten_portal.stack.keys import Keys, write_private
from bitten_portal.stack.lifeline import Lifeline
from bitten_portal.stack.places import REPOSITORY, Lock, Places, StackError, free_port, is_free
from farm.agent import keys as host_keys

STAFF = "staff@example.com"
READY_SECONDS = 90.0
END_SECONDS = 10.0
WATCH_SECONDS = 0.25
LAST_PORT = 65535


def silent(text: str) -> None:
    """Say nothing."""


class Stack:
    """Use it as a context manager; inside, everything answers.

    ``port`` 0 takes a free one. ``env`` holds options by the names of the settings (``SWEEP_SECONDS``), of the agent
    (``FARM_POOL``), of the paper terminal (``PAPER_QUIRKS``) and of the stack itself (``MASTER_MB``, ``MASTER_FILES``,
    ``ACCOUNTS``, ``WEB_WORKERS``, ``WEB_THREADS``, ``WORKER_THREADS``). A ``DATABASE_URL`` or ``BROKER_URL`` in it is
    used instead of SQLite and a broker of its own. ``per_host`` is what single hosts are told besides, by their names.
    ``say`` is told what a person should know. Raises :class:`StackError` if it cannot run, with everything ended again.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int = 0,
        slots: int = 20,
        hosts: int = 1,
        env: Mapping[str, str] | None = None,
        per_host: Mapping[str, Mapping[str, str]] | None = None,
        say: Callable[[str], None] = silent,
    ) -> None:
        self.places = Places(data_dir, hosts=hosts)
        self.per_host = dict(per_host or {})
        self.port, self.slots, self.extra, self.say = port, slots, dict(env or {}), say
        self.processes: dict[str, Child] = {}
        self.staff_password: str | None = None
        """Of the login STAFF, if this run made it."""
        self._stopping = threading.Event()
        self.interrupted = False
        self._changing = threading.RLock()
        self._watcher = threading.Thread(target=self._watch, name="stack", daemon=True)
        self._lock: Lock | None = None
        self._lifeline: Lifeline | None = None

    @property
    def url(self) -> str:
        return self.environments.url

    @property
    def broker_url(self) -> str:
        return self.environments.broker_url

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    # --- single processes ---------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start one of the processes by its name again after :meth:`kill` or :meth:`stop`."""
        with self._changing:
            child = self.processes[name]
            if not child.alive:
                self._start(child)

    def kill(self, name: str) -> None:
        """End it at once, as a crash would, and leave it dead. Terminals live on without the host's worker; live ones
        die with its watchdog.
        """
        with self._changing:
            self.processes[name].kill()

    def stop(self, name: str) -> None:
        """Ask it to end, and leave it so."""
        with self._changing:
            child = self.processes[name]
            child.wanted = False
            child.signal(signal.SIGTERM)
            child.end(seconds=END_SECONDS)

    # --- coming up ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.places.make()
        lock = Lock(self.places.lock)
        lock.take(say=self.say)
        self._lock = lock
        keys, ports = Keys.kept(self.places.secrets), self._ports()
        self.environments = Environments(
            places=self.places,
            keys=keys,
            port=ports["web"],
            broker_port=ports["broker"],
            stripe_port=ports["stripe"],
            extra=self.extra,
            per_host=self.per_host,
        )
        self._lifeline = Lifeline(
            data_dir=self.places.data_dir,
            hosts=[self.environments.host(host) for host in self.places.hosts],
            log=self.places.log / "reaper.log",
            lock=lock.file.fileno(),
        )
        self.processes = {child.name: child for child in commands.children(self.environments)}
        if "broker" in self.processes:
            self._start(self.processes["broker"])
        self._furnish()
        for child in self.processes.values():
            if not child.alive:
                self._start(child)
        began = time.time()
        self._until(self._web_answers, "web")
        names = {host.name for host in self.places.hosts}
        self._until(lambda: names <= self._heard(since=began), commands.HOST_WORKER)
        self._watcher.start()

    def _ports(self) -> dict[str, int]:
        """The ports that are used, and kept for the next run."""
        known: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self.places.ports.read_text("utf-8"))
        if not 0 <= self.port <= LAST_PORT:
            raise StackError(f"{self.port} is no port: they end at {LAST_PORT}. Choose another: make run PORT=8000")
        if self.port and not is_free(self.port):
            raise StackError(
                f"Port {self.port} is taken by another program. "
                f"Stop that, or choose another: make run PORT={self.port + 1}"
            )
        ports = {"web": self.port or free_port()}
        for name in ("broker", "stripe"):
            port = known.get(name, 0)
            ports[name] = port if port and is_free(port) else free_port()
        write_private(self.places.ports, json.dumps(ports))
        return ports

    def _furnish(self) -> None:
        """The demo masters, the paper broker's accounts, the hosts' keys, the database: what is missing of them.

        The hosts need neither the portal nor its tables to come up, so they do meanwhile.
        """
        places, option = self.places, self.environments.option
        making = self._make_masters()
        if not places.accounts.exists():
            self._run(commands.accounts(places, number=option("ACCOUNTS", "200")))
        for host in places.hosts:
            if not host.keys.exists():
                host_keys.generate(host.keys)
        password = secrets.token_urlsafe(12)
        preparing = self._run_in_background(
            commands.prepare(places, slots=self.slots, staff=STAFF),
            env={**self.environments.worker(), "STAFF_PASSWORD": password},
        )
        if "broker" in self.processes:
            self._until(self._broker_answers, "broker")
        for process in making:
            if process.wait() != 0:
                raise StackError(f"A demo master could not be made; see {places.log / 'master.log'}.")
        self._start_hosts()
        if json.loads(self._answer(preparing).splitlines()[-1])["staff"]:
            self.staff_password = password

    def _make_masters(self) -> list[subprocess.Popen[bytes]]:
        option, missing = self.environments.option, [host for host in self.places.hosts if not host.master.exists()]
        if missing:
            self.say("Making the demo master.")
        size = {"mb": option("MASTER_MB", "40"), "files": option("MASTER_FILES", "1200")}
        with (self.places.log / "master.log").open("ab") as log:
            return [self._run_with_log(commands.master(host, **size), log) for host in missing]

    def _start_hosts(self) -> None:
        for name, child in self.processes.items():
            if name.startswith((commands.HOST_WORKER, commands.WATCHDOG)):
                self._start(child)

    def _run(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
        return self._answer(self._run_in_background(argv, env=env))

    def _run_in_background(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv,
            env=dict(env or self.environments.broker()),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _answer(self, process: subprocess.Popen[str]) -> str:
        """What it printed, once it has ended."""
        out, error = process.communicate()
        if process.returncode != 0:
            words = "\n".join((error or out).strip().splitlines()[-3:])
            assert isinstance(process.args, list)
            raise StackError(f"`{' '.join(process.args[1:4])}` failed:\n{words}")
        return out

    def _run_with_log(self, argv: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv, env=self.environments.broker(), cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT
        )

    def _until(self, answers: Callable[[], bool], name: str) -> None:
        end = time.monotonic() + READY_SECONDS
        while not answers():
            child = self.processes[name]
            if not child.alive or time.monotonic() > end:
                how = "does not answer" if child.alive else "ended at once"
                raise StackError(f"The {name} process {how}; see {child.log}:\n{child.last_words()}")
            if self.interrupted or self._stopping.wait(0.05):
                raise StackError("Stopped while starting.")

    def _broker_answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.broker_url, socket_timeout=1) as broker:
            return bool(broker.ping())
        return False

    def _web_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _heard(self, *, since: float) -> set[str]:
        with contextlib.suppress(sqlite3.OperationalError, psycopg.OperationalError):
            return database.heard(self.environments, since=since)
        return set()

    def _start(self, child: Child) -> None:
        process = child.start()
        if self._lifeline is not None:
            self._lifeline.tell(child.name, process.pid)

    def interrupt(self) -> None:
        """Leave off starting, if it is, and say so in ``interrupted``. What was started is ended by :meth:`end`.

        For a signal handler: a plain flag, because signals come in pairs (Ctrl-C reaches make and us), and an Event
        that is set while it is being set waits for itself for ever.
        """
        self.interrupted = True

    # --- staying up ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            with self._changing:
                for child in self.processes.values():
                    self._look_after(child)

    def _look_after(self, child: Child) -> None:
        for line in child.new_errors()[:3]:
            self.say(f"[{child.name}] {short(line)}")
        if not child.wanted or child.alive:
            return
        if not child.again_at:
            child.signal(signal.SIGKILL)  # what its group still holds would be in the new one's way
            pause = child.died()
            code = child.process.returncode if child.process else None
            self.say(f"{child.name} ended by itself ({code}), is started again in {pause:g} s; see {child.log}")
        elif time.monotonic() >= child.again_at:
            self._start(child)

    # --- going down ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End every process, terminals included. Safe to repeat."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        with self._changing:
            self._end_all()
        if self._lifeline is not None:
            self._lifeline.finish()
            self._lifeline = None
            for process in reaper.marked(str(self.places.data_dir)):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        if self._lock is not None:
            self._lock.leave()
            self._lock = None

    def _end_all(self) -> None:
        """The terminals before their watchdogs: live ones die with those, and would not be asked to close."""
        children = self.processes.values()
        self._end_these([child for child in children if not reaper.is_last(child.name)])
        if self._lifeline is not None:
            self._stop_terminals()
        self._end_these([child for child in children if reaper.is_last(child.name)])

    def _end_these(self, children: Sequence[Child]) -> None:
        end_by = time.monotonic() + END_SECONDS
        for child in children:
            child.wanted = False
            child.signal(signal.SIGTERM)
        for child in children:
            child.end(seconds=end_by - time.monotonic())
            child.signal(signal.SIGKILL)

    def _stop_terminals(self) -> None:
        """As the agent itself stops them: the next run's worker starts those again that ran."""
        argv = [*commands.AGENT, "stop-all"]
        hosts = [host for host in self.places.hosts if host.keys.exists()]
        stopping = [self._run_in_background(argv, env=self.environments.host(host)) for host in hosts]
        for process in stopping:
            try:
                self._answer(process)
            except StackError as error:
                self.say(f"Terminals were ended by force. {error}")


def short(line: str) -> str:
    """One line of a log for the terminal: of JSON only what happened."""
    with contextlib.suppress(ValueError):
        told: dict[str, Any] = json.loads(line)
        trace = str(told.get("traceback", "")).strip().splitlines()
        return " ".join(str(word) for word in (told["message"], told.get("error", ""), *trace[-1:]) if word)[:300]
    return line[:300]
