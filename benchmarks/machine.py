"""What a measurement has to say of the machine it was made on, and of the space that a clone takes."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from farm.agent import tree


def facts(folder: Path) -> dict[str, object]:
    device, kind = _mounted(folder)
    journals = Path("/proc/fs/jbd2")
    name = os.path.basename(device)
    journal = any(entry.name.startswith(f"{name}-") for entry in journals.iterdir()) if journals.is_dir() else None
    return {
        "file_system": kind,
        "journal": journal if kind == "ext4" else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if sys.platform != "win32" else None,
        "user": "root" if sys.platform != "win32" and os.geteuid() == 0 else "unprivileged",
    }


def _mounted(folder: Path) -> tuple[str, str]:
    """Return device and file system of the longest mount point that ``folder`` is under."""
    path = os.path.realpath(folder)
    best = ("", "", "unknown")
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ("", "unknown")
    for device, point, kind, *_ in (line.split() for line in lines):
        under = path == point or path.startswith(point.rstrip("/") + "/")
        if under and len(point) >= len(best[1]):
            best = (device, point, kind)
    return (os.path.realpath(best[0]), best[2])


def own_space(clone: Path, shared: set[tuple[int, int]]) -> tuple[float, int]:
    """Return the megabytes and inodes of ``clone`` that are not the inodes ``shared``. Blind to reflinks."""
    blocks, inodes = 0, 1
    for entry in tree.walk(clone):
        if (entry.seen.st_dev, entry.seen.st_ino) not in shared:
            blocks += entry.seen.st_blocks
            inodes += 1
    return (blocks * 512 / 1e6, inodes)


def inodes_of(folder: Path) -> set[tuple[int, int]]:
    return {(entry.seen.st_dev, entry.seen.st_ino) for entry in tree.walk(folder)}


def used_mb(folder: Path) -> float:
    seen = os.statvfs(folder)
    return (seen.f_blocks - seen.f_bfree) * seen.f_frsize / 1e6


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that ``part`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def empty(clone: Path, shared: set[tuple[int, int]]) -> None:
    """Give back the memory and blocks of a measured clone, and leave its inodes.

    Else each clone of a run would be made in memory that none before it had used, which is dear on a virtual machine,
    and would wait for the bytes of all before it to reach the disk.
    """
    for entry in tree.walk(clone):
        if not tree.is_folder(entry.seen) and (entry.seen.st_dev, entry.seen.st_ino) not in shared:
            os.truncate(clone / entry.path, 0)


@contextmanager
def loop_mounted(kind: str, *, gigabytes: int) -> Iterator[Path]:
    """Mount a fresh file system of this kind from a file; needs root, ``mkfs.<kind>`` and loop devices."""
    maker = shutil.which(f"mkfs.{kind}") or shutil.which(f"mkfs.{kind}", path="/usr/sbin:/sbin")
    if maker is None:
        raise SystemExit(f"mkfs.{kind} is not installed")
    with tempfile.TemporaryDirectory(prefix="bench-clone-") as folder:
        image, point = Path(folder, "image"), Path(folder, "mounted")
        point.mkdir()
        with open(image, "wb") as sparse:
            sparse.truncate(gigabytes << 30)
        subprocess.run([maker, "-q", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", str(point)], check=True)
