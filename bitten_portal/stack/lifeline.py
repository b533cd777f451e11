"""The launcher's end of the reaper's lifeline (reaper.py)."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from bitten_portal.stack import reaper
from bitten_portal.stack.environments import PYTHON
from bitten_portal.stack.places import REPOSITORY


def _place(host: Mapping[str, str]) -> dict[str, str]:
    """What tells one host's environment from another's, without a secret: it stands in a command line."""
    return {name: host[name] for name in ("FARM_ROOT", "FARM_HOST", "FARM_KEY_FILE")}


class Lifeline:
    """Started before any other process; holds the lock's descriptor, so that it outlasts the launcher."""

    def __init__(self, *, data_dir: Path, hosts: Sequence[Mapping[str, str]], log: Path, lock: int) -> None:
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [PYTHON, "-P", reaper.__file__, str(data_dir), json.dumps([_place(host) for host in hosts])],
                env=dict(hosts[0]),
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
                start_new_session=True,
            )

    def tell(self, name: str, pid: int) -> None:
        with contextlib.suppress(psutil.Error):  # gone again already
            self._write({"name": name, "pid": pid, "created": psutil.Process(pid).create_time()})

    def finish(self) -> None:
        """All is ended; the reaper may go."""
        self._write({"finished": True})
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=10)

    def _write(self, told: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(told).encode() + b"\n")
            self.process.stdin.flush()
