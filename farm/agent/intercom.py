"""How the agent speaks to the watchdog on the same host: one question, one answer, over a local socket or pipe.

JSON, never pickle. ``State/watchdog.key`` (0600, new with each watchdog) says where, and holds the secret by which each
proves to the other that it may read that file; the secret itself is never sent. Nothing here waits without an end: the
other side may be stopped at any point.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeAlias

from farm.agent import tree
from farm.agent.errors import AgentError, typed

log = logging.getLogger(__name__)

KEY, SOCKET = "watchdog.key", "watchdog.sock"
MOST_BYTES = 8192
WAITING = 128
"""So many may have called and not been heard yet."""
HEAR_SECONDS = 2.0
"""So long whoever called may take to say what for."""

Question = dict[str, Any]
Answer = dict[str, Any]
_Line: TypeAlias = "connection.Connection[Any, Any]"


class Unanswered(AgentError):
    """The watchdog did not answer."""


@dataclass(frozen=True)
class _Key:
    address: str
    secret: bytes = field(repr=False)

    def seal(self, side: str, nonce: bytes, body: bytes) -> str:
        return hmac.new(self.secret, b"\0".join((side.encode(), nonce, body)), "sha256").hexdigest()


# --- the watchdog's side ----------------------------------------------------------------------------------------------


def serve(folder: Path, answer: Callable[[Question], Answer]) -> None:
    """Answer every question from now on, each in a thread of its own. Returns at once.

    Raises :class:`farm.agent.errors.FolderTrouble` if the socket or its key cannot be made.
    """
    with typed(f"making State/{SOCKET}"):
        key = _Key(_new_address(folder), secrets.token_bytes(32))
        accept = _opened(folder, key.address)
        _write(folder / KEY, key)
    threading.Thread(target=_listen, args=(accept, key, answer), name="watchdog intercom", daemon=True).start()


def _new_address(folder: Path) -> str:
    if sys.platform == "win32":
        return rf"\\.\pipe\bitten-watchdog-{secrets.token_hex(16)}"
    with suppress(FileNotFoundError):
        (folder / SOCKET).unlink()
    return SOCKET


if sys.platform == "win32":

    def _opened(folder: Path, address: str) -> Callable[[], _Line]:
        return connection.Listener(address).accept

else:

    def _opened(folder: Path, address: str) -> Callable[[], _Line]:
        # Not a Listener: at its process' end that would remove the socket, which may be the next watchdog's by then.
        listening = socket.socket(socket.AF_UNIX)
        with _reachable(folder, address) as path:
            listening.bind(path)
            os.chmod(path, 0o600)
        listening.listen(WAITING)
        return lambda: connection.Connection(listening.accept()[0].detach())


def _write(path: Path, key: _Key) -> None:
    content = json.dumps({"address": key.address, "secret": key.secret.hex()}).encode()
    tree.write(path, content, mode=0o600)


def _listen(accept: Callable[[], _Line], key: _Key, answer: Callable[[Question], Answer]) -> None:
    while True:
        try:
            caller = accept()
        except OSError as error:
            log.warning("nobody can be heard", extra={"event": "intercom", "why": type(error).__name__})
            time.sleep(0.2)
            continue
        try:
            threading.Thread(target=_answer, args=(caller, key, answer), name="watchdog answers", daemon=True).start()
        except RuntimeError:  # no more threads just now: this one asks again, the next must still be heard
            caller.close()
            log.warning("a caller was not heard", extra={"event": "intercom", "why": "no thread can be started"})


def _answer(caller: _Line, key: _Key, answer: Callable[[Question], Answer]) -> None:
    with suppress(OSError, EOFError), caller:
        nonce = secrets.token_bytes(32)
        caller.send_bytes(nonce)
        try:
            proof, theirs, body = _received(caller, HEAR_SECONDS)
            if not hmac.compare_digest(proof, key.seal("agent", nonce, body)):
                raise ValueError("a wrong proof")
            question = json.loads(body)
        except (ValueError, TypeError, KeyError, RecursionError, Unanswered) as error:
            log.warning("a caller was not heard", extra={"event": "intercom", "why": str(error)})
            return
        said = json.dumps(answer(question)).encode()
        _send(caller, key.seal("watchdog", theirs, said), b"", said)


# --- the agent's side -------------------------------------------------------------------------------------------------


def ask(folder: Path, question: Question, *, seconds: float) -> Answer:
    """Return the watchdog's answer; raise :class:`Unanswered` if none, or a stranger's, comes in ``seconds``."""
    end = time.monotonic() + seconds
    try:
        key = _read(folder / KEY)
        with _reachable(folder, key.address) as address:
            called = connection.Client(address)
        with called:
            nonce = _heard(called, end)
            ours, body = secrets.token_bytes(32), json.dumps(question).encode()
            _send(called, key.seal("agent", nonce, body), ours, body)
            proof, _, said = _received(called, end - time.monotonic())
            if not hmac.compare_digest(proof, key.seal("watchdog", ours, said)):
                raise Unanswered("somebody else answered in the watchdog's place")
            return dict(json.loads(said))
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise Unanswered(f"the watchdog did not answer: {type(error).__name__}") from error


def _read(path: Path) -> _Key:
    data = json.loads(path.read_bytes())
    return _Key(str(data["address"]), bytes.fromhex(data["secret"]))


def _heard(called: _Line, end: float) -> bytes:
    if not called.poll(max(0.0, end - time.monotonic())):
        raise Unanswered
    return called.recv_bytes(MOST_BYTES)


# --- both -------------------------------------------------------------------------------------------------------------


@contextmanager
def _reachable(folder: Path, address: str) -> Iterator[str]:
    """The address as the system takes it. A socket's path may have some hundred characters; a farm's folder has more.

    On Linux it is named by way of the open folder, which is always short enough.
    """
    if sys.platform != "linux":
        yield address if sys.platform == "win32" else str(folder / address)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{address}"
    finally:
        os.close(descriptor)


def _send(to: _Line, proof: str, nonce: bytes, body: bytes) -> None:
    to.send_bytes(json.dumps({"proof": proof, "nonce": nonce.hex(), "body": body.decode()}).encode())


def _received(from_: _Line, seconds: float) -> tuple[str, bytes, bytes]:
    if not from_.poll(max(0.0, seconds)):
        raise Unanswered("nothing was said in time")
    data = json.loads(from_.recv_bytes(MOST_BYTES))
    return str(data["proof"]), bytes.fromhex(data["nonce"]), str(data["body"]).encode()
