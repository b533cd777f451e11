"""The agent as a wheel of its own: on a machine without Django and without this repository it makes a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from farm.agent.settings import VERSION

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "farm" / "paper"
LOOK = """
import importlib, importlib.metadata, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
there = []
for name in ("django", "psycopg", "bitten_portal", "presspass", "farm.models", "farm.lifecycle", "farm.paper"):
    try:
        importlib.import_module(name)
        there.append(name)
    except ModuleNotFoundError:
        pass
agent = importlib.metadata.distribution("bitten-agent")
print(json.dumps({"version": agent.version, "requires": len(agent.requires), "portal": there}))
"""
"""Run there: imports every module that is named, and says what is installed."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheel` does."""
    folder = tmp_path_factory.mktemp("wheel")
    run("make", "--silent", "wheel", f"DIST={folder}", f"VENV={sys.prefix}", cwd=ROOT)
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds requirements/host.lock and the wheel, made as docs/host.md says."""
    venv = tmp_path_factory.mktemp("host") / "venv"
    requirements = ROOT / "requirements"
    run("sh", requirements / "install.sh", venv, requirements / "host.lock", sys.executable, cwd=venv.parent)
    run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=venv.parent)
    return venv


def run(*argv: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    told = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(argv, cwd=cwd, env={**told, **(env or {})}, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv[0]} said {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Machine:
    """A host on which nothing is installed but the wheel: a farm with a paper master, and what an operator types."""

    def __init__(self, folder: Path, venv: Path) -> None:
        self.folder, self.venv = folder, venv
        self.root = folder / "farm"
        master = self.root / "Masters" / "BITTEN_MASTER"
        master.parent.mkdir(parents=True)
        run(sys.executable, PAPER / "master.py", master, "--mb", "1", "--files", "150", cwd=folder)
        self.env = {
            "FARM_ROOT": str(self.root),
            "FARM_HOST": "alpha",
            "FARM_KEY_FILE": str(folder / "host.json"),
            "FARM_TERMINAL_COMMAND": f"{{python}} '{PAPER / 'terminal.py'}' /portable /config:{{ini}}",
            "FARM_POOL": "0",
        }

    def __call__(self, *words: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(
            run(self.venv / "bin" / "bitten-agent", *words, cwd=self.folder, env=self.env)
        )
        return said

    def end(self) -> None:
        run(self.venv / "bin" / "bitten-agent", "stop-all", cwd=self.folder, env=self.env)


@pytest.mark.acceptance
def test_the_wheel_holds_the_agent_and_nothing_else_of_ours(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "farm" / "agent").rglob("*.py")}
    assert names == ours | {"farm/__init__.py"}


@pytest.mark.acceptance
def test_where_the_wheel_is_installed_all_of_the_agent_works_and_the_portal_is_absent(
    installed: Path, wheel: Path
) -> None:
    files = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("farm/")]
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files]
    said = json.loads(run(installed / "bin" / "python", "-W", "error", "-c", LOOK, *sorted(modules), cwd=installed))
    lines = (ROOT / "requirements" / "host.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert said == {"version": VERSION, "requires": len(wanted), "portal": []}


@pytest.mark.acceptance
def test_a_terminal_is_made_run_and_destroyed_with_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    machine = Machine(tmp_path, installed)
    machine("keygen")
    try:
        machine("clone", "--instance", "17", "--folder", "user_9")
        started = machine("start", "--instance", "17")
        assert started["observed"]["process"] == "running"
        [row] = machine("list")["instances"]
        assert (row["folder"], row["process"]) == ("user_9", "running")
        machine("destroy", "--instance", "17")
        assert not (machine.root / "Users" / "user_9").exists()
        assert not [one for one in psutil.process_iter(["cwd"]) if (one.info["cwd"] or "").startswith(str(tmp_path))]
    finally:
        machine.end()
