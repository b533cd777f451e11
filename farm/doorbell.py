"""Rings for work by a task's name. A ring may be lost: the row says what is to be done, and the sweep rings again.

The broker is never waited for longer than a second, and after a failure not asked again for a few: a page must answer
while the broker is down or accepts and says nothing.
"""

from __future__ import annotations

import logging
import time
from functools import cache
from typing import Any

from celery import current_app
from django.db import transaction
from kombu import Connection, pools
from kombu.exceptions import ChannelError

DISPATCH = "farm.dispatch"
ADMIT = "farm.admit"
SWEEP = "farm.sweep"
KEEP = "farm.keep"
DESTROY_ORPHAN = "farm.destroy_orphan"
TASKS = (DISPATCH, ADMIT, SWEEP, KEEP, DESTROY_ORPHAN)

TIMEOUT_SECONDS = 1.0
QUIET_SECONDS = 5.0

log = logging.getLogger(__name__)
_quiet_until = 0.0


@cache
def _connection() -> Connection:
    connection: Connection = current_app.connection_for_write().clone(connect_timeout=TIMEOUT_SECONDS)
    connection.transport_options = {
        **(connection.transport_options or {}),
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "max_retries": 0,
    }
    return connection


def ring(task: str, *args: Any, queue: str | None = None, behind: bool = False) -> bool:
    """Put ``task`` into its queue; False if the broker did not take it. Never raises for a broker that is gone.

    ``behind``: whatever else is in the queue goes first.
    """
    global _quiet_until
    if time.monotonic() < _quiet_until:
        return False
    try:
        with pools.producers[_connection()].acquire(block=True, timeout=TIMEOUT_SECONDS) as producer:
            current_app.send_task(task, args=args, queue=queue, producer=producer, retry=False, priority=9 * behind)
    except Exception as error:  # whatever the broker does, the row stands
        _quiet_until = time.monotonic() + QUIET_SECONDS
        log.warning("the broker did not take a ring", extra={"task": task, "error": type(error).__name__})
        return False
    return True


def answers() -> bool:
    """Whether the broker answers just now, asked anew: a question that it cannot answer without being there."""
    try:
        with pools.connections[_connection()].acquire(block=True, timeout=TIMEOUT_SECONDS) as broker:
            broker.default_channel.queue_declare(current_app.conf.task_default_queue, passive=True)
    except ChannelError:
        return True  # there is no such queue at the moment: that is an answer
    except Exception as error:
        log.warning("the broker does not answer", extra={"error": type(error).__name__})
        return False
    return True


def ring_on_commit(task: str, *args: Any) -> None:
    transaction.on_commit(lambda: ring(task, *args))
