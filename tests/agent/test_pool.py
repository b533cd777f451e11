"""Ready clones: nobody gets another's, none is of an old master, and a sick disk is left alone."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from farm.agent import build, errors, pool, tree
from farm.agent import master as masters
from farm.agent.copying import Modes
from farm.agent.pool import Pool
from tests.agent.farms import contents, fresh, make_farm


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_farm(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def warm(root: Path, clock: Clock) -> Pool:
    """A pool of three, full."""
    made = Pool(root, 3, Modes(), now=clock)
    fill(made)
    return made


@pytest.fixture(autouse=True)
def _looks_at_the_master_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    load = masters.load
    monkeypatch.setattr(masters, "load", lambda root, **_: load(root, max_age_seconds=0))


def fill(warm: Pool) -> int:
    steps = 0
    while warm.refill():
        steps += 1
        assert steps < 50
    return steps


def ready(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root / "Pool") if name.startswith("ready-"))


def change_master(root: Path) -> None:
    with open(masters.folder(root) / "Config" / "servers.dat", "ab") as file:
        file.write(b"!")


# --- nothing to take -------------------------------------------------------------------------------------------------


def test_an_empty_pool_gives_nothing_and_counts_the_miss(root):
    empty = Pool(root, 3, Modes())
    assert not empty.take(root / "Users" / "user_1", fresh(root).digest)
    assert os.listdir(root / "Users") == []
    assert empty.facts()["misses"] == 1


def test_a_pool_of_none_counts_no_miss_and_makes_nothing(root):
    none = Pool(root, 0, Modes())
    assert not none.take(root / "Users" / "user_1", fresh(root).digest)
    assert not none.refill()
    assert none.facts()["misses"] == 0


def test_a_clone_of_another_master_is_not_taken(root, warm):
    change_master(root)
    assert not warm.take(root / "Users" / "user_1", fresh(root).digest)
    assert os.listdir(root / "Users") == []


def test_a_half_built_clone_is_not_taken(root):
    half = root / "Pool" / tree.half_built_name()
    half.mkdir()
    assert not Pool(root, 3, Modes()).take(root / "Users" / "user_1", fresh(root).digest)


def test_taking_to_where_something_stands_is_refused_and_uses_up_nothing(root, warm):
    (root / "Users" / "user_1").mkdir()
    with pytest.raises(errors.AlreadyThere):
        warm.take(root / "Users" / "user_1", fresh(root).digest)
    assert warm.facts()["ready"] == 3


# --- taken -----------------------------------------------------------------------------------------------------------


def test_a_taken_clone_equals_the_master_and_is_in_the_pool_no_more(root, warm):
    assert warm.take(root / "Users" / "user_1", fresh(root).digest)
    assert contents(root / "Users" / "user_1") == contents(masters.folder(root))
    assert warm.facts() | {"refill_seconds": 0} == {
        "size": 3,
        "ready": 2,
        "misses": 0,
        "taken": 1,
        "refilled_last_hour": 3,
        "refill_seconds": 0,
    }


def test_a_clone_is_made_from_the_pool_and_built_once_that_is_empty(root, warm):
    hows = [build.make_clone(root, f"user_{n}", pool=warm, modes=Modes()).how for n in range(4)]
    assert hows == ["pool", "pool", "pool", "copy"]
    assert warm.facts()["misses"] == 1


def test_two_threads_never_get_the_same_clone(root, clock):
    many = Pool(root, 20, Modes(), now=clock)
    fill(many)
    digest = fresh(root).digest
    inodes = {(root / "Pool" / name).stat().st_ino for name in ready(root)}

    def taken(number: int) -> bool:
        return many.take(root / "Users" / f"user_{number}", digest)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(taken, range(30)))
    assert answers.count(True) == 20
    assert {entry.stat().st_ino for entry in os.scandir(root / "Users")} == inodes


TAKER = """
import sys
from pathlib import Path
from farm.agent.copying import Modes
from farm.agent.pool import Pool
root, me, digest = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
warm = Pool(root, 10, Modes())
sys.stdin.readline()
print(sum(warm.take(root / "Users" / f"user_{me}-{n}", digest) for n in range(10)))
"""


def test_two_processes_never_get_the_same_clone(root, clock):
    fill(Pool(root, 10, Modes(), now=clock))
    digest = fresh(root).digest
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(root), str(number), digest],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2)
    ]
    for taker in takers:
        assert taker.stdin
        taker.stdin.write("go\n")
        taker.stdin.flush()
    counts = [int(taker.communicate(timeout=30)[0]) for taker in takers]
    assert sum(counts) == 10
    assert len(os.listdir(root / "Users")) == 10
    assert all((root / "Users" / name / "terminal64.exe").exists() for name in os.listdir(root / "Users"))


def test_one_taken_meanwhile_is_passed_over_for_the_next(root, warm, monkeypatch):
    first, *_ = ready(root)
    rename = os.rename

    def first_is_gone(old: Path, new: Path) -> None:
        if Path(old).name == first:
            raise FileNotFoundError(errno.ENOENT, "taken by another")
        rename(old, new)

    monkeypatch.setattr(os, "rename", first_is_gone)
    assert warm.take(root / "Users" / "user_1", fresh(root).digest)


# --- refilled --------------------------------------------------------------------------------------------------------


def test_a_step_makes_one_clone_and_a_full_pool_makes_none(root, clock):
    warm = Pool(root, 2, Modes(), now=clock)
    assert [warm.refill() for _ in range(4)] == [True, True, False, False]
    assert len(ready(root)) == 2


def test_a_changed_master_has_the_pool_made_anew(root, warm):
    old = ready(root)
    change_master(root)
    fill(warm)
    now = ready(root)
    assert len(now) == 3
    assert not set(now) & set(old)
    assert all(contents(root / "Pool" / name) == contents(masters.folder(root)) for name in now)
    assert len(os.listdir(root / "Trash")) == 3


def test_a_smaller_pool_discards_what_it_does_not_keep(root, warm, clock):
    fill(Pool(root, 1, Modes(), now=clock))
    assert len(ready(root)) == 1


def test_a_master_that_changes_during_a_refill_gives_no_ready_clone_of_the_old(root, clock, monkeypatch):
    warm = Pool(root, 1, Modes(), now=clock)
    built = build.build_if_idle

    def built_and_changed(*given: object) -> object:
        answer = built(*given)  # type: ignore[arg-type]
        monkeypatch.undo()
        (masters.folder(root) / "new.txt").write_text("new")
        return answer

    monkeypatch.setattr(build, "build_if_idle", built_and_changed)
    warm.refill()
    assert ready(root) == []
    masters.load(root, max_age_seconds=0)
    fill(warm)
    assert contents(root / "Pool" / ready(root)[0]) == contents(masters.folder(root))


def test_without_a_master_a_refill_says_so_and_rests(root, clock):
    shutil.rmtree(masters.folder(root))
    warm = Pool(root, 1, Modes(), now=clock)
    with pytest.raises(errors.MasterMissing):
        warm.refill()
    assert not warm.refill()
    clock.now += pool.RETRY_SECONDS
    with pytest.raises(errors.MasterMissing):
        warm.refill()


def test_a_full_disk_is_told_once_and_leaves_nothing(root, clock, monkeypatch):
    warm = Pool(root, 1, Modes(), now=clock)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    fresh(root)
    with pytest.raises(errors.DiskFull):
        warm.refill()
    monkeypatch.undo()
    assert not warm.refill()
    assert os.listdir(root / "Pool") == []


def test_the_last_space_is_left_to_customers(root, clock, monkeypatch):
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=fresh(root).manifest.size))
    assert not Pool(root, 1, Modes(), now=clock).refill()


def test_while_customers_use_all_cores_nothing_is_refilled(root, clock, monkeypatch):
    monkeypatch.setattr(build, "build_if_idle", lambda *_: None)
    assert not Pool(root, 1, Modes(), now=clock).refill()


def test_the_rate_is_of_the_last_hour(root, warm, clock):
    assert warm.facts()["refilled_last_hour"] == 3
    clock.now += 3601
    assert warm.facts()["refilled_last_hour"] == 0


# --- cleaned at start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".tmp-1-1-aa", ".tmp-99999999-5-aa", ".tmp-x", ".tmp-{pid}-7-aa"])
def test_what_an_ended_process_left_half_built_is_thrown_away(root, warm, name):
    (root / "Pool" / name.format(pid=os.getpid()) / "MQL5").mkdir(parents=True)
    assert warm.clean() == 1
    assert len(os.listdir(root / "Pool")) == 3
    assert len(os.listdir(root / "Trash")) == 1


def test_what_a_running_process_builds_is_let_be(root, warm):
    name = tree.half_built_name()
    (root / "Pool" / name).mkdir()
    assert warm.clean() == 0
    assert (root / "Pool" / name).is_dir()
    assert str(psutil.Process().pid) in name


def test_a_pool_whose_folder_is_not_there_yet_is_clean(tmp_path):
    assert Pool(tmp_path, 1, Modes()).clean() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has its own priority on Linux")
def test_only_the_thread_that_refills_is_slowed(root):
    before = os.getpriority(os.PRIO_PROCESS, 0)

    def slowed() -> int:
        pool.lower_priority()
        return os.getpriority(os.PRIO_PROCESS, 0)

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(slowed).result() > before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
