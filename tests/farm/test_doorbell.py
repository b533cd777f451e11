"""The doorbell with a broker that is gone, deaf, or there."""

from __future__ import annotations

import socket
import time

import pytest
from celery import Celery

from bitten_portal.celery import app as portal
from farm import doorbell
from farm.agent import protocol


@pytest.fixture
def broker(monkeypatch):
    """Point the doorbell at a broker of the test's own."""

    def at(url):
        app = Celery("test", broker=url, set_as_current=False)
        app.conf.task_publish_retry = False
        monkeypatch.setattr(doorbell, "current_app", app)
        monkeypatch.setattr(doorbell, "_quiet_until", 0.0)
        doorbell._connection.cache_clear()
        return app

    yield at
    doorbell._connection.cache_clear()


@pytest.fixture
def deaf():
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_broker_that_refuses_costs_a_ring_and_nothing_else(broker):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    broker(f"redis://127.0.0.1:{port}/0")
    assert doorbell.ring(doorbell.DISPATCH, 1) is False


def test_a_broker_that_accepts_and_never_answers_is_waited_for_about_a_second(broker, deaf):
    broker(f"redis://127.0.0.1:{deaf}/0")
    began = time.monotonic()
    assert doorbell.ring(doorbell.DISPATCH, 1) is False
    assert time.monotonic() - began < 2.5


def test_after_a_failure_the_broker_is_left_in_peace_for_a_while(broker, deaf, monkeypatch):
    broker(f"redis://127.0.0.1:{deaf}/0")
    doorbell.ring(doorbell.DISPATCH, 1)
    began = time.monotonic()
    assert doorbell.ring(doorbell.DISPATCH, 1) is False
    assert time.monotonic() - began < 0.1
    broker("memory://")
    assert doorbell.ring(doorbell.DISPATCH, 1) is True


def test_a_ring_reaches_the_queue_that_it_was_meant_for(broker):
    app = broker("memory://")
    assert doorbell.ring(protocol.OBEY_TASK, {"body": "x"}, queue="host.alpha")
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("host.alpha").get(timeout=1)
    assert message.headers["task"] == protocol.OBEY_TASK
    assert message.payload[0] == [{"body": "x"}]
    message.ack()


def test_every_task_that_is_rung_for_by_name_is_registered():
    portal.loader.import_default_modules()
    assert set(doorbell.TASKS) <= portal.tasks.keys()
