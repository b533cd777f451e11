"""Getting rid of clones: out of sight at once, deleted slowly, and never anything that is not theirs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farm.agent import build, errors, purge, tree
from farm.agent.copying import Modes
from farm.agent.purge import Backoff
from tests.agent.farms import contents, fresh, make_farm, open_place


class Clock:
    """Time that passes by ``step`` at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 1000.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_farm(tmp_path)


@pytest.fixture
def clone(root: Path) -> Path:
    build.make_clone(root, "user_1", pool=None, modes=Modes())
    return root / "Users" / "user_1"


def purge_all(root: Path, **options: object) -> purge.Purged:
    return purge.purge(root, things=10**6, seconds=3600, backoff=Backoff(), **options)  # type: ignore[arg-type]


def in_use(*_: object) -> None:
    raise OSError(errno.EBUSY, "in use")


# --- discard ---------------------------------------------------------------------------------------------------------


def test_what_is_gone_already_is_discarded(root):
    assert purge.discard(root, root / "Users" / "user_1") is None


def test_a_discarded_clone_is_out_of_sight_and_whole_in_the_trash(root, clone):
    before = contents(clone)
    lies = purge.discard(root, clone)
    assert os.listdir(root / "Users") == []
    assert lies is not None
    assert contents(lies) == before


def test_the_same_name_is_discarded_again_and_again(root, clone):
    purge.discard(root, clone)
    build.make_clone(root, "user_1", pool=None, modes=Modes())
    purge.discard(root, clone)
    assert len(os.listdir(root / "Trash")) == 2


def test_a_trash_folder_is_made_when_there_is_none(root, clone):
    (root / "Trash").rmdir()
    assert purge.discard(root, clone) is not None


def test_a_folder_in_use_is_tried_again_after_growing_pauses(root, clone, monkeypatch):
    pauses: list[float] = []
    rename = os.rename

    def free_at_last(old: Path, new: Path) -> None:
        if len(pauses) < 2:
            in_use()
        rename(old, new)

    monkeypatch.setattr(os, "rename", free_at_last)
    assert purge.discard(root, clone, waits=(0.1, 0.2, 0.4), sleep=pauses.append) is not None
    assert pauses == [0.1, 0.2]


