"""Twenty customers, a host worker that dies half-way, a broker that forgets everything: twenty running terminals.

A whole stack of its own, as processes, on free ports, in a temporary folder.
"""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psutil
import pytest
import redis

from benchmarks.visitor import Visitor
from bitten_portal.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.acceptance

CUSTOMERS = 20
SETTINGS = {
    "ACCOUNTS": "40",
    "LIMIT_SIGNUPS": "1000/h",
    "MASTER_FILES": "200",
    "MASTER_MB": "4",
    # What a crash costs is these times; the mechanism is the same at any length.
    "CLAIM_SECONDS": "4",
    "READY_SECONDS": "12",
    "FARM_READY_SECONDS": "8",
    "RING_AGAIN_SECONDS": "3",
    "SWEEP_SECONDS": "1",
    "RETRY_FIRST_SECONDS": "1",
    "FARM_SURVEY_SECONDS": "1",
}


def ask(stack, query, *values):
    with closing(sqlite3.connect(f"file:{stack.places.database}?mode=ro", uri=True, timeout=5)) as base:
        return base.execute(query, values).fetchall()


def running(stack):
    return ask(stack, "SELECT count(*) FROM farm_instance WHERE status = 'running'")[0][0]


def terminals(stack):
    """The folders of the terminals that really run, from the process table."""
    users = stack.places.farm / "Users"
    found = []
    for process in psutil.process_iter():
        try:
            if "/portable" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                folder = process.cwd()
                if folder.startswith(str(users)):
                    found.append(folder.rsplit("/", 1)[-1])
        except psutil.Error:
            continue
    return sorted(found)


def sign_up_all(stack):
    with ThreadPoolExecutor(4) as people:
        list(people.map(lambda n: Visitor(stack.url, f"trader{n}@example.org").sign_up(), range(CUSTOMERS)))


@pytest.fixture(params=["with the receiver", "without the receiver"])
def stack(request, tmp_path):
    extra = {"RING_ON_TRANSITION": "False"} if request.param == "without the receiver" else {}
    with Stack(data_dir=tmp_path / "var", slots=CUSTOMERS + 2, env=SETTINGS | extra) as up:
        yield up


def test_twenty_customers_get_twenty_terminals_whatever_dies_on_the_way(stack):
    sign_up_all(stack)
    until(lambda: running(stack) >= 3, seconds=60)
    stack.kill("host")
    with redis.Redis.from_url(stack.broker_url) as broker:
        broker.flushall()
    stack.start("host")

    until(lambda: running(stack) == CUSTOMERS, seconds=120)
    folders = sorted(row[0] for row in ask(stack, "SELECT folder FROM farm_instance"))
    until(lambda: terminals(stack) == folders, seconds=20)
    ports = [row[0] for row in ask(stack, "SELECT number FROM farm_port WHERE instance_id IS NOT NULL")]
    assert len(set(ports)) == len(ports) == CUSTOMERS
    assert sorted(path.name for path in (stack.places.farm / "Users").iterdir()) == folders
    assert ask(stack, "SELECT taken FROM farm_host") == [(CUSTOMERS,)]
    assert Visitor(stack.url, "another@example.org").sign_up() < 30
