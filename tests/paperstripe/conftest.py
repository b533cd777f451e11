"""Paper Stripe as a real process, spoken to by the real SDK, and a receiver of its webhooks."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import requests
import stripe

from tests.waiting import until

PROGRAM = Path(__file__).parents[2] / "presspass/paper/stripe.py"
SECRET = "whsec_of_the_tests"


class Inbox(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.server.received.append((payload, self.headers["Stripe-Signature"], status))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Receiver(ThreadingHTTPServer):
    """Where webhooks arrive. ``statuses`` are its next answers; after them it says 200."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Inbox)
        self.received: list[tuple[bytes, str, int]] = []
        self.statuses: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/stripe/webhook/"

    def events(self, kind: str = "") -> list[stripe.Event]:
        """What arrived, each with its signature verified by the SDK."""
        every = [stripe.Webhook.construct_event(payload, signed, SECRET) for payload, signed, _ in list(self.received)]
        return [event for event in every if kind in ("", event.type)]

    def kinds(self) -> list[str]:
        return [event.type for event in self.events()]


@dataclass
class Page:
    status: int
    text: str
    location: str | None


@dataclass
class Paper:
    """One paper Stripe and the means to speak to it."""

    data: Path
    webhook: str
    log: Path
    url: str = ""
    process: subprocess.Popen[bytes] | None = None
    sessions: list[requests.Session] = field(default_factory=list)

    def start(self, *more: str) -> None:
        arguments = ["--port", "0", "--data", str(self.data), "--webhook", self.webhook, "--secret", SECRET, *more]
        out = self.log.with_suffix(".out")
        with out.open("wb") as said, self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, str(PROGRAM), *arguments], stdout=said, stderr=log)
        process = self.process
        until(lambda: out.read_text().endswith("\n") or process.poll() is not None, seconds=20)
        self.url = out.read_text().removeprefix("paper stripe on ").strip()

    def stop(self) -> int:
        for session in self.sessions:
            session.close()
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def client(self, key: str = "sk_test_of_the_tests", *, retries: int = 0) -> stripe.StripeClient:
        self.sessions.append(requests.Session())
        sender = stripe.RequestsClient(session=self.sessions[-1])
        return stripe.StripeClient(
            key, base_addresses={"api": self.url}, http_client=sender, max_network_retries=retries
        )

    def page(self, path: str, form: dict[str, str] | None = None) -> Page:
        """As a browser without scripts would ask; a redirect is not followed."""
        there = urlsplit(path if path.startswith("http") else self.url + path)
        line = http.client.HTTPConnection("127.0.0.1", there.port, timeout=20)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        way = there.path + (f"?{there.query}" if there.query else "")
        line.request("POST" if form else "GET", way, urlencode(form) if form else None, headers)
        answer = line.getresponse()
        shown = Page(answer.status, answer.read().decode(), answer.headers["Location"])
        line.close()
        return shown

    def knob(self, path: str, **given: Any) -> dict[str, Any]:
        line = http.client.HTTPConnection("127.0.0.1", urlsplit(self.url).port, timeout=20)
        line.request("POST", f"/_paper/{path}", json.dumps(given), {"Content-Type": "application/json"})
        answer = line.getresponse()
        body: dict[str, Any] = json.loads(answer.read())
        line.close()
        assert answer.status == 200, body
        return body

    def deliveries(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.page("/_paper/deliveries").text)
        return body


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def paper(tmp_path: Path, receiver: Receiver) -> Iterator[Paper]:
    one = Paper(tmp_path / "stripe.json", receiver.url, tmp_path / "stripe.log")
    one.start()
    yield one
    one.stop()


@pytest.fixture
def client(paper: Paper) -> stripe.StripeClient:
    return paper.client()
