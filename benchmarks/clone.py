"""Measure what a clone costs, beside the ways that need no builder, and prove in the same run that it is one.

    python -m benchmarks.clone [--mb 330] [--files 2600] [--seed 1] [--rounds 7] [--folder DIR | --loop xfs]

Every round makes one clone in each mode, in shuffled order, from a synced disk, with the master in the cache. No file
is deleted before the end: a fresh mass deletion slows the creates that follow it on some file systems. What was
measured is emptied instead, so that the next one finds the same memory and disk. The last line is one JSON object; the
exit code is 1 if a clone was not a clone. For Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import machine, proofs
from farm.agent import build, errors, pool, purge, tree
from farm.agent import master as masters
from farm.agent.copying import Modes
from farm.agent.master import Master

REPOSITORY = Path(__file__).resolve().parent.parent
UNPRIVILEGED = "nobody"
MANY = 100
BURST = 8


@dataclass
class Mode:
    name: str
    make: Callable[[Path], object]
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    megabytes: float = 0.0
    inodes: int = 0


@dataclass
class Bench:
    root: Path
    master: Master
    picked: Modes
    """What the agent would use here as it is started by default."""
    linked: Modes | None
    """With terminals under a user of their own; None where that cannot be tried."""

    @property
    def place(self) -> Path:
        return self.root / "Pool"


# --- the modes -------------------------------------------------------------------------------------------------------


def modes_of(bench: Bench) -> list[Mode]:
    plain = Modes(history=True)
    found = [
        Mode("shutil.copytree", lambda target: shutil.copytree(bench.master.path, target)),
        built(bench, "plain copy", plain),
    ]
    if shutil.which("cp"):
        found.append(Mode("cp -a", lambda target: subprocess.run(["cp", "-a", bench.master.path, target], check=True)))
    if bench.picked.copy_range:
        # On a file system with reflinks this call makes them by itself.
        found.append(built(bench, "copy_file_range", replace(plain, copy_range=True)))
    if bench.picked.reflink:
        found.append(built(bench, "reflink", replace(plain, reflink=True, copy_range=True)))
    else:
        found.append(built(bench, "copied, no history", replace(bench.picked, history=False)))
    if bench.linked:
        why = f"only with terminals under a user of their own, here {UNPRIVILEGED}"
        found.append(built(bench, "linked, no history", replace(bench.linked, history=False), note=why))
        found.append(built(bench, "linked", replace(bench.linked, history=True), note=why))
    return found


def built(bench: Bench, name: str, modes: Modes, *, note: str = "") -> Mode:
    chosen = replace(modes, notes=()) == replace(bench.picked, notes=())
    why = "what the agent picks here" if chosen else note or "only forced here"
    return Mode(name, lambda target: build.build(bench.master, target, modes), why)


def run_rounds(bench: Bench, modes: list[Mode], *, rounds: int, dice: random.Random) -> None:
    shared = machine.inodes_of(bench.master.path)
    for number in range(rounds):
        for mode in dice.sample(modes, len(modes)):
            target = bench.place / f"round-{number}-{mode.name.replace(' ', '-')}"
            os.sync()
            before = machine.used_mb(bench.root)
            mode.seconds.append(timed(mode.make, target))
            if number == 0:
                space(mode, target, shared, before)
            machine.empty(target, shared)
            purge.discard(bench.root, target)


def space(mode: Mode, clone: Path, shared: set[tuple[int, int]], before: float) -> None:
    mode.megabytes, mode.inodes = machine.own_space(clone, shared)
    if machine.facts(clone)["file_system"] in ("xfs", "btrfs"):
        os.sync()
        mode.megabytes = machine.used_mb(clone) - before


def timed(work: Callable[..., object], *given: object) -> float:
    began = time.perf_counter()
    work(*given)
    return time.perf_counter() - began


# --- apart from the rounds -------------------------------------------------------------------------------------------


def measure_pool(bench: Bench) -> dict[str, dict[str, float]]:
    """Make 100 ready clones, take each with a durable config, destroy each: what customers wait for, and what not."""
    modes = bench.linked or bench.picked
    ready = pool.Pool(bench.root, MANY, modes)
    os.sync()
    hundred = sum(timed(build.build, bench.master, ready_name(bench, number), modes) for number in range(MANY))
    # Clones lie ready long before they are taken: what is measured is the taking, not the end of their building.
    os.sync()
    clones = [bench.root / "Users" / f"user_{number}" for number in range(MANY)]
    takes = [timed(taken, ready, clone, bench.master.digest) for clone in clones]
    destroys = [timed(purge.discard, bench.root, clone) for clone in clones]
    small = pool.Pool(bench.root, 2, modes)
    refilling = sum(timed(small.refill) for _ in range(2))
    return {
        "take": spread(takes),
        "destroy": spread(destroys),
        "hundred": {"seconds": round(hundred, 2), "linked": float(bench.linked is not None)},
        "refill": {"clones_per_second": round(2 / refilling, 2)},
    }


def ready_name(bench: Bench, number: int) -> Path:
    return bench.place / f"{pool.READY}{bench.master.digest[:8]}-{number:03d}"


def taken(ready: pool.Pool, final: Path, digest: str) -> None:
    if not ready.take(final, digest):
        raise proofs.NotAClone("the pool was empty")
    bridge = final / "MQL5" / "Files" / "bitten"
    bridge.mkdir(parents=True)
    tree.write(bridge / "identity.json", json.dumps({"schema": 1, "folder": final.name}).encode())


def measure_burst(bench: Bench) -> dict[str, float]:
    """Several sign-ups at one moment, and no ready clone."""
    os.sync()
    began = time.perf_counter()
    with ThreadPoolExecutor(BURST) as threads:
        waits = list(threads.map(lambda number: one_of_burst(bench, number, began), range(BURST)))
    return {"clones": BURST, "first_ms": round(min(waits) * 1e3, 1), "last_ms": round(max(waits) * 1e3, 1)}


def one_of_burst(bench: Bench, number: int, began: float) -> float:
    build.make_clone(bench.root, f"burst_{number}", pool=None, modes=bench.picked)
    return time.perf_counter() - began


def spread(seconds: list[float]) -> dict[str, float]:
    at = {name: round(machine.percentile(seconds, part) * 1e3, 3) for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    return {**at, "n": len(seconds)}


def prove(bench: Bench) -> dict[str, dict[str, int]]:
    """Raise :class:`proofs.NotAClone` unless every mode of the builder makes clones that stand apart."""
    kinds = {"picked": bench.picked, "plain": Modes(history=True)}
    if bench.linked:
        kinds["linked"] = bench.linked
    proven = {}
    for name, mode in kinds.items():
        folder = bench.place / f"proof-{name}"
        folder.mkdir()
        proofs.is_equal(made(bench, folder / "equal", mode), bench.master.manifest, history=mode.history)
        proven[name] = proofs.stays_apart(bench.master, folder, mode)
    proofs.leaves_nothing(bench.place)
    return proven


def made(bench: Bench, target: Path, modes: Modes) -> Path:
    build.build(bench.master, target, modes)
    return target


# --- set-up and words ------------------------------------------------------------------------------------------------


def set_up(root: Path, options: argparse.Namespace) -> Bench:
    master = masters.folder(root)
    master.parent.mkdir(parents=True)
    for name in ("Users", "Pool", "Trash"):
        (root / name).mkdir()
    maker = REPOSITORY / "farm" / "paper" / "master.py"
    size = ["--mb", str(options.mb), "--files", str(options.files), "--seed", str(options.seed)]
    subprocess.run([sys.executable, str(maker), str(master), *size], check=True, stdout=subprocess.DEVNULL)
    picked = build.probe(root, link=True)
    try:
        apart = build.probe(root, link=True, terminal_user=UNPRIVILEGED)
    except errors.AgentError:
        apart = picked
    return Bench(root, masters.load(root), picked, apart if apart.link else None)


def table(modes: list[Mode]) -> str:
    base = statistics.median(next(mode.seconds for mode in modes if mode.name == "shutil.copytree"))
    lines = [f"{'mode':<20} {'median':>8} {'min':>8} {'max':>8} {'x faster':>9} {'MB':>8} {'inodes':>7}"]
    for mode in sorted(modes, key=lambda mode: statistics.median(mode.seconds)):
        middle, low, high = (of(mode.seconds) * 1e3 for of in (statistics.median, min, max))
        figures = (
            f"{middle:8.1f} {low:8.1f} {high:8.1f} {base * 1e3 / middle:9.2f} {mode.megabytes:8.1f} {mode.inodes:7d}"
        )
        lines.append(f"{mode.name:<20} {figures}  {mode.note}".rstrip())
    return "\n".join(lines)


def figures(modes: list[Mode]) -> dict[str, dict[str, object]]:
    base = next(mode.seconds for mode in modes if mode.name == "shutil.copytree")
    return {
        mode.name: {
            "median_ms": round(statistics.median(mode.seconds) * 1e3, 2),
            "min_ms": round(min(mode.seconds) * 1e3, 2),
            "max_ms": round(max(mode.seconds) * 1e3, 2),
            "ratio": round(statistics.median(base) / statistics.median(mode.seconds), 2),
            "round_ratios": [round(theirs / ours, 2) for theirs, ours in zip(base, mode.seconds, strict=True)],
            "mb": round(mode.megabytes, 2),
            "inodes": mode.inodes,
            "note": mode.note,
        }
        for mode in modes
    }


def measure(root: Path, options: argparse.Namespace) -> dict[str, object]:
    dice = random.Random(options.seed)
    bench = set_up(root, options)
    about = {**machine.facts(root), "mb": options.mb, "files": len(bench.master.manifest.files), "seed": options.seed}
    print(" ".join(f"{name}={value}" for name, value in about.items()), flush=True)
    modes = modes_of(bench)
    for mode in modes:
        mode.make(bench.place / f"warm-{mode.name.replace(' ', '-')}")
    run_rounds(bench, modes, rounds=options.rounds, dice=dice)
    print(table(modes), flush=True)
    apart = {**measure_pool(bench), "burst": measure_burst(bench)}
    for name, numbers in apart.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in numbers.items()), flush=True)
    proven = prove(bench)
    print(f"proven: {proven}")
    words = {"picks": bench.picked.best.value, "notes": list(bench.picked.notes), "proven": proven, "correct": True}
    return {"benchmark": "clone", **about, "rounds": options.rounds, "modes": figures(modes), **apart, **words}


@contextmanager
def place(options: argparse.Namespace) -> Iterator[Path]:
    if options.loop:
        with machine.loop_mounted(options.loop, gigabytes=24) as mounted:
            for folder in (mounted.parent, mounted):
                folder.chmod(0o755)
            yield mounted / "farm"
        return
    with tempfile.TemporaryDirectory(prefix="bench-clone-", dir=options.folder) as made:
        # The user that proves what it cannot write has to be let in to try.
        os.chmod(made, 0o755)
        yield Path(made) / "farm"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=330, help="size of the master (default %(default)s)")
    parser.add_argument("--files", type=int, default=2600, help="files in the master (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the master and of the order (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="clones per mode (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work: the file system that is measured")
    parser.add_argument("--loop", choices=["ext4", "xfs", "btrfs"], help="work in a fresh one of these (needs root)")
    options = parser.parse_args(arguments)
    try:
        with place(options) as root:
            print(json.dumps(measure(root, options)))
    except proofs.NotAClone as error:
        print(json.dumps({"benchmark": "clone", "correct": False, "why": str(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
