"""A way of reading the broker by which nothing but an envelope comes in, whoever may write into the queue.

What lies in a queue of hosts was put there by a host, or by whoever has its login. A Celery message says much more than
what it carries: the name of a task, what to run after it, when, and for how long; and one that is no message at all
ends the worker that reads it. So nothing of it is believed. The envelope is taken out, and a message of our own is
made around it, for the one task that its queue is for. What held none becomes a message with no envelope, which is
refused and noted like every other forged one.
"""

from __future__ import annotations

import base64
import json
import logging
import uuid
from queue import Empty
from typing import Any

from kombu.transport import redis

from farm.agent import protocol

TASKS = {protocol.REPORTS_QUEUE: protocol.RECORD_TASK, protocol.SURVEYS_QUEUE: protocol.SURVEY_TASK}
"""What is in any other queue is an envelope and nothing around it."""

log = logging.getLogger(__name__)


def plain(raw: Any, queue: str) -> dict[str, Any]:
    """A message as kombu puts it into Redis, made anew around the envelope that ``raw`` carries."""
    task = TASKS.get(queue)
    envelope = _envelope(raw, task)
    number = str(uuid.uuid4())
    body = [[envelope], {}, {}] if task else envelope
    return {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": task, "id": number, "root_id": number} if task else {},
        "properties": {
            "body_encoding": "base64",
            "correlation_id": number,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "delivery_mode": 2,
            "delivery_tag": number,
            "priority": 0,
        },
    }


def _envelope(raw: Any, task: str | None) -> Any:
    """What ``raw`` carries; None if it is not a message for ``task``."""
    try:
        body = raw["body"]
        if raw["properties"]["body_encoding"] == "base64":
            body = base64.b64decode(body)
        found = json.loads(body)
        if task is None:
            return found
        if raw["headers"]["task"] != task:
            return None
        [envelope], _, _ = found
        return envelope
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return None


class Channel(redis.Channel):  # type: ignore[misc]  # kombu has no types
    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (Empty, *self.connection.connection_errors, *self.connection.channel_errors):
            raise
        except Exception as error:  # whatever its JSON decoder raises: it must not end who took it
            log.warning("what was taken from the broker cannot be read", extra={"error": type(error).__name__})
            for queue in list(self.active_queues)[:1]:
                self.connection._deliver(None, queue)
            return True


class Transport(redis.Transport):  # type: ignore[misc]
    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        super()._deliver(plain(message, queue), queue)