def test_a_folder_that_stays_in_use_is_said_to_be_and_left(root, clone, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(os, "rename", in_use)
    with pytest.raises(errors.FilesInUse):
        purge.discard(root, clone, waits=(0.1, 0.2), sleep=pauses.append)
    assert pauses == [0.1, 0.2]
    assert clone.is_dir()


@pytest.mark.parametrize(("number", "kind"), [(errno.EROFS, errors.ReadOnly), (errno.EIO, errors.FolderTrouble)])
def test_another_refusal_is_typed_and_not_tried_again(root, clone, monkeypatch, number, kind):
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(kind):
        purge.discard(root, clone, sleep=pytest.fail)


def test_windows_access_denied_counts_as_in_use():
    error = OSError(errno.EACCES, "denied")
    error.winerror = 5  # type: ignore[attr-defined,unused-ignore]
    assert type(errors.from_os_error(error)) is errors.FilesInUse


# --- purge -----------------------------------------------------------------------------------------------------------


def test_an_empty_trash_and_no_trash_are_purged(root):
    assert purge_all(root) == purge.Purged()
    (root / "Trash").rmdir()
    assert purge_all(root) == purge.Purged()


def test_a_purged_clone_is_gone_and_all_its_things_are_counted(root, clone):
    things = len(contents(clone)) + 1
    purge.discard(root, clone)
    assert purge_all(root) == purge.Purged(things=things, entries=1, left=0)
    assert os.listdir(root / "Trash") == []


def test_a_call_removes_no_more_than_its_budget_and_the_next_goes_on(root, clone):
    things = len(contents(clone)) + 1
    purge.discard(root, clone)
    calls = 0
    while os.listdir(root / "Trash"):
        done = purge.purge(root, things=5, backoff=Backoff())
        calls += 1
        assert done.things <= 5
    assert calls == -(-things // 5)


def test_a_call_ends_when_its_time_is_up(root, clone):
    purge.discard(root, clone)
    done = purge.purge(root, things=10**6, seconds=1.0, backoff=Backoff(), now=Clock(step=0.3))
    assert 0 < done.things < 6
    assert done.left == 1


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_links_are_removed_and_never_followed(root, clone, tmp_path_factory, kind):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("kept")
    target = {"file": outside / "kept", "folder": outside, "dangling": outside / "nothing"}[kind]
    (clone / "MQL5" / "Files" / "link").symlink_to(target)
    purge.discard(root, clone)
    purge_all(root)
    assert os.listdir(root / "Trash") == []
    assert (outside / "kept").read_text() == "kept"


def test_a_clone_that_is_itself_a_link_is_removed_and_never_followed(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("kept")
    (root / "Users" / "user_1").symlink_to(outside)
    purge.discard(root, root / "Users" / "user_1")
    purge_all(root)
    assert os.listdir(root / "Trash") == []
    assert (outside / "kept").exists()


def test_a_file_shared_with_the_master_goes_and_the_masters_keeps_content_and_mode(root, monkeypatch):
    master = fresh(root).path
    os.chmod(master / "terminal64.exe", 0o444)
    shared = root / "Users" / "user_1"
    shared.mkdir()
    os.link(master / "terminal64.exe", shared / "terminal64.exe")
    before = contents(master)
    purge.discard(root, shared)
    purge_all(root)
    assert contents(master) == before
    assert (master / "terminal64.exe").stat().st_mode & 0o777 == 0o444
    assert (master / "terminal64.exe").stat().st_nlink == 1


AS_NOBODY = """
import os, sys
from pathlib import Path
from farm.agent import tree
os.chdir("/")
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
tree.remove(Path(sys.argv[1]))
"""


def test_read_only_files_in_read_only_folders_go():
    with open_place() as place:
        locked = place / "mine" / "entry" / "locked"
        locked.mkdir(parents=True)
        (locked / "file").write_text("x")
        for path, mode in ((locked / "file", 0o444), (locked, 0o555), (locked.parent, 0o555), (place / "mine", 0o755)):
            path.chmod(mode)
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
        command = [sys.executable, "-c", AS_NOBODY, str(place / "mine" / "entry")]
        found = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, capture_output=True)
        assert found.returncode == 0, found.stderr.decode()
        assert os.listdir(place / "mine") == []


def test_an_entry_that_will_not_go_does_not_stop_the_rest(root, monkeypatch):
    for name in ("a", "b", "c"):
        (root / "Trash" / name).mkdir()
        (root / "Trash" / name / "file").write_text("x")
    hold(monkeypatch, root / "Trash" / "b")
    done = purge_all(root)
    assert os.listdir(root / "Trash") == ["b"]
    assert (done.entries, done.left, done.failing) == (2, 1, ["b"])


def test_an_entry_that_will_not_go_is_tried_ever_more_rarely(root, monkeypatch):
    (root / "Trash" / "b").mkdir()
    (root / "Trash" / "b" / "file").write_text("x")
    tries = hold(monkeypatch, root / "Trash" / "b")
    clock, backoff = Clock(), Backoff()
    tried_at = []
    for _ in range(20):
        before = len(tries)
        purge.purge(root, backoff=backoff, now=clock)
        if len(tries) > before:
            tried_at.append(clock.now - 1000)
        clock.now += 1
    assert tried_at == [0, 2, 6, 14]


def test_an_entry_that_was_in_use_goes_once_it_is_free(root, monkeypatch):
    (root / "Trash" / "b").mkdir()
    (root / "Trash" / "b" / "file").write_text("x")
    clock, backoff = Clock(), Backoff()
    with monkeypatch.context() as patch:
        hold(patch, root / "Trash" / "b")
        purge.purge(root, backoff=backoff, now=clock)
    clock.now += 10
    assert purge.purge(root, backoff=backoff, now=clock).entries == 1
    assert backoff == Backoff()


def hold(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """Let nothing in ``folder`` be removed, as Windows does while a program has it open; return the tries."""
    tries: list[str] = []
    unlink = os.unlink

    def held(path: str, *, dir_fd: int | None = None) -> None:
        place = path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        if Path(place).is_relative_to(folder):
            tries.append(place)
            in_use()
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", held)
    return tries


def test_a_tree_too_deep_for_recursion_goes(root):
    deep = root / "Trash" / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    handles = len(os.listdir("/proc/self/fd"))
    assert purge_all(root).things == 3001
    assert len(os.listdir("/proc/self/fd")) == handles


def test_a_folder_without_end_is_listed_piece_by_piece(root, monkeypatch):
    monkeypatch.setattr(tree, "_LISTED", 10)
    (root / "Trash" / "full").mkdir()
    for number in range(35):
        (root / "Trash" / "full" / f"{number}").touch()
    assert purge_all(root).things == 36
    assert os.listdir(root / "Trash") == []


def test_a_folder_that_becomes_a_link_while_it_is_removed_is_not_followed(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").touch()
    entry = root / "Trash" / "entry"
    for name in ("a", "b"):
        (entry / name).mkdir(parents=True)
        (entry / name / "file").touch()
    removing = tree.removing(entry)
    first = Path(next(removing)).parent  # its folder is open now, the other one was looked at
    other = entry / ("a" if first.name == "b" else "b")
    other.rename(entry / "aside")
    other.symlink_to(outside)
    with pytest.raises(OSError, match=r"."):
        list(removing)
    purge_all(root)
    assert os.listdir(root / "Trash") == []
    assert (outside / "kept").exists()


def test_removing_nothing_is_done(tmp_path):
    tree.remove(tmp_path / "nothing")
