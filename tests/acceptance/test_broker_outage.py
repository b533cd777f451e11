"""A broker that goes away while the portal's workers are busy, and comes back: they take what is in it again.

Celery's workers live on after that and may never consume again, once a thread has met the dead connection while it
acknowledged. Only real processes show it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from celery import Celery

from bitten_portal.stack import Stack
from farm import doorbell
from farm.agent import protocol
from tests.waiting import until

pytestmark = pytest.mark.acceptance

SETTINGS = {"MASTER_MB": "2", "MASTER_FILES": "150", "ACCOUNTS": "3", "FARM_POOL": "0", "FARM_SURVEY_SECONDS": "1"}
RINGS = 600
"""So many that some are under way whenever the broker goes."""


@pytest.fixture
def stack(tmp_path) -> Iterator[Stack]:
    with Stack(data_dir=tmp_path / "var", env=SETTINGS) as up:
        yield up


def left(stack: Stack) -> int:
    """How much lies in the queues of the portal's workers; 0 only if they take it out."""
    with redis.Redis.from_url(stack.broker_url) as broker:
        return sum(broker.llen(queue) for queue in ("portal", protocol.REPORTS_QUEUE, protocol.SURVEYS_QUEUE))


def fill(stack: Stack) -> None:
    app = Celery(broker=stack.broker_url, set_as_current=False)
    with app.producer_or_acquire() as producer:
        for _ in range(RINGS):
            app.send_task(doorbell.SWEEP, queue="portal", producer=producer)
            app.send_task(protocol.SURVEY_TASK, args=[{}], queue=protocol.SURVEYS_QUEUE, producer=producer)


def test_workers_that_were_busy_when_the_broker_went_away_take_up_their_work_again(stack) -> None:
    for _ in range(2):
        fill(stack)
        until(lambda: left(stack) < 2 * RINGS, seconds=20)
        assert left(stack) > 0, "they had nothing under way"
        stack.kill("broker")
        until(lambda: not stack.processes["broker"].alive)
        stack.start("broker")
        until(lambda: is_up(stack), seconds=20)
        until(lambda: left(stack) == 0, seconds=90, every=0.2)


def is_up(stack: Stack) -> bool:
    try:
        left(stack)
    except redis.RedisError:
        return False
    return True
