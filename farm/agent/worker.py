"""The Celery shell: the host's own queue in, :mod:`orders` in the middle, the outbox out.

Messages are acknowledged early and nothing is kept about results: the portal's row is the truth, and what a killed
worker had not done is told to it again. Threads, not processes, for this runs on Windows too.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any

from farm.agent import broker, errors, locks, orders, protocol
from farm.agent.background import Background
from farm.agent.context import Context
from farm.agent.leasing import Leasing
from farm.agent.outbox import Outbox
from farm.agent.protocol import Envelope, ProtocolError

log = logging.getLogger(__name__)


class Worker:
    """One host's worker: what it consumes, what it says, and what it does of itself."""

    def __init__(self, context: Context) -> None:
        context.settings.need("broker_url", "host", "portal_keys", "terminal_command")
        if context.modes.barred:
            raise errors.TerminalCommand(context.modes.barred)
        self.context = context
        self.app = broker.consumer(context.settings)
        self._publisher = broker.publisher(context.settings)
        self.outbox = Outbox(self._publish, context.keys.sign)
        self.leasing = Leasing(context)
        self.background = Background(context, self.outbox, self.leasing)
        self.app.task(name=protocol.OBEY_TASK)(self.obey)

    def obey(self, envelope: dict[str, Any]) -> None:
        try:
            report = orders.obey(self.context, envelope)
        except ProtocolError as error:
            log.error(
                "refused a message", extra={"event": "refused", "why": type(error).__name__, "detail": str(error)}
            )
            return
        if report is None:
            self.background.expect(orders.opened(self.context, envelope).instance)
        else:
            self.outbox.report(report)

    def run(self, *, concurrency: int = 8) -> None:
        """Serve the queue until SIGTERM or Ctrl-C. Supervision begins at once, whether the broker is there or not."""
        if sys.platform != "win32" and os.geteuid() == 0 and not self.context.settings.terminal_user:
            log.warning("terminals run as root: set FARM_TERMINAL_USER", extra={"event": "user"})
        with locks.alone(self.context.settings.state_folder):
            self._serve(concurrency)

    def _serve(self, concurrency: int) -> None:
        self.background.start()
        try:
            # Not worker_main(): that is Celery's command line, which takes BROKER_URL of the environment for ours.
            self.app.Worker(
                hostname=f"host-{self.context.settings.host}@{socket.gethostname()}",
                pool_cls="threads",
                concurrency=concurrency,
                queues=[protocol.host_queue(self.context.settings.host)],
                without_gossip=True,
                without_mingle=True,
                without_heartbeat=True,
                loglevel="INFO",
                quiet=True,
            ).start()
        finally:
            self.background.stop()

    def _publish(self, task: str, envelope: Envelope, queue: str) -> None:
        broker.publish(self._publisher, task, envelope, queue)
