"""Installing on a machine that lacks something: one plain sentence, no traceback, nothing half-made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "cmp", "dirname", "cp", "sed")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the few tools that every machine has, and no Python."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        found = next(Path(folder, name) for folder in ("/bin", "/usr/bin") if Path(folder, name).exists())
        (tools / name).symlink_to(found)
    return tools


def python(machine: Path, name: str, *, script: str) -> None:
    (machine / name).write_text(f"#!/bin/sh\n{script}\n")
    (machine / name).chmod(0o755)


def install(machine: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", ROOT / "requirements" / "install.sh", machine / "venv", ROOT / "requirements" / "dev.lock", *words],
        env={"PATH": str(machine), "HOME": str(machine)},
        capture_output=True,
        text=True,
    )


def test_no_python_is_one_sentence(machine) -> None:
    done = install(machine)
    assert done.returncode == 1
    assert done.stderr.startswith("No Python 3.11 or newer was found.")
    assert not (machine / "venv").exists()


def test_a_python_that_is_too_old_is_passed_over(machine) -> None:
    python(machine, "python3", script="exit 1")
    assert "No Python 3.11 or newer" in install(machine).stderr


def test_a_python_that_was_named_and_is_too_old_is_named(machine) -> None:
    python(machine, "python3.9", script="exit 1")
    assert install(machine, "python3.9").stderr == "PYTHON=python3.9 is not a Python 3.11 or newer.\n"


def test_no_ensurepip_is_one_sentence_that_says_what_to_install(machine) -> None:
    python(machine, "python3", script='case "$2" in *ensurepip*) exit 1;; esac; exit 0')
    done = install(machine)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "python3-venv" in line
    assert not (machine / "venv").exists()


def test_nothing_is_done_when_the_lock_is_the_one_that_was_installed(machine) -> None:
    venv = machine / "venv"
    (venv / "bin").mkdir(parents=True)
    python(venv / "bin", "python", script="exit 0")
    (venv / "installed.lock").write_bytes((ROOT / "requirements" / "dev.lock").read_bytes())
    done = install(machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("target", ["run", "test", "check", "lock", "bench-clone", "bench-signup", "clean"])
def test_every_target_is_told_by_make_help(target: str) -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert f"make {target} " in done.stdout
