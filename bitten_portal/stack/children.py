"""One process of a stack: its log, its end, and when it is started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitten_portal.stack.places import REPOSITORY

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""Who ran so long has recovered: its next death is answered at once again."""
LARGEST_LOG = 10_000_000


@dataclass
class Child:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    log: Path
    wanted: bool = False
    """Whether it is started again when it dies."""
    deaths: int = 0
    again_at: float = 0.0
    read: int = 0
    """How much of its log was looked through for errors."""
    process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, so that the terminal's Ctrl-C reaches the launcher alone."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self.read = log.tell()
            self.process = subprocess.Popen(
                self.argv,
                env=dict(self.env),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wanted, self.again_at, self._started = True, 0.0, time.monotonic()
        return self.process

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def died(self) -> float:
        """Note its death; return how many seconds to wait before it is started again."""
        self.deaths = 1 if time.monotonic() - self._started > STEADY_SECONDS else self.deaths + 1
        pause: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self.deaths - 1))
        self.again_at = time.monotonic() + pause
        return pause

    def signal(self, number: signal.Signals) -> None:
        """To its whole group, which lives on when its leader is dead."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def end(self, *, seconds: float) -> None:
        """Wait for it to end as asked, then make it."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout=max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def kill(self) -> None:
        self.wanted = False
        self.signal(signal.SIGKILL)
        self.end(seconds=10)

    def last_words(self, *, lines: int = 3) -> str:
        """The end of what it wrote, for a person to read."""
        try:
            text = self.log.read_bytes()[-4000:].decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-lines:])

    def new_errors(self) -> list[str]:
        """Lines of its log since the last look that say error."""
        try:
            with self.log.open("rb") as log:
                log.seek(self.read)
                text = log.read(1_000_000)
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        lines = whole.decode("utf-8", "replace").splitlines()
        return [
            line for line in lines if '"level": "error"' in line or "ERROR" in line or '"level": "critical"' in line
        ]
