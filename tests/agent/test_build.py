"""How a clone is made: which way each file comes, what a disk may refuse, and that nothing half-made is ever seen."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from farm.agent import build, copying, errors, manifest, probe, tree
from farm.agent import master as masters
from farm.agent.copying import Modes, Way
from farm.agent.protocol import BadName
from tests.agent.farms import contents, fresh, make_farm, open_place

ALL_WAYS = Modes(reflink=True, copy_range=True)
NOBODY = 65534
SHARED = {
    "terminal64.exe",
    "MetaEditor64.exe",
    "Sounds/tick.wav",
    "Config/terminal.lic",
    "MQL5/Experts/BittenBridge.mq5",
    "MQL5/Include/Arrays/Array.mqh",
}
needs_root = pytest.mark.usefixtures("needs_root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_farm(tmp_path)


@pytest.fixture
def target(root: Path) -> Path:
    return root / "Pool" / "clone"


@pytest.fixture
def linking(monkeypatch: pytest.MonkeyPatch) -> Modes:
    """Links, as for terminals under a user of their own; without the giving away, which needs root."""
    monkeypatch.setattr(copying, "hand_over", lambda *_: None)
    return Modes(link=True, copy_range=True, terminal_user=NOBODY)


def refusing(number: int):
    """A system call that fails with this errno."""

    def call(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def is_the_master(clone: Path, root: Path) -> None:
    assert contents(clone) == contents(masters.folder(root))


# --- equal to the master ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [Modes(), Modes(copy_range=True), ALL_WAYS], ids=["plain", "range", "all"])
def test_a_clone_equals_its_master_empty_folders_too(root, target, modes):
    build.build(fresh(root), target, modes)
    is_the_master(target, root)


def test_a_linked_clone_equals_its_master(root, target, linking):
    built = build.build(fresh(root), target, linking)
    is_the_master(target, root)
    assert built.ways[Way.LINK] == len(SHARED)


def test_only_what_the_list_names_is_shared(root, target, linking):
    build.build(fresh(root), target, linking)
    shared = {entry.path for entry in tree.walk(target) if entry.seen.st_nlink > 1 and not tree.is_folder(entry.seen)}
    assert shared == SHARED


def test_somebodys_traces_are_in_no_clone(root, target):
    for name in ("Config/accounts.dat", "logs/20261122.log", "Bases/X/trades/5/deals.dat", "temp/EBWebView/Cookies"):
        path = masters.folder(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"somebody's")
    build.build(fresh(root), target, Modes())
    assert not [
        name for name in contents(target) if "accounts" in name or name.endswith((".log", "deals.dat", "Cookies"))
    ]


def test_history_is_left_out_where_it_would_be_copied(root, target):
    build.build(fresh(root), target, Modes(history=False))
    assert contents(masters.folder(root)).keys() - contents(target).keys() == {"Bases/Default/History/EURUSD/2024.hcc"}


def test_a_big_master_is_copied_by_several_threads_and_equal(root, target, monkeypatch):
    monkeypatch.setattr(build, "PARALLEL_BYTES", 1)
    monkeypatch.setattr(build, "BIG_BYTES", 100)
    monkeypatch.setattr(build, "_slots", threading.BoundedSemaphore(4))
    build.build(fresh(root), target, Modes(copy_range=True))
    is_the_master(target, root)


def test_all_of_a_clones_own_files_can_be_written(root, target):
    for entry in tree.walk(masters.folder(root)):
        if not tree.is_folder(entry.seen):
            os.chmod(masters.folder(root) / entry.path, 0o444)
    build.build(fresh(root), target, Modes())
    assert all(entry.seen.st_mode & 0o200 for entry in tree.walk(target))


# --- apart from the master and each other ----------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [Modes(), ALL_WAYS], ids=["plain", "all"])
def test_writing_to_every_file_of_a_clone_changes_nothing_else(root, modes):
    master = fresh(root)
    mine, other = root / "Pool" / "mine", root / "Pool" / "other"
    build.build(master, mine, modes)
    build.build(master, other, modes)
    before = contents(masters.folder(root))
    for entry in tree.walk(mine):
        if not tree.is_folder(entry.seen):
            spoil(mine / entry.path)
    assert contents(masters.folder(root)) == before
    assert contents(other) == before


def test_writing_to_every_mutable_file_of_a_linked_clone_changes_nothing_else(root, linking):
    master = fresh(root)
    mine, other = root / "Pool" / "mine", root / "Pool" / "other"
    build.build(master, mine, linking)
    build.build(master, other, linking)
    before = contents(masters.folder(root))
    for file in master.manifest.files:
        if not file.immutable:
            spoil(mine / file.path)
    assert contents(masters.folder(root)) == before
    assert contents(other) == before


def spoil(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"HACK")
        file.seek(0, os.SEEK_END)
        file.write(b"HACK")


@needs_root
def test_the_terminals_user_can_write_its_own_files_and_none_that_is_shared():
    modes = Modes(link=True, terminal_user=NOBODY, terminal_group=NOBODY)
    with open_place() as place:
        target = make_farm(place / "farm") / "Pool" / "clone"
        build.build(fresh(place / "farm"), target, modes)
        nobody_writes_its_own_alone(target)


def nobody_writes_its_own_alone(target: Path) -> None:
    for entry in tree.walk(target):
        if tree.is_folder(entry.seen):
            assert entry.seen.st_uid == NOBODY
            continue
        tried = subprocess.run(
            ["/bin/sh", "-c", ': >> "$0"', str(target / entry.path)],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
        assert (tried.returncode == 0) == (entry.path not in SHARED), entry.path


# --- no link without proof -------------------------------------------------------------------------------------------


def test_terminals_under_the_agents_own_user_share_nothing(root, target):
    built = build.build(fresh(root), target, Modes(link=True))
    assert not built.ways[Way.LINK]


def test_terminals_that_own_the_master_share_nothing(root, target, linking):
    built = build.build(fresh(root), target, replace(linking, terminal_user=os.geteuid()))
    assert not built.ways[Way.LINK]


def test_terminals_under_root_share_nothing(root, target, linking):
    built = build.build(fresh(root), target, replace(linking, terminal_user=0))
    assert not built.ways[Way.LINK]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_not_shared(root, target, linking, mode):
    os.chmod(masters.folder(root) / "terminal64.exe", mode)
    built = build.build(fresh(root), target, linking)
    assert built.ways[Way.LINK] == len(SHARED) - 1
    assert (target / "terminal64.exe").stat().st_nlink == 1


def test_the_probe_turns_links_off_for_the_agents_own_user(root):
    modes = probe.probe(root, link=True)
    assert not modes.link
    assert "own user" in modes.notes[0]


def test_the_probe_turns_links_off_when_told(root):
    modes = probe.probe(root, link=False, terminal_user=NOBODY)
    assert not modes.link
    assert "FARM_LINK" in modes.notes[0]


@needs_root
def test_the_probe_turns_links_on_for_a_user_that_was_refused(root):
    assert probe.probe(root, link=True, terminal_user=NOBODY).link


@needs_root
def test_the_probe_turns_links_off_for_a_user_that_gets_through(root, monkeypatch):
    monkeypatch.setattr(probe, "_TRY_TO_WRITE", "exit 0")
    assert not probe.probe(root, link=True, terminal_user=NOBODY).link


@needs_root
def test_the_probe_turns_links_off_when_the_user_cannot_be_tried(root, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("sh", 1)

    monkeypatch.setattr(subprocess, "run", broken)
    assert not probe.probe(root, link=True, terminal_user=NOBODY).link


def test_the_probe_sees_what_the_disk_cannot(root, monkeypatch):
    monkeypatch.setattr(os, "copy_file_range", refusing(errno.EXDEV))
    monkeypatch.setattr(copying, "_reflink", lambda *_: False)
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    modes = probe.probe(root, link=True, terminal_user=NOBODY)
    assert (modes.link, modes.reflink, modes.copy_range, modes.best) == (False, False, False, Way.COPY)


def test_the_probe_leaves_nothing_behind(root):
    probe.probe(root, link=True)
    assert os.listdir(root / "Pool") == []


def test_the_probe_refuses_an_unknown_user(root):
    with pytest.raises(errors.TerminalCommand, match="no-such-user"):
        probe.probe(root, link=True, terminal_user="no-such-user")


def test_the_probe_says_when_the_folder_cannot_be_written(root, monkeypatch):
    monkeypatch.setattr(os, "mkdir", refusing(errno.EROFS))
    with pytest.raises(errors.ReadOnly):
        probe.probe(root, link=True)


# --- each refusal has its fallback -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_that_takes_no_more_links_is_copied(root, target, linking, monkeypatch, number):
    monkeypatch.setattr(os, "link", refusing(number))
    built = build.build(fresh(root), target, linking)
    is_the_master(target, root)
    assert not built.ways[Way.LINK]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_what_the_kernel_will_not_copy_is_read_and_written(root, target, monkeypatch, number):
    monkeypatch.setattr(os, "copy_file_range", refusing(number))
    built = build.build(fresh(root), target, Modes(copy_range=True))
    is_the_master(target, root)
    assert built.ways[Way.COPY]


def test_a_kernel_copy_that_gives_up_in_the_middle_is_begun_again(root, target, monkeypatch):
    real = os.copy_file_range

    def half(old: int, new: int, count: int) -> int:
        if os.lseek(old, 0, os.SEEK_CUR):
            raise OSError(errno.EINVAL, "half way")
        return real(old, new, max(count // 2, 1))

    monkeypatch.setattr(os, "copy_file_range", half)
    build.build(fresh(root), target, Modes(copy_range=True))
    is_the_master(target, root)


def test_short_kernel_copies_are_gone_on_with(root, target, monkeypatch):
    real = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", lambda old, new, count: real(old, new, min(count, 7)))
    built = build.build(fresh(root), target, Modes(copy_range=True))
    is_the_master(target, root)
    assert built.ways[Way.COPY_RANGE] == len(fresh(root).manifest.files)


def test_short_writes_are_gone_on_with(root, target, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data[:5])))
    build.build(fresh(root), target, Modes())
    monkeypatch.undo()
    is_the_master(target, root)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.EINVAL])
def test_without_reflinks_the_next_way_is_taken(root, target, monkeypatch, number):
    monkeypatch.setattr(copying.fcntl, "ioctl", refusing(number))
    built = build.build(fresh(root), target, ALL_WAYS)
    is_the_master(target, root)
    assert set(built.ways) == {Way.COPY_RANGE}


# --- each failure has its type, and leaves nothing -------------------------------------------------------------------

FAILURES = [
    (errno.ENOSPC, errors.DiskFull),
    (errno.EDQUOT, errors.DiskFull),
    (errno.EROFS, errors.ReadOnly),
    (errno.EMFILE, errors.TooManyOpenFiles),
    (errno.EIO, errors.FolderTrouble),
]


@pytest.mark.parametrize(("number", "kind"), FAILURES)
@pytest.mark.parametrize("call", ["link", "copy_file_range", "mkdir"])
def test_a_failure_in_the_middle_is_typed_and_leaves_nothing(root, target, linking, monkeypatch, call, number, kind):
    master = fresh(root)
    monkeypatch.setattr(os, call, refusing(number))
    with pytest.raises(kind):
        build.build(master, target, linking)
    monkeypatch.undo()
    assert os.listdir(root / "Pool") == []


@pytest.mark.parametrize(("number", "kind"), FAILURES)
def test_a_failure_of_a_helping_thread_is_typed_and_leaves_nothing(root, target, monkeypatch, number, kind):
    master = fresh(root)
    monkeypatch.setattr(build, "PARALLEL_BYTES", 1)
    monkeypatch.setattr(build, "_slots", threading.BoundedSemaphore(4))
    refused, real = threading.Event(), os.copy_file_range

    def refused_to_helpers(old: int, new: int, count: int) -> int:
        if threading.current_thread() is threading.main_thread():
            assert refused.wait(10)
            return real(old, new, count)
        refused.set()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refused_to_helpers)
    with pytest.raises(kind):
        build.build(master, target, Modes(copy_range=True))
    assert os.listdir(root / "Pool") == []


def test_a_full_disk_when_a_write_is_refused_leaves_nothing(root, target, monkeypatch):
    master = fresh(root)
    monkeypatch.setattr(os, "write", refusing(errno.ENOSPC))
    with pytest.raises(errors.DiskFull):
        build.build(master, target, Modes())
    monkeypatch.undo()
    assert os.listdir(root / "Pool") == []


def test_past_its_deadline_a_build_is_too_slow_and_leaves_nothing(root, target):
    with pytest.raises(errors.TooSlow):
        build.build(fresh(root), target, Modes(), deadline_at=float("-inf"))
    assert os.listdir(root / "Pool") == []


def test_a_build_waits_for_a_core_only_until_its_deadline(root, target, monkeypatch):
    monkeypatch.setattr(build, "_slots", threading.BoundedSemaphore(1))
    with build._slots, pytest.raises(errors.TooSlow):
        build.build(fresh(root), target, Modes(), deadline_at=0)


def test_a_build_for_later_gives_way_while_all_cores_are_taken(root, target, monkeypatch):
    monkeypatch.setattr(build, "_slots", threading.BoundedSemaphore(1))
    with build._slots:
        assert build.build_if_idle(fresh(root), target, Modes()) is None
    assert build.build_if_idle(fresh(root), target, Modes())


def test_every_core_is_free_again_after_failures(root, target, monkeypatch):
    slots = threading.BoundedSemaphore(2)
    monkeypatch.setattr(build, "_slots", slots)
    master = fresh(root)
    for _ in range(3):
        with pytest.raises(errors.TooSlow):
            build.build(master, target, Modes(), deadline_at=float("-inf"))
    assert [slots.acquire(blocking=False) for _ in range(3)] == [True, True, False]


def test_what_stands_in_the_way_is_neither_touched_nor_removed(root, target):
    target.mkdir()
    (target / "kept").write_text("kept")
    with pytest.raises(errors.FolderTrouble):
        build.build(fresh(root), target, Modes())
    assert (target / "kept").read_text() == "kept"


# --- a master that changes meanwhile ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"EX-Y", b"longer than before", b""], ids=["same size", "longer", "shorter"])
@pytest.mark.parametrize("modes", [Modes(), Modes(copy_range=True)], ids=["plain", "range"])
def test_a_master_changed_since_it_was_read_is_noticed(root, target, content, modes):
    master = fresh(root)
    (masters.folder(root) / "MQL5/Experts/BittenBridge.ex5").write_bytes(content)
    with pytest.raises(errors.MasterChanged):
        build.build(master, target, modes)
    assert os.listdir(root / "Pool") == []


def test_a_file_gone_since_the_master_was_read_is_noticed(root, target):
    master = fresh(root)
    (masters.folder(root) / "MQL5/Experts/BittenBridge.ex5").unlink()
    with pytest.raises(errors.MasterChanged):
        build.build(master, target, Modes())
    assert os.listdir(root / "Pool") == []


def test_a_clone_of_a_master_changed_meanwhile_is_of_the_new_one(root):
    stale = masters.load(root).digest
    (masters.folder(root) / "MQL5/Experts/BittenBridge.ex5").write_bytes(b"EX-Z")
    made = build.make_clone(root, "user_1", pool=None, modes=Modes())
    assert made.digest != stale
    assert made.digest == fresh(root).digest
    is_the_master(root / "Users" / "user_1", root)


# --- published whole -------------------------------------------------------------------------------------------------


def test_a_clone_appears_under_users_and_leaves_nothing_in_the_pool(root):
    made = build.make_clone(root, "user_1", pool=None, modes=Modes(copy_range=True))
    is_the_master(root / "Users" / "user_1", root)
    assert (made.digest, made.how) == (fresh(root).digest, "copy_file_range")
    assert os.listdir(root / "Pool") == []


@pytest.mark.parametrize("name", ["..", "a/b", "con", "", "user_1 ", "../Users/user_2"])
def test_a_name_that_could_leave_users_is_refused(root, name):
    with pytest.raises(BadName):
        build.make_clone(root, name, pool=None, modes=Modes())


def test_a_clone_that_stands_there_is_left_as_it_is(root):
    build.make_clone(root, "user_1", pool=None, modes=Modes())
    (root / "Users" / "user_1" / "mine").write_text("mine")
    with pytest.raises(errors.AlreadyThere):
        build.make_clone(root, "user_1", pool=None, modes=Modes())
    assert (root / "Users" / "user_1" / "mine").read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_publishing_replaces_nothing(root, target, kind):
    final = root / "Users" / "user_1"
    target.mkdir()
    if kind == "file":
        final.write_text("kept")
    elif kind == "dangling link":
        final.symlink_to("nowhere")
    else:
        final.mkdir()
        if kind == "folder":
            (final / "kept").mkdir()
    with pytest.raises(errors.AlreadyThere):
        build.publish(target, final)
    assert target.is_dir()


def test_a_clone_that_came_first_wins_and_the_late_one_leaves_nothing(root, monkeypatch):
    def came_first(*_: object) -> None:
        raise OSError(errno.ENOTEMPTY, "another was first")

    monkeypatch.setattr(os, "rename", came_first)
    with pytest.raises(errors.AlreadyThere):
        build.make_clone(root, "user_1", pool=None, modes=Modes())
    assert os.listdir(root / "Pool") == []


KILLED_CLONE = """
import sys
from pathlib import Path
from farm.agent import build
build.make_clone(Path(sys.argv[1]), "user_1", pool=None, modes=build.Modes())
"""


def run_clone(root: Path, **environment: str) -> int:
    found = subprocess.run(
        [sys.executable, "-c", KILLED_CLONE, str(root)],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    return found.returncode


def test_killed_anywhere_a_build_is_not_seen_and_the_next_one_is_whole(root, tmp_path):
    points = tmp_path / "points"
    assert run_clone(root, FARM_CRASH_LIST=str(points)) == 0
    names = points.read_text().split()
    files, folders = len(fresh(root).manifest.files), len(fresh(root).manifest.folders)
    assert (names.count("file"), names.count("folder"), names.count("publish")) == (files, folders + 1, 1)
    tree.remove(root / "Users" / "user_1")
    for number in (1, 2, folders + 2, folders + files // 2, len(names) - 1):
        assert run_clone(root, FARM_CRASH_AT=str(number)) < 0
        assert not (root / "Users" / "user_1").exists()
        assert all(tree.is_abandoned(name) for name in os.listdir(root / "Pool"))
    assert run_clone(root, FARM_CRASH_AT="publish") < 0
    is_the_master(root / "Users" / "user_1", root)


def test_while_a_clone_is_being_built_it_is_not_seen(root, monkeypatch):
    seen: list[list[str]] = []
    give = copying.give

    def looking(file: manifest.File, *rest: object) -> Way:
        seen.append(os.listdir(root / "Users"))
        return give(file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "give", looking)
    build.make_clone(root, "user_1", pool=None, modes=Modes())
    assert seen
    assert not any(seen)
