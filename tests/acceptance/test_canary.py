"""A known broker password goes the whole way, refused once and let in once; then it is looked for everywhere.

Files of the stack (database, logs, mails, the broker's own file, clones), every message that passed the broker, the
environments and command lines of all processes. And the search itself is shown to find, in each of these places.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis

from benchmarks.golive import SERVER, Account, confirm_all, pay, to_the_till
from benchmarks.visitor import Visitor
from bitten_portal.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.acceptance

WRONG, RIGHT = "Wr0ng-kanarienvogel#", "R1ght-kanarienvogel#"
LOGIN = "7200001"
SETTINGS = {"ACCOUNTS": "5", "MASTER_FILES": "200", "MASTER_MB": "4", "FARM_SURVEY_SECONDS": "1"}


def forms(word):
    return word.encode(), word.encode("utf-16-le")


class Listener:
    """Everything that anybody says to the broker, as the broker's own MONITOR tells it."""

    def __init__(self, url):
        self.heard = []
        self._client = redis.Redis.from_url(url, socket_timeout=1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        until(lambda: self._ready)

    _ready = False

    def _listen(self):
        with self._client.monitor() as monitor:
            self._ready = True
            while not self._stopping.is_set():
                try:
                    self.heard.append(monitor.next_command()["command"])
                except redis.TimeoutError:
                    continue

    def stop(self):
        self._stopping.set()
        self._thread.join(timeout=5)


def found(stack, listener, word):
    """The places in which ``word`` stands in clear."""
    hits = []
    for folder, _, names in os.walk(stack.places.data_dir):  # which passes over what is being purged meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = Path(folder, name)
                content = path.read_bytes() if path.is_file() else b""  # a socket holds nothing
                hits += [f"file {name}" for form in forms(word) if form in content]
    hits += [f"broker {said[:40]}" for said in list(listener.heard) if word in said]
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("BITTEN_STACK") == str(stack.places.data_dir):
                told = json.dumps([environment, process.cmdline()], ensure_ascii=False)
                hits += [f"process {process.pid}"] if word in told else []
        except psutil.Error:
            continue
    return hits


def one(stack, query, *values):
    with closing(sqlite3.connect(f"file:{stack.places.database}?mode=ro", uri=True, timeout=5)) as base:
        row = base.execute(query, values).fetchone()
    return row[0] if row else None


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A stack on which the two passwords have gone their ways, and what was said on its broker meanwhile."""
    with Stack(data_dir=tmp_path_factory.mktemp("canary") / "var", slots=6, env=SETTINGS) as stack:
        accounts = json.loads(stack.places.accounts.read_text("utf-8"))
        accounts[SERVER][LOGIN] = {"sha256": hashlib.sha256(RIGHT.encode()).hexdigest(), "balance": 100.0}
        stack.places.accounts.write_text(json.dumps(accounts), encoding="utf-8")
        listener = Listener(stack.broker_url)
        visitor = Visitor(stack.url, "canary@example.org")
        visitor.sign_up()
        confirm_all(stack)
        pay(stack, to_the_till(visitor, Account(LOGIN, WRONG)))
        until(lambda: one(stack, "SELECT 1 FROM farm_instance WHERE refusal = 'credentials'"), seconds=60)
        gone = "SELECT count(*) FROM farm_instance WHERE refusal = 'credentials' AND status = 'destroyed'"
        until(lambda: one(stack, gone) == 1, seconds=60)
        form = {"server": SERVER, "login": LOGIN, "password": RIGHT}
        visitor.page("/go-live/", {"csrfmiddlewaretoken": visitor.token("/go-live/"), **form})
        until(lambda: one(stack, "SELECT 1 FROM farm_instance WHERE proven_at IS NOT NULL"), seconds=60)
        until(lambda: not list((stack.places.farm / "Users").rglob("bitten-start.ini")), seconds=30)
        yield stack, listener
        listener.stop()


@pytest.mark.parametrize("word", [WRONG, RIGHT], ids=["the refused one", "the one let in"])
def test_the_password_stands_nowhere_in_clear(told, word):
    stack, listener = told
    assert any("host.obey" in said for said in listener.heard)
    assert found(stack, listener, word) == []


@pytest.mark.parametrize("place", ["database", "log", "mail", "clone", "broker", "environment", "command line"])
def test_the_search_finds_it_where_it_is_planted(told, place, tmp_path):
    stack, listener = told
    planted = f"planted-{place}-kanarienvogel"
    env, argv = dict(os.environ, BITTEN_STACK=str(stack.places.data_dir)), ["import sys; sys.stdin.read()"]
    if place == "database":
        with closing(sqlite3.connect(stack.places.database, timeout=20)) as base, base:
            base.execute("UPDATE farm_instance SET refusal_text = ?", [planted])
    elif place in {"log", "mail"}:
        ((stack.places.log if place == "log" else stack.places.mail) / "planted").write_text(planted)
    elif place == "clone":
        clone = next((stack.places.farm / "Users").iterdir())
        (clone / "Config" / "planted.ini").write_text(planted, encoding="utf-16-le")
    elif place == "broker":
        with redis.Redis.from_url(stack.broker_url) as broker:
            broker.lpush("planted", planted)
        until(lambda: any(planted in said for said in listener.heard))
    elif place == "environment":
        env["PLANTED"] = planted
    else:
        argv.append(planted)
    with subprocess.Popen([sys.executable, "-c", *argv], env=env, stdin=subprocess.PIPE) as process:
        until(lambda: found(stack, listener, planted), seconds=5)
        process.communicate(b"")
