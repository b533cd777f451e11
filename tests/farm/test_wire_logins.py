"""One host's login at a real broker: what it needs, and nothing of anybody else's."""

from __future__ import annotations

import shlex

import pytest
import redis
from celery import Celery
from kombu import Connection, Consumer

from farm import hosts
from farm.agent import broker as ways
from farm.agent import protocol
from farm.agent.settings import Settings
from farm.models import Host
from tests.agent.house import a_house
from tests.agent.workers import Farm
from tests.farm.brokers import Broker
from tests.waiting import until

NAMES = ("alpha", "alpha2", "alpha-19", "alpha.b", "alph")
"""Names that begin one another, and one that a wildcard in place of kombu's separator would match."""
ENVELOPE = {"body": "{}", "signature": "x"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Broker(tmp_path_factory.mktemp("broker"))
    server.start()
    with server.client() as client:
        for name in NAMES:
            line = hosts.acl(Host(name=name)).replace(hosts.PASSWORD, f"secret-of-{name}")
            client.execute_command(*(word.encode().decode("unicode_escape") for word in shlex.split(line)))
    yield server
    server.stop()


@pytest.fixture
def broker(server):
    """With nothing in it, and the logins of all those hosts."""
    with server.client() as client:
        client.flushall()
    return server


def login(name):
    return f"host.{name}:secret-of-{name}@"


def settings_of(broker, name, tmp_path):
    return Settings(root=tmp_path, host=name, broker_url=broker.url_for(login(name)))


def others(name):
    """Every key that another host, or the portal, has anything in."""
    keys = [
        "portal",
        "portal\x06\x169",
        "unacked",
        "unacked_index",
        "unacked_mutex",
        "unacked:leases",
        "_kombu.binding.portal",
    ]
    for other in NAMES:
        if other != name:
            keys += [f"host.{other}", f"host.{other}\x06\x169", f"lease.{other}", f"unacked.{other}"]
    return keys


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_another_host_or_of_the_portal_can_be_read_or_written(broker, name):
    with broker.client() as admin, broker.client(login(name)) as client:
        for key in others(name):
            admin.delete(key)
            admin.lpush(key, "theirs")
            for command in (["LPUSH", key, "x"], ["BRPOP", key, "1"], ["BRPOP", f"host.{name}", key, "1"]):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command)
            assert admin.lrange(key, 0, -1) == [b"theirs"]


@pytest.mark.parametrize("queue", ["reports", "surveys", "leases"])
def test_what_other_hosts_say_cannot_be_read_or_removed(broker, queue):
    with broker.client() as admin, broker.client(login("alpha")) as client:
        admin.lpush(queue, "theirs")
        for command in (
            ["BRPOP", queue, "1"],
            ["LRANGE", queue, "0", "-1"],
            ["DEL", queue],
            ["LTRIM", queue, "1", "0"],
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
        assert admin.lrange(queue, 0, -1) == [b"theirs"]


@pytest.mark.parametrize(
    "command",
    ["KEYS *", "SCAN 0", "CONFIG GET *", "FLUSHALL", "FLUSHDB", "EVAL return(1) 0", "SCRIPT LOAD return(1)", "ACL LIST",
     "ACL WHOAMI", "CLIENT LIST", "CLIENT KILL TYPE normal", "SUBSCRIBE x", "PUBLISH x y", "MONITOR", "INFO", "SAVE",
     "SHUTDOWN NOSAVE", "GET host.alpha", "SET host.alpha x", "DEL host.alpha", "RENAME host.alpha x",
     "RPOPLPUSH host.alpha host.alpha2", "LMOVE host.alpha portal LEFT LEFT", "SORT host.alpha STORE portal",
     "REPLICAOF 127.0.0.1 1", "MULTI", "DUMP host.alpha", "MIGRATE 127.0.0.1 1 host.alpha 0 1", "SWAPDB 0 1"],
)  # fmt: skip
def test_no_other_command_is_allowed(broker, command):
    with broker.client(login("alpha")) as client, pytest.raises(redis.exceptions.ResponseError, match="permission"):
        client.execute_command(*command.split())


def test_a_host_without_its_password_has_no_login(broker):
    with broker.client("host.alpha:secret-of-alpha2@") as client, pytest.raises(redis.AuthenticationError):
        client.ping()


@pytest.fixture
def farm(broker, tmp_path, monkeypatch):
    """An agent as a process, with the login of the host ``alpha``; the test is its portal."""
    monkeypatch.setenv("PAPER_ACCOUNTS", str(tmp_path / "accounts.json"))
    with a_house(tmp_path) as house:
        farm = Farm(house, tmp_path, port=broker.port)
        farm.work(FARM_BROKER_URL=broker.url_for(login("alpha")))
        yield farm
        farm.end()


def test_an_agent_with_that_login_hears_orders_and_answers(farm, broker):
    assert farm.survey_where(lambda survey: survey.master_ok).host == "alpha"
    farm.done("clone")
    behind = farm.house.envelope(farm.house.order("destroy"))
    app = Celery("portal", broker=broker.url, set_as_current=False)
    app.send_task(protocol.OBEY_TASK, args=[behind], queue="host.alpha", ignore_result=True, priority=9)
    app.close()
    assert (farm.report().outcome, farm.house.clone.exists()) == ("done", False)
    worker = farm.workers[0]
    worker.terminate()
    worker.wait(20)
    assert "permission" not in (farm.folder / "worker.log").read_text().lower()


def test_an_agent_with_that_login_says_what_it_has_to_say(broker, tmp_path):
    app = ways.publisher(settings_of(broker, "alpha", tmp_path))
    ways.publish(app, protocol.RECORD_TASK, ENVELOPE, protocol.REPORTS_QUEUE)
    ways.publish(app, protocol.SURVEY_TASK, ENVELOPE, protocol.SURVEYS_QUEUE)
    ways.publish(app, "", ENVELOPE, protocol.LEASES_QUEUE)
    app.close()
    with broker.client() as admin:
        assert sorted(admin.keys()) == [b"leases", b"reports", b"surveys"], "it declares nothing"
        assert all(admin.llen(key) == 1 for key in ("leases", "reports", "surveys"))


def test_an_agent_with_that_login_reads_its_leases(broker, tmp_path):
    settings, heard = settings_of(broker, "alpha", tmp_path), []
    with broker.client() as admin:
        admin.lpush("lease.alpha2", "theirs")
    with Connection(broker.url) as portal:
        portal.Producer().publish(ENVELOPE, exchange="", routing_key="lease.alpha", serializer="json")
    with ways.lease_connection(settings) as connection:
        queue = ways.lease_queue(settings)
        with Consumer(connection.channel(), [queue], no_ack=True, callbacks=[lambda body, _: heard.append(body)]):
            until(lambda: heard or drained(connection))
            for _ in range(3):  # idle rounds, in which kombu looks for what a dead reader left
                drained(connection)
    assert heard == [ENVELOPE]


def drained(connection):
    try:
        connection.drain_events(timeout=0.2)
    except TimeoutError:
        return False
    return True
