"""What the host has to say, kept until the broker takes it. Saying it never waits for a broker.

Reports go out in order. Of surveys and requests for a lease only the newest is kept: an old one is of no use to
anybody. A request goes before all else, for it is worth less every second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from nacl.signing import SigningKey

from farm.agent import protocol
from farm.agent.protocol import Envelope, LeaseRequest, Report, Survey

log = logging.getLogger(__name__)

MOST_REPORTS = 10_000
RETRY_SECONDS = 1.0

Publish = Callable[[str, Envelope, str], None]
"""Put an envelope for a task ("": for none) into a queue; raise whatever the broker's client raises."""

Said = Report | Survey | LeaseRequest
ROUTES: dict[type[Said], tuple[str, str]] = {
    Report: (protocol.RECORD_TASK, protocol.REPORTS_QUEUE),
    Survey: (protocol.SURVEY_TASK, protocol.SURVEYS_QUEUE),
    LeaseRequest: ("", protocol.LEASES_QUEUE),
}
"""By what it is: the task it is for, and its queue."""


@dataclass
class Outbox:
    publish: Publish
    key: SigningKey = field(repr=False)
    _reports: deque[Report] = field(default_factory=lambda: deque(maxlen=MOST_REPORTS))
    _survey: Survey | None = None
    _request: LeaseRequest | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def report(self, report: Report) -> None:
        """Send ``report`` as soon as that can be. Lost with this process, it is made anew when asked again."""
        with self._changed:
            self._reports.append(report)
            self._changed.notify()

    def survey(self, survey: Survey) -> None:
        with self._changed:
            self._survey = survey
            self._changed.notify()

    def request(self, request: LeaseRequest) -> None:
        with self._changed:
            self._request = request
            self._changed.notify()

    def serve(self, stopping: threading.Event) -> None:
        """Send what is to be sent until ``stopping``; for a thread of its own."""
        while not stopping.is_set():
            with self._changed:
                if self._next() is None:
                    self._changed.wait(0.5)
            if not self.flush():
                stopping.wait(RETRY_SECONDS)

    def flush(self, *, seconds: float | None = None) -> bool:
        """Send all there is; False if the broker did not take something, which is then still there."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            with self._changed:
                message = self._next()
            if message is None:
                return True
            if not self._sent(message):
                return False
            self._forget(message)
        return False

    def _next(self) -> Said | None:
        return self._request or (self._reports[0] if self._reports else self._survey)

    def _forget(self, message: Said) -> None:
        with self._changed:
            if self._survey is message:
                self._survey = None
            elif self._request is message:
                self._request = None
            elif self._reports and self._reports[0] is message:
                self._reports.popleft()

    def _sent(self, message: Said) -> bool:
        task, queue = ROUTES[type(message)]
        try:
            self.publish(task, protocol.sign(message, self.key), queue)
        except Exception as error:  # the edge: kombu, redis and the socket each raise their own
            log.warning(
                "broker did not take it", extra={"event": "publish", "queue": queue, "why": type(error).__name__}
            )
            return False
        return True
