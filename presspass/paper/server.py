"""HTTP: who is let in, what is answered once, and one line of log a request."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import re
import secrets
import sys
import time
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from presspass.paper import keeping, selling  # noqa: F401 - they fill ROUTES
from presspass.paper.billing import happen
from presspass.paper.book import API_VERSION, PATHS, Book, rendered
from presspass.paper.knobs import knob
from presspass.paper.lists import FILTERS, browse
from presspass.paper.pages import NOTE, page, pay_page, portal_of, portal_page, press_pay, press_portal
from presspass.paper.parameters import TEXT, Each, Hash, Json, Moment, Number, Reader, Refusal, nested
from presspass.paper.routes import ROUTES
from presspass.paper.webhooks import release


@dataclass
class Answer:
    status: int
    body: bytes = b""
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False  # close the line without a word


def as_json(status: int, body: Json) -> Answer:
    return Answer(status, json.dumps(body, indent=2).encode())


def admitted(book: Book, authorization: str) -> None:
    key = authorization.removeprefix("Bearer ").strip()
    if not key:
        said = "You did not provide an API key. You need to provide your API key in the Authorization header."
        raise Refusal(said, status=401)
    good = hmac.compare_digest(key.encode(), book.key.encode()) if book.key else key.startswith("sk_test_")
    if not good:
        raise Refusal(f"Invalid API Key provided: {key[:3]}****{key[-4:]}", status=401)


def call(book: Book, method: str, path: str, given: Json) -> Json:
    """One API call: find what it names, read its parameters, do it."""
    for kind, known in PATHS.items():
        name = path.removeprefix(f"/v1/{known}")
        if method == "GET" and name == "":
            page_of: dict[str, Reader] = {"limit": Number(1, 100), "starting_after": TEXT, "ending_before": TEXT,
                                          "created": Moment(), "expand": Each(TEXT)}  # fmt: skip
            return browse(book, kind, Hash({**FILTERS[kind], **page_of}).read(given, ""))
        if method == "GET" and re.fullmatch(r"/[^/]+", name) and name != path:
            expand = Hash({"expand": Each(TEXT)}).read(given, "").get("expand", [])
            return rendered(book, book.get(kind, name[1:]), expand)
    for wanted, pattern, fields, act in ROUTES:
        match = pattern.fullmatch(path)
        if match and method == wanted:
            read = fields.read(given, "")
            expand = read.pop("expand", [])
            return rendered(book, act(book, read, match.groupdict().get("id", "")), expand)
    said = (
        f"Unrecognized request URL ({method}: {path}). Paper Stripe speaks only the part of the API that is used here."
    )
    raise Refusal(said, status=404)


def once(book: Book, path: str, given: Json, key: str) -> Answer:
    """A POST under an idempotency key: done once, and answered again in the same words."""
    if len(key) > 255:
        raise Refusal("Idempotency keys are at most 255 characters.", kind="idempotency_error")
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    kept = book.answers.get(key)
    if kept and (kept["path"], kept["digest"]) != (path, digest):
        what = "with the same parameters" if kept["path"] == path else "for the same endpoint"
        said = f"Keys for idempotent requests can only be used {what} they were first used {what.split()[0]}."
        more = f" Try using a key other than '{key}' if you meant to execute a different request."
        raise Refusal(said + more, kind="idempotency_error")
    if kept:
        answer = Answer(kept["status"], kept["body"].encode(), headers={"Idempotent-Replayed": "true"})
        return answer
    try:
        answer = as_json(200, call(book, "POST", path, given))
    except Refusal as refusal:
        if not refusal.executed:
            raise
        answer = as_json(refusal.status, refusal.body)
    body = answer.body.decode()
    book.answers[key] = {"path": path, "digest": digest, "status": answer.status, "body": body, "at": book.now()}
    book.dirty = True
    return answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer, or the client's kernel waits 40 ms for the rest
    disable_nagle_algorithm = True
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        self.serve()

    do_POST = do_DELETE = do_GET

    def serve(self) -> None:
        started, path = time.monotonic(), urlsplit(self.path).path
        self.request_id = f"req_{secrets.token_hex(8)}"
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = self.answer(path, body)
        except Refusal as refusal:
            answer = as_json(refusal.status, refusal.body)
        except UnicodeDecodeError:
            answer = as_json(400, Refusal("Not UTF-8.").body)
        except Exception:  # a fault of its own is answered as Stripe answers one of Stripe's
            traceback.print_exc()
            answer = as_json(500, Refusal("Paper Stripe has a fault.", kind="api_error").body)
        if not answer.cut:
            self.say(answer)
        else:
            self.close_connection = True
        # The portal's path lets in whoever knows it, and a query may hold anything.
        shown = "/portal/*" if path.startswith("/portal/") else path
        took = (time.monotonic() - started) * 1000
        print(f"{self.command} {shown} {'cut' if answer.cut else answer.status} {took:.0f} ms {self.request_id}",
              file=sys.stderr, flush=True)  # fmt: skip

    def say(self, answer: Answer) -> None:
        self.send_response(answer.status)
        given = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body)), "Request-Id": self.request_id,
                 "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}  # fmt: skip
        for name, value in (given | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def answer(self, path: str, body: bytes) -> Answer:
        if path.startswith("/v1/"):
            return self.api(path, body)
        if path.startswith("/_paper/"):
            return self.knobs(path, body)
        if path.startswith(("/pay/", "/portal/")):
            return self.browser(path, body)
        if path == "/":
            said = "<p>It stands in for Stripe while no key is set. There is nothing to do on this page.</p>"
            return Answer(200, page("Paper Stripe", NOTE + said), "text/html; charset=utf-8")
        return as_json(404, Refusal(f"Unrecognized request URL ({self.command}: {path}).").body)

    def api(self, path: str, body: bytes) -> Answer:
        book = self.server.book
        if book.knobs.down:
            return as_json(503, Refusal("Paper Stripe is down.", kind="api_error").body)
        admitted(book, self.headers.get("Authorization", ""))
        query = urlsplit(self.path).query
        given = nested(parse_qsl(query + "&" + body.decode(), keep_blank_values=True))
        key = self.headers.get("Idempotency-Key", "") if self.command == "POST" else ""
        with book.lock:
            happen(book)
            book.request = {"id": self.request_id, "idempotency_key": key or None}
            try:
                answer = once(book, path, given, key) if key else as_json(200, call(book, self.command, path, given))
            finally:
                book.request = {"id": None, "idempotency_key": None}
            answer.cut = book.knobs.cut_next > 0
            book.knobs.cut_next -= answer.cut
        time.sleep(book.knobs.slow_seconds)
        echoed = {"Stripe-Version": self.headers.get("Stripe-Version", API_VERSION)}
        answer.headers |= echoed | ({"Idempotency-Key": key} if key else {})
        return answer

    def knobs(self, path: str, body: bytes) -> Answer:
        book, way = self.server.book, path.removeprefix("/_paper/").rstrip("/").split("/")
        if self.command == "GET" and way == ["deliveries"]:
            with book.lock:
                return as_json(200, {"deliveries": list(book.deliveries), "waiting": list(book.waiting)})
        if self.command == "GET" and way == ["knobs"]:
            return as_json(200, dataclasses.asdict(book.knobs))
        try:
            given = json.loads(body or b"{}")
        except ValueError:
            given = None
        if self.command != "POST" or not isinstance(given, dict):
            raise Refusal("Knobs are turned by POST of a JSON object.")
        if way == ["release"]:
            return as_json(200, release(book, given))
        with book.lock:
            happen(book)
            return as_json(200, knob(book, way, given))

    def browser(self, path: str, body: bytes) -> Answer:
        book, form, query = self.server.book, dict(parse_qsl(body.decode())), urlsplit(self.path).query
        what, _, name = path[1:].partition("/")
        with book.lock:
            happen(book)
            about = book.objects["checkout.session"].get(name) if what == "pay" else portal_of(book, name)
            if about is None:
                return Answer(404, page("No such page", NOTE), "text/html; charset=utf-8")
            if self.command == "POST":
                there = press_pay(book, about, form) if what == "pay" else path
                if what == "portal":
                    press_portal(book, about, form.get("do", ""))
                return Answer(303, headers={"Location": there})
            shown = pay_page(book, about, declined="declined" in query) if what == "pay" else portal_page(book, about)
            return Answer(200, shown, "text/html; charset=utf-8")

    def log_message(self, format: str, *args: Any) -> None:
        """Its own line is written in ``serve``: this one would hold queries."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, book: Book, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.book = book
        book.base = f"http://127.0.0.1:{self.server_address[1]}"
