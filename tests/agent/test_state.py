"""The host's memory of its instances: refusals first, then what must survive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from farm.agent import locks, state
from farm.agent.errors import TooSlow
from farm.agent.protocol import Order, Reason, Verb
from farm.agent.state import Goal, Launch, Memory, State
from tests.waiting import until


def an_order(**changes) -> Order:
    fields = {
        "verb": Verb.INJECT, "host": "alpha", "instance": 17, "epoch": 1, "generation": 4, "issued_at": 1.0,
        "folder": "user_9", "port": 9042, "magic": 700000017, "kind": "live", "server": "S", "login": 500,
        "sealed": "eA==",
    }  # fmt: skip
    return Order(**{**fields, **changes})


def test_a_state_that_cannot_be_read_stops_every_order_instead_of_being_taken_for_a_new_instance(tmp_path: Path):
    (tmp_path / "17.json").write_text("{half", encoding="utf-8")
    with pytest.raises(state.StateUnreadable):
        state.load(tmp_path, 17)


def test_one_unreadable_state_does_not_hide_the_others(tmp_path: Path):
    state.save(tmp_path, State(instance=18, folder="user_10"))
    (tmp_path / "17.json").write_text("[]", encoding="utf-8")
    assert [found.instance for found in Memory(tmp_path).every()] == [18]


@pytest.mark.parametrize("content", ["", "{half", "[]", "null", '{"instance":18,"folder":"user_9"}', "\0" * 400])
def test_a_state_that_a_power_cut_spoilt_is_the_one_before_its_last_change(tmp_path: Path, content: str):
    for generation in (1, 2, 3):
        state.save(tmp_path, State(instance=17, folder="user_9", generation=generation))
    (tmp_path / "17.json").write_text(content, encoding="utf-8")
    found = state.load(tmp_path, 17)
    assert found is not None
    assert found.generation == 2
    assert [known.generation for known in Memory(tmp_path).every()] == [2]


def test_a_state_that_a_power_cut_took_away_is_not_taken_for_a_new_instance(tmp_path: Path):
    for generation in (1, 2):
        state.save(tmp_path, State(instance=17, folder="user_9", generation=generation))
    (tmp_path / "17.json").unlink()
    found = state.load(tmp_path, 17)
    assert found is not None
    assert found.generation == 1


def test_a_spoilt_state_is_put_aside_and_written_anew(tmp_path: Path):
    for generation in (1, 2):
        state.save(tmp_path, State(instance=17, folder="user_9", generation=generation))
    (tmp_path / "17.json").write_text("", encoding="utf-8")
    state.mend(tmp_path, now=1700000000.0)
    (tmp_path / "17.before").unlink(missing_ok=True)
    found = state.load(tmp_path, 17)
    assert found is not None
    assert found.generation == 1
    assert (tmp_path / "17.unreadable-1700000000").exists()


def test_a_state_that_is_lost_altogether_stays_where_it_is_and_is_told(tmp_path: Path):
    (tmp_path / "17.json").write_text("", encoding="utf-8")
    state.mend(tmp_path, now=1700000000.0)
    memory = Memory(tmp_path)
    assert memory.every() == []
    assert memory.lost() == ["State/17.json cannot be read"]


def test_a_tombstone_keeps_nothing_from_before(tmp_path: Path):
    found = State(instance=17, folder="user_9", injected=an_order().__dict__ | {})
    state.save(tmp_path, found)
    state.save(tmp_path, found)
    found.bury(at=5.0)
    state.save(tmp_path, found)
    assert not (tmp_path / "17.before").exists()


def test_a_farm_has_one_worker(tmp_path: Path):
    with locks.alone(tmp_path), pytest.raises(locks.AnotherWorker), locks.alone(tmp_path, seconds=0.05):
        raise AssertionError("two workers")
    with locks.alone(tmp_path, seconds=0.05):
        assert True


def test_an_instance_never_heard_of_has_no_state(tmp_path: Path):
    assert state.load(tmp_path / "absent", 17) is None
    assert Memory(tmp_path / "absent").every() == []


def test_everything_written_is_read_again(tmp_path: Path):
    order = an_order()
    written = State(
        instance=17, folder="user_9", epoch=1, generation=4, verb="start", goal=Goal.RUNNING, built="built", digest="d",
        injected=order.__dict__ | {}, run=order.__dict__ | {}, crashes=[1.0], reason=Reason.CRASH_LOOP, answer="{}",
        launch=Launch(pid=1, created=2.0, started_at=3.0, account="1@S", journal={"offset": 4}),
    )  # fmt: skip
    state.save(tmp_path, written)
    assert state.load(tmp_path, 17) == written
    assert written.inject_order() == order


def test_a_state_is_private_and_leaves_no_temporary_file(tmp_path: Path):
    state.save(tmp_path, State(instance=17, folder="user_9"))
    assert [path.name for path in tmp_path.iterdir()] == ["17.json"]
    if sys.platform != "win32":
        assert (tmp_path / "17.json").stat().st_mode & 0o077 == 0


def test_a_buried_instance_keeps_its_age_and_nothing_of_its_account(tmp_path: Path):
    found = State(instance=17, folder="user_9", epoch=2, generation=9, injected=an_order().__dict__ | {})
    found.bury(at=5.0)
    state.save(tmp_path, found)
    text = (tmp_path / "17.json").read_text(encoding="utf-8")
    assert "sealed" not in text
    assert json.loads(text)["generation"] == 9
    assert state.load(tmp_path, 17).tombstone


def test_memory_sees_a_change_by_another_process(tmp_path: Path):
    memory = Memory(tmp_path)
    state.save(tmp_path, State(instance=17, folder="user_9"))
    assert memory.every()[0].generation == 0
    state.save(tmp_path, State(instance=17, folder="user_9", generation=5))
    assert memory.every()[0].generation == 5


def test_a_second_thread_waits_until_the_lock_is_free(tmp_path: Path):
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with locks.held(tmp_path, 17):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locks.held(tmp_path, 17):
        inside.set()
        thread.join(timeout=0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_that_is_never_let_go_is_a_typed_error(tmp_path: Path):
    with locks.held(tmp_path, 17), pytest.raises(TooSlow), locks.held(tmp_path, 17, seconds=0.05):
        raise AssertionError("two holders")


def test_locks_of_two_instances_do_not_meet(tmp_path: Path):
    with locks.held(tmp_path, 17), locks.held(tmp_path, 18, seconds=0.05):
        assert True


HOLD = """
import sys, time
from pathlib import Path
from farm.agent import locks
with locks.held(Path(sys.argv[1]), 17):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_kept_out_and_its_death_lets_go(tmp_path: Path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(TooSlow), locks.held(tmp_path, 17, seconds=0.05):
            raise AssertionError("two holders")
        other.kill()
        other.wait()
        with locks.held(tmp_path, 17, seconds=5):
            assert True
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_a_forgotten_instance_leaves_nothing_and_its_lock_still_works(tmp_path: Path):
    state.save(tmp_path, State(instance=17, folder="user_9"))
    with locks.held(tmp_path, 17):
        state.forget(tmp_path, 17)
    with locks.held(tmp_path, 17, seconds=1):
        assert state.load(tmp_path, 17) is None


def test_only_old_temporary_files_are_leftovers(tmp_path: Path):
    old, new = tmp_path / ".17.tmp", tmp_path / ".18.tmp"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    assert state.leftovers(tmp_path, older_than_seconds=60, now=new.stat().st_mtime) == [old]
    assert until(new.exists)
