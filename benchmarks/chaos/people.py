"""Two hundred who sign up and thirty who go live while everything breaks. They try again, as people do."""

from __future__ import annotations

import csv
import http.client
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.visitor import Visitor
from bitten_portal.stack import Stack

SERVER = "PaperBroker-Live"
FIRST_LOGIN = 7_100_001
AGAIN_SECONDS = 1.0
AT_ONCE = 6
BROKEN = (urllib.error.URLError, http.client.HTTPException, OSError, AssertionError, LookupError)
"""What a page that fails looks like from outside; LookupError: it leads elsewhere than it should."""


@dataclass(frozen=True)
class Login:
    login: str
    password: str


def open_accounts(stack: Stack, count: int, folder: Path) -> list[Login]:
    """Open so many live accounts at the paper broker."""
    written = folder / "live.csv"
    program = ["farm/paper/broker.py", str(stack.places.accounts), "--demo", str(count), "--server", SERVER]
    where = ["--first", str(FIRST_LOGIN), "--csv", str(written)]
    subprocess.run([sys.executable, *program, *where], check=True, capture_output=True)
    with written.open(encoding="utf-8", newline="") as lines:
        return [Login(row["login"], row["password"]) for row in csv.DictReader(lines)]


@dataclass
class Crowd:
    """Who did what. A person counts as signed up, or as having paid, once the page said so."""

    stack: Stack
    rng: random.Random
    signed_up: list[str] = field(default_factory=list)
    paid: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    """Who was refused to the end."""
    tries: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sign_up(self, visitors: Sequence[Visitor], *, over: float, patience: float) -> None:
        """All of them, spread over so many seconds; each tries again for so long."""
        self._spread(visitors, over, lambda one: self._patiently(one, self._sign_up, patience, self.signed_up))

    def go_live(self, payers: Sequence[tuple[Visitor, Login]], *, over: float, patience: float) -> None:
        self._confirm_addresses()
        logins = {visitor.email: login for visitor, login in payers}
        self._spread(
            [visitor for visitor, _ in payers],
            over,
            lambda one: self._patiently(one, lambda who: self._pay(who, logins[who.email]), patience, self.paid),
        )

    def _spread(self, visitors: Sequence[Visitor], over: float, act: Callable[[Visitor], None]) -> None:
        began = time.monotonic()
        moments = sorted(self.rng.uniform(0, over) for _ in visitors)

        def at(moment: float, visitor: Visitor) -> None:
            time.sleep(max(0.0, began + moment - time.monotonic()))
            act(visitor)

        with ThreadPoolExecutor(AT_ONCE) as people:
            list(people.map(at, moments, visitors))

    def _patiently(self, visitor: Visitor, act: Callable[[Visitor], None], patience: float, done: list[str]) -> None:
        end = time.monotonic() + patience
        while True:
            with self._lock:
                self.tries += 1
            try:
                act(visitor)
            except BROKEN as error:
                if time.monotonic() > end:
                    with self._lock:
                        self.never.append(f"{visitor.email}: {type(error).__name__} {error}"[:200])
                    return
                time.sleep(AGAIN_SECONDS)
            else:
                with self._lock:
                    done.append(visitor.email)
                return

    def _sign_up(self, visitor: Visitor) -> None:
        """Whose first try was taken, and whose answer was lost, gets the page for somebody who is known."""
        visitor.sign_up()

    def _pay(self, visitor: Visitor, login: Login) -> None:
        session = self._at_the_till(visitor, login)
        port = self.stack.environments.stripe_port
        url = f"http://127.0.0.1:{port}/_paper/sessions/{session}/pay"
        asked = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            answer.read()

    def _at_the_till(self, visitor: Visitor, login: Login) -> str:
        """Hand in plan and login, or go on to the payment that was begun; return the id of its session."""
        token = visitor.token("/go-live/")
        form = {"plan": "nibbler", "server": SERVER, "login": login.login, "password": login.password}
        visitor.page("/go-live/", {"csrfmiddlewaretoken": token, **form})
        if "/cs_" not in visitor.last_url:
            visitor.page("/go-live/pay/", {"csrfmiddlewaretoken": token})
        if "/cs_" not in visitor.last_url:
            raise LookupError(visitor.last_url)
        return visitor.last_url.rsplit("/", 1)[-1].split("?")[0]

    def _confirm_addresses(self) -> None:
        """As a click on the link in the mail would: that way is not what is tried here."""
        with psycopg.connect(self.stack.environments.database_url) as base:
            base.execute("UPDATE presspass_user SET email_verified_at = now() WHERE email_verified_at IS NULL")
