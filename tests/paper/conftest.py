"""A folder like a clone, a paper broker with one account, and the paper terminal as a real process in it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

PAPER = Path(__file__).resolve().parents[2] / "farm" / "paper"
LOGIN, SERVER, PASSWORD = "5000001", "MetaQuotes-Demo", "1Ar#pqkj"


def utf16(text: str) -> bytes:
    return b"\xff\xfe" + text.replace("\n", "\r\n").encode("utf-16-le")


@dataclass
class Clone:
    """One folder. What is started in it is ended with it."""

    folder: Path
    accounts: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def bridge(self) -> Path:
        return self.folder / "MQL5/Files/bitten"

    @property
    def ini(self) -> Path:
        return self.folder / "Config/bitten-start.ini"

    def lay(self) -> None:
        for name in ("Config", "MQL5/Experts", "MQL5/Files/bitten/commands"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "terminal64.exe").write_bytes(b"MZ" + bytes(4096))
        (self.folder / "MQL5/Experts/BittenBridge.ex5").write_bytes(b"EX-X")
        (self.folder / "Config/common.ini").write_bytes(utf16("[Experts]\nEnabled=1\nAccount=0\nProfile=0\n"))
        self.bridge.joinpath("bridge.json").write_text('{"schema":1,"timer_ms":20,"magic":700000017,"port":9042}')
        self.know()

    def know(self, password: str = PASSWORD, *, login: str = LOGIN, server: str = SERVER, **facts: object) -> None:
        digest = hashlib.sha256(password.encode()).hexdigest()
        self.accounts.write_text(json.dumps({server: {login: {"sha256": digest, **facts}}}))

    def write_ini(
        self, password: str = PASSWORD, *, login: str = LOGIN, server: str = SERVER, keep: int = 1, experts: str = ""
    ) -> None:
        common = f"[Common]\nLogin={login}\nServer={server}\nPassword={password}\nKeepPrivate={keep}\n"
        start = "[StartUp]\nExpert=BittenBridge\nSymbol=EURUSD\n"
        self.ini.write_bytes(utf16(f"; start\n{common}[Experts]\nEnabled=1\nAllowLiveTrading=1\n{experts}{start}"))

    def start(self, *words: str, quirks: str = "") -> subprocess.Popen[bytes]:
        words = words or ("/portable", f"/config:{self.ini}")
        if not self.ini.exists():
            self.write_ini()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PAPER / "terminal.py"), *words],
            cwd=self.folder,
            env={**os.environ, "PAPER_ACCOUNTS": str(self.accounts), "PAPER_QUIRKS": quirks, **self.environment},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0

    def lines(self) -> list[list[str]]:
        """The journal's columns, whatever the day."""
        text = "".join(path.read_bytes()[2:].decode("utf-16-le") for path in sorted(self.folder.glob("logs/*.log")))
        return [line.split("\t") for line in text.split("\r\n")[:-1]]

    def said(self, source: str = "") -> list[str]:
        return [columns[4] for columns in self.lines() if source in ("", columns[3])]

    def hears(self, message: str, *, times: int = 1, seconds: float = 10) -> None:
        """Wait for a message of exactly these words."""
        until(lambda: self.said().count(message) >= times, seconds=seconds)

    def file(self, name: str) -> dict[str, object]:
        """One of the EA's files, {} while there is none."""
        path = self.bridge / f"{name}.json"
        found: dict[str, object] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def beat(self) -> dict[str, object]:
        """A heartbeat newer than what there was when this was called."""
        before = self.file("heartbeat")
        return until(lambda: {} if (now := self.file("heartbeat")) == before else now)

    def command(self, **words: object) -> None:
        path = self.bridge / "commands/one.json"
        path.with_suffix(".tmp").write_text(json.dumps(words))
        path.with_suffix(".tmp").rename(path)
        until(lambda: not path.exists())

    def processes(self) -> list[psutil.Process]:
        """Whatever runs in this folder or for it, however it came about."""
        found = []
        for process in psutil.process_iter(["cwd", "cmdline"]):
            words = process.info["cmdline"] or []
            ours = str(PAPER / "terminal.py") in words
            if ours and (process.info["cwd"] == str(self.folder) or f"/path:{self.folder}" in words):
                found.append(process)
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    def end(self) -> None:
        for process in self.processes():
            process.kill()
        for started in self.started:
            started.kill()
            started.communicate(timeout=5)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    clone = Clone(tmp_path / "Users" / "user_9", tmp_path / "accounts.json")
    clone.lay()
    yield clone
    clone.end()
