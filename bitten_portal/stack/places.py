"""Where a stack keeps everything: one folder, used by one stack at a time."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
FIRST_HOST = "laptop"
FIRST_PORT, PORTS = 9000, 1000
HANDOVER_SECONDS = 60.0
"""So long a new stack waits for the rest of a killed one to be ended."""


class StackError(Exception):
    """The stack cannot run; the message says why, in a sentence for whoever started it."""


@dataclass(frozen=True)
class HostPlaces:
    """One host of a stack: laptop, laptop-2, laptop-3 …, each with a folder, keys and ports of its own."""

    number: int
    farm: Path
    keys: Path

    @property
    def suffix(self) -> str:
        return "" if self.number == 1 else f"-{self.number}"

    @property
    def name(self) -> str:
        return f"{FIRST_HOST}{self.suffix}"

    @property
    def master(self) -> Path:
        return self.farm / "Masters" / "BITTEN_MASTER"

    @property
    def ports(self) -> str:
        """They share one machine, so no two hosts give out the same port."""
        first = FIRST_PORT + PORTS * (self.number - 1)
        return f"{first}-{first + PORTS - 1}"


class Places:
    def __init__(self, data_dir: Path, *, hosts: int = 1) -> None:
        self.data_dir = data_dir.resolve()
        self.secrets = self.data_dir / "secrets.json"
        self.lock = self.data_dir / "lock"
        self.ports = self.data_dir / "ports.json"
        self.database = self.data_dir / "db.sqlite3"
        self.mail = self.data_dir / "mail"
        self.log = self.data_dir / "log"
        self.beat = self.data_dir / "beat"
        self.broker = self.data_dir / "broker"
        self.stripe = self.data_dir / "paper" / "stripe.json"
        self.accounts = self.data_dir / "paper" / "accounts.json"
        self.new_accounts = self.data_dir / "paper" / "new-accounts.csv"
        self.hosts = [self._host(number) for number in range(1, hosts + 1)]
        self.farm, self.master = self.hosts[0].farm, self.hosts[0].master

    def _host(self, number: int) -> HostPlaces:
        if number == 1:
            return HostPlaces(1, self.data_dir / "MT5_Farm", self.data_dir / "host" / "keys.json")
        folder = self.data_dir / f"{FIRST_HOST}-{number}"
        return HostPlaces(number, folder / "MT5_Farm", folder / "keys.json")

    def make(self) -> None:
        try:
            # In it lie sessions and addresses; a folder that stood before keeps the rights that it was given.
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            own = (host.keys.parent for host in self.hosts)
            for folder in (self.mail, self.log, self.beat, self.broker, self.accounts.parent, *own):
                folder.mkdir(mode=0o700, exist_ok=True)
            for host in self.hosts:
                host.master.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(f"{self.data_dir} cannot be used as the data folder: {error.strerror}.") from error


class Lock:
    """Held by the launcher and by its reaper: the folder is free only when both are gone."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a+", encoding="ascii")

    def take(self, *, say: Callable[[str], None]) -> None:
        """Take the lock, waiting for a reaper that still cleans up. Raise :class:`StackError` if a stack runs."""
        end, told = time.monotonic() + HANDOVER_SECONDS, False
        while not self._try():
            holder = self._holder()
            if holder or time.monotonic() > end:
                self.file.close()
                raise StackError(
                    f"A stack runs on {Path(self.file.name).parent} already"
                    + (f" (process {holder})." if holder else ".")
                    + " Stop it, or choose another folder: make run DATA_DIR=…"
                )
            if not told:
                say("Waiting for the last of the previous run to end.")
                told = True
            time.sleep(0.1)
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()

    def _try(self) -> bool:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> int | None:
        """The launcher that holds it; None if that is gone and only its reaper is left, or it cannot be told."""
        self.file.seek(0)
        text = self.file.read()
        return int(text) if text.isdigit() and psutil.pid_exists(int(text)) else None

    def leave(self) -> None:
        self.file.close()


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
