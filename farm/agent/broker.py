"""The agent's three ways to the broker: orders in, everything it says out, and leases in.

A host's login may read its own two queues and push into three others, and nothing more. So nothing is declared there:
queues are lists that come and go by themselves. Nor is a copy kept of what is taken: kombu puts copies back by a script
that no host may run. What a killed worker had taken, the portal orders again.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Connection, Exchange, Queue

from farm.agent import protocol
from farm.agent.protocol import Envelope
from farm.agent.settings import Settings

PUBLISH_SECONDS = 2.0
"""So long the broker may take to answer, before the outbox tries again later."""

_COMMON = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "result_backend": None,
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "worker_enable_remote_control": False,
    "worker_prefetch_multiplier": 1,
    "task_acks_late": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_pool_limit": 1,
}
_READING = {
    "socket_connect_timeout": 5.0,
    "socket_timeout": 15.0,
    "socket_keepalive": True,
    "ack_emulation": False,
    "priority_steps": [0, 9],  # the portal's two for orders (farm.doorbell); each is a list, and so a key to allow
}


def consumer(settings: Settings) -> Celery:
    """The app that reads this host's orders."""
    queue = protocol.host_queue(settings.host)
    app = _app(settings, "farm.agent")
    app.conf.update(
        _COMMON,
        task_default_queue=queue,
        task_queues=[_undeclared(queue)],
        broker_transport_options=_READING,
    )
    return app


def publisher(settings: Settings) -> Celery:
    """The app that sends what this host says."""
    app = _app(settings, "farm.agent.outbox")
    app.conf.update(
        _COMMON,
        broker_transport_options={
            "socket_connect_timeout": PUBLISH_SECONDS,
            "socket_timeout": PUBLISH_SECONDS,
            "retry_on_timeout": False,
            "max_retries": 1,
            "interval_start": 0,
            "priority_steps": [0],
        },
        broker_connection_timeout=PUBLISH_SECONDS,
    )
    return app


def publish(app: Celery, task: str, envelope: Envelope, queue: str) -> None:
    """Put ``envelope`` into ``queue``, for ``task`` or, if that is empty, as a plain message. Declares nothing.

    Raises whatever the broker's client raises.
    """
    if task:
        app.send_task(task, args=[envelope], queue=queue, declare=[], ignore_result=True, retry=False)
        return
    with app.producer_or_acquire() as producer:
        producer.publish(envelope, exchange="", routing_key=queue, serializer="json", declare=[], retry=False)


def lease_connection(settings: Settings) -> Connection:
    """A connection for reading this host's leases, not open yet."""
    options = {**_READING, "priority_steps": [0]}
    return Connection(settings.broker_url, ssl=_ssl(settings), transport_options=options, connect_timeout=5.0)


def lease_queue(settings: Settings) -> Queue:
    return _undeclared(protocol.lease_queue(settings.host))


def _app(settings: Settings, name: str) -> Celery:
    # fixups: without this, a DJANGO_SETTINGS_MODULE in the environment would pull Django into the agent.
    app = Celery(name, broker=settings.broker_url, set_as_current=False, fixups=[])
    app.conf.broker_url = settings.broker_url
    app.conf.broker_use_ssl = _ssl(settings)
    return app


def _undeclared(name: str) -> Queue:
    return Queue(name, Exchange("", type="direct"), routing_key=name, no_declare=True)


def _ssl(settings: Settings) -> dict[str, Any] | None:
    """What a ``rediss://`` without options asks of the broker's certificate: kombu by itself takes any."""
    return {"ssl_cert_reqs": "required"} if settings.broker_url.startswith("rediss:") else None
