"""Takes what hosts ask for from the queue `leases`, and sends what farm.leases grants. Two may run.

It needs the broker and the database, and waits for ever for either. Requests are not acknowledged: one that is lost
with this process, or while the database is away, is made again by its host within seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from django import db
from kombu import Connection, Consumer, Message, Producer, Queue

from farm import leases, letterbox
from farm.agent import protocol

MOST_AT_ONCE = 500
WAIT_SECONDS = 1.0
GATHER_SECONDS = 0.01
"""After the first request of a round so long is waited for each further one."""
RETRY_SECONDS = 1.0
SHOWN_EVERY_SECONDS = 10.0
TRANSPORT = {
    "socket_connect_timeout": 5.0,
    "socket_timeout": 5.0,
    "socket_keepalive": True,
    "health_check_interval": 5,
    "ack_emulation": False,  # nothing is put back: neither ours, nor what the portal's workers have taken
}

log = logging.getLogger(__name__)


def keep(url: str, stopping: threading.Event, *, ssl: Mapping[str, Any] | None = None) -> None:
    """Grant what is asked for until ``stopping``. Broker or database gone: tried again for ever."""
    while not stopping.is_set():
        try:
            with _connected(url, ssl) as connection:
                _Round(connection).serve(stopping)
        except Exception as error:  # the edge: kombu, redis, the socket and the database each raise their own
            log.warning("no leases can be granted", extra={"error": type(error).__name__})
            db.connections.close_all()
            stopping.wait(RETRY_SECONDS)


def _connected(url: str, ssl: Mapping[str, Any] | None) -> Connection:
    reading = letterbox.Transport if url.startswith(("redis://", "rediss://")) else None
    return Connection(url, ssl=ssl, connect_timeout=5.0, transport=reading, transport_options=TRANSPORT)


class _Round:
    """What is kept between one round and the next, while one connection to the broker lasts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox: list[Message] = []
        self._again: list[Mapping[str, Any]] = []
        self._shown_at = float("-inf")

    def serve(self, stopping: threading.Event) -> None:
        queue = Queue(protocol.LEASES_QUEUE, no_declare=True)
        producer = Producer(self._connection, auto_declare=False)
        with Consumer(self._connection, [queue], no_ack=True, accept=["json"], on_message=self._inbox.append):
            log.info("leases are granted")
            while not stopping.is_set():
                self._gather()
                granted = leases.grant([*self._again, *self._taken()])
                self._again = granted.busy
                _send(producer, granted.letters)
                self._show_life()

    def _gather(self) -> None:
        """Wait for a request, and take what comes right behind it."""
        wait = WAIT_SECONDS
        with suppress(TimeoutError):
            while len(self._inbox) < MOST_AT_ONCE:
                self._connection.drain_events(timeout=wait)
                wait = GATHER_SECONDS

    def _taken(self) -> list[Any]:
        taken = [message.payload for message in self._inbox]
        self._inbox.clear()
        return taken

    def _show_life(self) -> None:
        if time.monotonic() - self._shown_at >= SHOWN_EVERY_SECONDS:
            leases.show_life()
            self._shown_at = time.monotonic()


def _send(producer: Producer, letters: Iterable[leases.Letter]) -> None:
    for letter in letters:
        producer.publish(letter.envelope, exchange="", routing_key=letter.queue, serializer="json", retry=False)
