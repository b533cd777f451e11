"""One question, one answer; and whoever cannot prove that he may ask, or answer, is not heard."""

from __future__ import annotations

import json
import socket
import stat
import threading
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

from farm.agent import intercom
from farm.agent.intercom import Unanswered


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose path is longer than any socket's may be."""
    folder = tmp_path / ("a long name " * 10) / "State"
    folder.mkdir(parents=True)
    assert len(str(folder)) > 108
    return folder


@pytest.fixture
def heard(place: Path) -> list[dict[str, Any]]:
    """What the watchdog was asked; it answers with how much that is."""
    said: list[dict[str, Any]] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        said.append(question)
        return {"heard": len(said)}

    intercom.serve(place, answer)
    return said


def test_nobody_there_is_a_typed_error(place: Path):
    with pytest.raises(Unanswered):
        intercom.ask(place, {"do": "x"}, seconds=1)


def test_a_question_is_answered_however_long_the_path(place: Path, heard: list[dict[str, Any]]):
    assert intercom.ask(place, {"do": "x"}, seconds=5) == {"heard": 1}
    assert intercom.ask(place, {"do": "y"}, seconds=5) == {"heard": 2}
    assert heard == [{"do": "x"}, {"do": "y"}]


def test_only_the_agents_user_may_read_the_key_or_call(place: Path, heard: list[dict[str, Any]]):
    for name in ("watchdog.key", "watchdog.sock"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600


def test_who_does_not_know_the_secret_is_not_heard(place: Path, heard: list[dict[str, Any]]):
    path = place / "watchdog.key"
    known = json.loads(path.read_bytes())
    path.write_text(json.dumps({**known, "secret": "00" * 32}))
    with pytest.raises(Unanswered):
        intercom.ask(place, {"do": "x"}, seconds=5)
    assert heard == []


def test_a_proof_that_was_overheard_is_good_for_one_call_only(place: Path, heard: list[dict[str, Any]]):
    key = intercom._read(place / "watchdog.key")
    with intercom._reachable(place, key.address) as address:
        first, second = connection.Client(address), connection.Client(address)
    with first, second:
        nonce, _ = first.recv_bytes(), second.recv_bytes()
        proof = key.seal("agent", nonce, b"{}")
        intercom._send(second, proof, b"", b"{}")
        with pytest.raises(EOFError):
            second.recv_bytes()
    assert heard == []


@pytest.mark.parametrize("said", [b"", b"null", b"[]", b"{}", b"[" * 5000, b"\xff", b"x" * 20_000])
def test_nonsense_is_not_heard_and_the_next_call_is(place: Path, heard: list[dict[str, Any]], said: bytes):
    key = intercom._read(place / "watchdog.key")
    with intercom._reachable(place, key.address) as address, connection.Client(address) as caller:
        caller.recv_bytes()
        with suppress(BrokenPipeError):  # hung up on before all of it was said
            caller.send_bytes(said)
        with pytest.raises((EOFError, OSError)):
            caller.recv_bytes()
    assert intercom.ask(place, {"do": "x"}, seconds=5) == {"heard": 1}


def test_one_who_calls_and_says_nothing_holds_nobody_up(place: Path, heard: list[dict[str, Any]]):
    key = intercom._read(place / "watchdog.key")
    with intercom._reachable(place, key.address) as address:
        callers = [connection.Client(address) for _ in range(20)]
    assert intercom.ask(place, {"do": "x"}, seconds=5) == {"heard": 1}
    for caller in callers:
        caller.close()


def test_a_host_without_a_thread_to_spare_loses_one_call_and_not_all_later_ones(
    place: Path, heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:

        def start(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(Unanswered):
            intercom.ask(place, {"do": "x"}, seconds=5)
    assert intercom.ask(place, {"do": "y"}, seconds=5) == {"heard": 1}
    assert heard == [{"do": "y"}]


def test_a_watchdog_that_was_stopped_is_not_waited_for(place: Path):
    (place / "watchdog.key").write_text(json.dumps({"address": "watchdog.sock", "secret": "00" * 32}))
    with intercom._reachable(place, "watchdog.sock") as address, socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(address)
        deaf.listen()
        with pytest.raises(Unanswered):
            intercom.ask(place, {"do": "x"}, seconds=0.2)


def test_an_answer_of_one_who_does_not_know_the_secret_is_none(place: Path):
    (place / "watchdog.key").write_text(json.dumps({"address": "watchdog.sock", "secret": "00" * 32}))

    def lie(listening: socket.socket) -> None:
        with connection.Connection(listening.accept()[0].detach()) as caller:
            caller.send_bytes(bytes(32))
            caller.recv_bytes()
            intercom._send(caller, "0" * 64, b"", b"{}")

    with intercom._reachable(place, "watchdog.sock") as address, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        liar = threading.Thread(target=lie, args=(listening,))
        liar.start()
        with pytest.raises(Unanswered, match="somebody else"):
            intercom.ask(place, {"do": "x"}, seconds=5)
        liar.join()
