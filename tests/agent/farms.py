"""A farm's folder with a small master in which nothing is wrong, for tests of the clone's engine."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.agent import master as masters
from farm.agent.master import Master

OPTIONS = "\ufeff[Common]\r\nNewsEnable=0\r\n[Experts]\r\nEnabled=1\r\nAccount=0\r\nProfile=0\r\n"
ASSISTANT = "\ufeff[MCP.MetaTrader]\r\nEnable=0\r\n[MCP.MetaEditor]\r\nEnable=0\r\n"
FILES = {
    "terminal64.exe": b"MZ" + bytes(range(256)) * 40,
    "MetaEditor64.exe": b"MZ" + bytes(100),
    "Sounds/tick.wav": b"RIFF",
    "Config/common.ini": OPTIONS.encode("utf-16-le"),
    "Config/assistant.ini": ASSISTANT.encode("utf-16-le"),
    "Config/servers.dat": b"servers",
    "Config/terminal.lic": b"licence",
    "MQL5/Experts/BittenBridge.mq5": b"// source",
    "MQL5/Experts/BittenBridge.ex5": b"EX-X",
    "MQL5/Include/Arrays/Array.mqh": b"// library",
    "Bases/Default/History/EURUSD/2024.hcc": b"history" * 50,
    "Bases/Default/symbols.raw": b"",
}
FOLDERS = ["MQL5/Files", "Tester"]


def make_farm(root: Path) -> Path:
    """Make a farm with a master, and return its root."""
    for name in ("Users", "Trash", "Pool", "State"):
        (root / name).mkdir(parents=True)
    master = masters.folder(root)
    for name, content in FILES.items():
        (master / name).parent.mkdir(parents=True, exist_ok=True)
        (master / name).write_bytes(content)
    for name in FOLDERS:
        (master / name).mkdir(parents=True)
    master.with_name("BITTEN_MASTER.servers.json").write_text('["MetaQuotes-Demo"]')
    return root


def fresh(root: Path) -> Master:
    """The master as it stands at this moment."""
    return masters.load(root, max_age_seconds=0)


def contents(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` by name, with a hash of what is in it; folders end in a slash."""
    found = {}
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        found.update({f"{(inside / name).as_posix()}/": "" for name in folders})
        for name in files:
            found[(inside / name).as_posix()] = hashlib.sha256((Path(place) / name).read_bytes()).hexdigest()
    return found


@contextmanager
def open_place() -> Iterator[Path]:
    """A folder that other users can get into; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="bitten-open-") as name:
        os.chmod(name, 0o755)
        yield Path(name)
