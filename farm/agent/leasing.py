"""Asking for leases, and taking those that are granted: with every survey one request, and a thread that listens.

What a grant is worth is counted from when its request was made (farm.agent.lease), so each request's moment is kept
until a hundred later ones were made. A grant that answers none of them is refused, whoever signed it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kombu import Consumer

from farm.agent import broker, protocol, watchdog
from farm.agent.context import Context
from farm.agent.errors import AgentError
from farm.agent.lease import Lease, Moment
from farm.agent.protocol import LeaseGrant, LeaseRequest, ProtocolError

log = logging.getLogger(__name__)

REMEMBERED = 100
LISTEN_SECONDS = 1.0
RETRY_SECONDS = 1.0


class Leasing:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked: OrderedDict[str, Moment] = OrderedDict()
        self._lock = threading.Lock()
        self._hears = True

    # --- asking -------------------------------------------------------------------------------------------------------

    def request(self, nonce: str) -> LeaseRequest | None:
        """Return what to ask with the survey of that nonce; None if this host may not, or need not."""
        context = self._context
        if not context.fence.is_on or not context.fence.watchdog_ok():
            return None
        now = context.moment()
        with self._lock:
            self._asked[nonce] = now
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
        return LeaseRequest(
            host=context.settings.host,
            nonce=nonce,
            boot_id=now.boot_id,
            sent_at=now.wall,
            # The watchdog may have been started with other settings than this process, and nobody restarted it.
            stop_seconds=max(watchdog.stop_seconds(context.settings), context.fence.watchdog_stops_within()),
        )

    # --- taking -------------------------------------------------------------------------------------------------------

    def granted(self, envelope: Mapping[str, Any]) -> Lease:
        """Take the lease in ``envelope`` and return it.

        Raises :class:`ProtocolError`, having done nothing, unless the portal granted it to this host, in this boot, for
        a request of this agent; :class:`AgentError` if the disk will not have it.
        """
        settings = self._context.settings
        grant = LeaseGrant.parse(protocol.opened(envelope, settings.portal_keys))
        if grant.host != settings.host:
            raise protocol.Forged("a lease for another host")
        with self._lock:
            sent = self._asked.get(grant.nonce)
        if sent is None:
            raise protocol.Malformed("a lease that nobody asked for, or that was asked for long ago")
        if not grant.boot_id == sent.boot_id == self._context.moment().boot_id:
            raise protocol.Malformed("a lease of another boot")
        lease = Lease(nonce=grant.nonce, seconds=grant.seconds, sent=sent)
        self._context.fence.take(lease)
        return lease

    def serve(self, stopping: threading.Event) -> None:
        """Listen for grants until ``stopping``; for a thread of its own. A broker that is gone is waited for."""
        while not stopping.is_set():
            try:
                self._listen(stopping)
            except Exception as error:  # the edge: kombu, redis and the socket each raise their own
                if self._hears:
                    log.warning("no leases are heard", extra={"event": "lease", "why": type(error).__name__})
                self._hears = False
                stopping.wait(RETRY_SECONDS)

    def _listen(self, stopping: threading.Event) -> None:
        settings = self._context.settings
        with broker.lease_connection(settings) as connection, self._consumer(connection.channel()):
            self._hears = True
            while not stopping.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=LISTEN_SECONDS)

    def _consumer(self, channel: Any) -> Consumer:
        """A lease that is lost on the way is asked for again: nothing is acknowledged, and nothing kept for that."""
        queue = broker.lease_queue(self._context.settings)
        return Consumer(
            channel, [queue], accept=["json"], no_ack=True, callbacks=[self._take], on_decode_error=_not_ours
        )

    def _take(self, body: Any, message: object) -> None:
        try:
            lease = self.granted(body)
        except ProtocolError as error:
            log.error("refused a lease", extra={"event": "refused", "why": type(error).__name__, "detail": str(error)})
        except AgentError as error:
            log.error("a lease was not kept", extra={"event": "lease", "detail": error.detail})
        else:
            log.debug("a lease", extra={"event": "lease", "seconds": lease.seconds})


def _not_ours(message: object, error: Exception) -> None:
    log.error("refused a lease", extra={"event": "refused", "why": type(error).__name__})
