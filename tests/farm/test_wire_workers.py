"""The worker that hears hosts and the keeper of leases, as processes with a real broker and a real database."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import connection
from kombu import Connection

from farm import clock, doorbell, leases, lifecycle
from farm.agent import broker as ways
from farm.agent import protocol
from farm.agent.settings import Settings
from farm.models import HostEvent
from farm.states import Status
from tests.factories import HOST_SIGNING_KEY, AnsweringHost, HostFactory, fill_vault, instance
from tests.farm.brokers import Broker
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

REPOSITORY = Path(__file__).parents[2]
SECRET = ("ORDER_SIGNING_KEY", "FIELD_KEYS", "INTAKE_SECRET_KEYS")
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
REFUND = {"task": "presspass.refund", "args": [1], "kwargs": {}, "options": {"queue": "portal"}, "subtask_type": None}


def database_url():
    """Of the database that this test runs on."""
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{found['NAME']}"
    login = f"{quote(found['USER'])}:{quote(found['PASSWORD'])}@" if found["USER"] else ""
    return f"postgres://{login}{found['HOST']}:{found['PORT'] or 5432}/{found['NAME']}"


class Program:
    """A process of the portal with its log."""

    def __init__(self, folder, *argv, without=(), **environment):
        self.log = folder / "log"
        env = {**os.environ, "DATABASE_URL": database_url(), **environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *argv],
                env={name: value for name, value in env.items() if name not in without},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )

    def said(self, *words):
        return all(word in self.log.read_text() for word in words)

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(autouse=True)
def empty(broker):
    with broker.client() as client:
        client.flushall()
    yield
    until(nobody_writes, seconds=30)  # the database is emptied next, which must not meet a worker half-way


def nobody_writes():
    if connection.vendor != "postgresql":
        return True
    busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with connection.cursor() as cursor:
        cursor.execute(f"{busy} AND state <> 'idle'")
        return cursor.fetchone()[0] == 0


def put(broker, queue, *elements):
    with broker.client() as client:
        client.lpush(queue, *(one if isinstance(one, bytes) else json.dumps(one) for one in elements))


# --- the worker that hears hosts --------------------------------------------------------------------------------------


class Worker(Program):
    """Counts what was put into its queues, so that a test can wait until all of it was dealt with."""

    sent = 0

    def put(self, broker, queue, *elements):
        put(broker, queue, *elements)
        self.sent += len(elements)

    def heard(self):
        return len(re.findall("Task .* (?:succeeded|raised)", self.log.read_text()))


@pytest.fixture(scope="module")
def worker(broker, tmp_path_factory, django_db_setup):
    """It has neither the signing key nor a field key."""
    argv = ["-m", "celery", "-A", "bitten_portal.reports", "worker", "--queues=reports,surveys", "--loglevel=INFO"]
    argv += ["--pool=threads", "--concurrency=2", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    program = Worker(tmp_path_factory.mktemp("worker"), *argv, without=SECRET, BROKER_URL=broker.url)
    yield program
    program.end()


@pytest.fixture
def wire(broker, worker, monkeypatch, tmp_path):
    """What the test's host reports goes through the broker to that worker."""
    app = ways.publisher(Settings(root=tmp_path, host="alpha", broker_url=broker.url))

    def post(task, queue):
        def say(envelope):
            ways.publish(app, task, envelope, queue)
            worker.sent += 1
            return True

        return say

    monkeypatch.setattr(lifecycle, "record", post(protocol.RECORD_TASK, protocol.REPORTS_QUEUE))
    monkeypatch.setattr(lifecycle, "record_survey", post(protocol.SURVEY_TASK, protocol.SURVEYS_QUEUE))
    yield AnsweringHost(HostFactory.create(name="alpha"))
    app.close()
    until(lambda: worker.heard() == worker.sent, seconds=30)  # the database is emptied next


def arrives(answering, row, status, **observed):
    answering.answer(answering.claim(row), **observed)
    until(lambda: row.refresh_from_db() or row.status == status, seconds=30)


def rung_for(broker):
    with broker.client() as client:
        return {json.loads(one)["headers"]["task"] for one in client.lrange("portal", 0, -1)}


def test_a_report_and_a_survey_are_taken_in_without_a_key_of_the_portals(wire, broker):
    fill_vault()
    row = instance()
    arrives(wire, row, Status.INJECTING)
    arrives(wire, row, Status.STARTING)
    arrives(wire, row, Status.RUNNING)
    wire.survey(wire.line(row, connection=protocol.Connection.LOST))
    until(lambda: row.refresh_from_db() or row.connection == "lost")
    refused = {"connection": protocol.Connection.REFUSED, "refusal": protocol.Refusal.CREDENTIALS}
    wire.survey(wire.line(row, **refused))
    until(lambda: row.refresh_from_db() or row.refusal == "credentials")
    assert rung_for(broker) <= set(doorbell.TASKS)


FORGERIES = {
    "no JSON": [b"\xff\x00 no JSON", b"", b"[" * 100_000, b'{"__type__": "datetime", "__value__": 1}'],
    "no message": [7, [], {}, {"headers": {"task": "farm.record"}}, None],
    "tasks of ours and of Celery": [
        {
            "body": protocol.b64(json.dumps([args, {}, EMBED]).encode()), "content-type": "application/json",
            "content-encoding": "utf-8", "headers": {"task": task, "id": task, "lang": "py"},
            "properties": {"delivery_tag": task, "delivery_info": {"exchange": "", "routing_key": "reports"},
                           "body_encoding": "base64"},
        }
        for task, args in (
            ("farm.dispatch", [1]), ("presspass.refund", [1]), ("farm.sweep", []), ("celery.map", [REFUND, [1]]),
            ("celery.chain", []), ("celery.group", [[REFUND], None, None]), ("celery.backend_cleanup", []),
            ("os.system", ["touch /tmp/pwned"]),
        )
    ],
    "pickles": [
        {
            "body": protocol.b64(b"cos\nsystem\n(S'touch /tmp/pwned'\ntR."),
            "content-type": "application/x-python-serialize", "content-encoding": "binary",
            "headers": {"task": "farm.record", "id": "p", "lang": "py"},
            "properties": {"delivery_tag": "p", "delivery_info": {"exchange": "", "routing_key": "reports"},
                           "body_encoding": "base64"},
        }
    ],
}  # fmt: skip


@pytest.mark.parametrize("queue", ["reports", "surveys"])
@pytest.mark.parametrize("forged", FORGERIES)
def test_what_is_forged_in_a_queue_of_hosts_runs_nothing_and_the_worker_lives_on(forged, queue, wire, broker, worker):
    worker.put(broker, queue, *FORGERIES[forged])
    row = instance()
    arrives(wire, row, Status.STARTING)
    with broker.client() as client:
        until(lambda: client.llen(queue) == 0)
        until(lambda: client.hlen("unacked") == 0)
    assert worker.process.poll() is None
    assert rung_for(broker) <= set(doorbell.TASKS)
    until(lambda: HostEvent.objects.filter(host=None, what="forged").exists())
    assert HostEvent.objects.filter(what="forged").count() <= 2, "each of the worker's threads may note it once"
    received = [json.loads(line) for line in worker.log.read_text().splitlines() if '"message": "Task ' in line]
    assert received
    assert {line["message"].split("[")[0] for line in received} <= {
        f"Task {task}" for task in ("farm.record", "farm.record_survey")
    }, "no other task was received, succeeded or failed"


def test_what_is_to_run_after_a_genuine_report_does_not(wire, broker, worker):
    """A host that turned against us signs well, and hangs on it what the portal's worker shall do."""
    row = instance()
    wire.claim(row)
    row.refresh_from_db()
    line = protocol.Observation(instance=row.pk, folder=row.folder, present=True)
    report = protocol.Report(
        host="alpha", instance=row.pk, epoch=1, generation=row.generation, verb="clone", outcome="done", sent_at=1.0,
        observed=line,
    )  # fmt: skip
    body = [[protocol.sign(report, HOST_SIGNING_KEY)], {}, {**EMBED, "callbacks": [REFUND], "chain": [REFUND]}]
    message = FORGERIES["tasks of ours and of Celery"][0] | {"body": protocol.b64(json.dumps(body).encode())}
    worker.put(broker, "reports", message | {"headers": {"task": "farm.record", "id": "r", "lang": "py"}})
    until(lambda: row.refresh_from_db() or row.status == Status.STARTING)
    worker.put(broker, "reports", message | {"headers": {"task": "farm.record", "id": "s", "lang": "py"}})
    until(lambda: worker.heard() == worker.sent)
    assert rung_for(broker) <= set(doorbell.TASKS)


def python(program, **environment):
    """What a process of the portal prints, and what it complains of."""
    env = {**os.environ, "DATABASE_URL": database_url(), **environment}
    found = subprocess.run([sys.executable, "-c", program], env=env, cwd=REPOSITORY, capture_output=True, text=True)
    return found.stdout, found.stderr


def test_the_portals_own_app_does_not_hear_hosts_and_the_one_that_does_knows_nothing_else(broker):
    known = "; app.loader.import_default_modules(); app.finalize(); print(*app.tasks)"
    portals, _ = python("from bitten_portal.celery import app" + known, BROKER_URL=broker.url)
    hears, _ = python("from bitten_portal.reports import app; import farm.tasks" + known, BROKER_URL=broker.url)
    assert "farm.dispatch" in portals.split()
    assert not {protocol.RECORD_TASK, protocol.SURVEY_TASK} & set(portals.split())
    assert set(hears.split()) == {protocol.RECORD_TASK, protocol.SURVEY_TASK}


# --- the keeper of leases ---------------------------------------------------------------------------------------------


def a_keeper(folder, url):
    """A process that has the signing key and no other."""
    return Program(folder, "manage.py", "keep_leases", without=SECRET[1:], BROKER_URL=url)


@pytest.fixture(scope="module")
def keeper(broker, tmp_path_factory, django_db_setup):
    """One that goes on from test to test."""
    program = up(a_keeper(tmp_path_factory.mktemp("keeper"), broker.url))
    yield program
    program.end()


@pytest.fixture
def keeping(tmp_path):
    """Start one of a test's own on a broker."""
    programs: list[Program] = []

    def keep(url):
        folder = tmp_path / str(len(programs))
        folder.mkdir()
        programs.append(a_keeper(folder, url))
        return programs[-1]

    yield keep
    for program in programs:
        program.end()


def up(keeper):
    until(lambda: keeper.said("leases are granted"), seconds=30)
    return keeper


@pytest.fixture
def alpha():
    return HostFactory.create(name="alpha")


def request(number=0):
    asked = protocol.LeaseRequest(
        host="alpha", nonce=str(number), boot_id="b", sent_at=clock.now().timestamp(), stop_seconds=20.0
    )
    return protocol.sign(asked, HOST_SIGNING_KEY)


def ask(url, number=0):
    with Connection(url) as portal:
        portal.Producer().publish(request(number), exchange="", routing_key="leases", serializer="json")


def answer(url, *, seconds=15.0):
    with Connection(url) as portal, portal.SimpleQueue("lease.alpha") as messages:
        message = messages.get(timeout=seconds)
        message.ack()
        return protocol.LeaseGrant.parse(message.payload["body"])


def test_a_request_is_answered_when_the_lease_is_committed(broker, keeper, alpha):
    ask(broker.url, 7)
    grant = answer(broker.url)
    alpha.refresh_from_db()
    assert (grant.nonce, grant.seconds) == ("7", 120.0)
    assert alpha.fenced_until is not None


@pytest.mark.parametrize("forged", FORGERIES)
def test_what_is_forged_among_the_requests_costs_the_others_no_time(forged, broker, keeper, alpha):
    put(broker, "leases", *FORGERIES[forged] * 100)
    ask(broker.url, 7)
    before = keeper.log.read_text().count("no leases can be granted")
    began = time.monotonic()
    assert answer(broker.url).nonce == "7"
    assert time.monotonic() - began < 5
    assert keeper.log.read_text().count("no leases can be granted") == before
    assert HostEvent.objects.filter(host=None, what="forged").count() == 1


def test_a_broker_that_goes_and_comes_back_empty_is_waited_for(tmp_path, keeping, alpha):
    broker = Broker(tmp_path)
    broker.start()
    keeper = up(keeping(broker.url))
    broker.stop()
    until(lambda: keeper.said("no leases can be granted"))
    broker.start()
    ask(broker.url, 8)
    assert answer(broker.url).nonce == "8"
    broker.stop()


@pytest.mark.postgres
def test_a_database_that_breaks_off_costs_a_request_and_nothing_more(broker, keeper, alpha):
    ask(broker.url, 1)
    answer(broker.url)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    ask(broker.url, 2)  # lost with that connection, if nobody asks again

    def asked_again():
        ask(broker.url, 3)
        try:
            return answer(broker.url, seconds=1).nonce == "3"
        except Exception:
            return False

    until(asked_again)


def test_two_keepers_answer_each_request_once(broker, keeper, keeping, alpha):
    up(keeping(broker.url))
    for number in range(20):
        ask(broker.url, number)
        assert answer(broker.url).nonce == str(number)
    with broker.client() as client:
        assert client.llen("lease.alpha") == 0


def test_a_keeper_that_is_told_to_end_does(broker, keeping):
    keeper = up(keeping(broker.url))
    keeper.process.send_signal(signal.SIGTERM)
    assert keeper.process.wait(10) == 0


def test_a_keeper_shows_that_it_lives(keeper):
    until(leases.keeper_seen_at, seconds=20)


# --- rediss:// --------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path):
    """A broker that speaks TLS only, with a certificate that only we know."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certify(certificate, key)
    client = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    broker = Broker(tmp_path, client, scheme="rediss", query=f"?ssl_ca_certs={certificate}")
    broker.start()
    yield broker
    broker.stop()


def certify(certificate, key):
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(private, hashes.SHA256())
    )  # fmt: skip
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, pem, plain))


def test_a_certificate_that_is_good_is_taken_by_keeper_and_agent(closed, keeping, alpha, tmp_path):
    up(keeping(closed.url))
    settings = Settings(root=tmp_path, host="alpha", broker_url=closed.url)
    app = ways.publisher(settings)
    ways.publish(app, "", request(9), protocol.LEASES_QUEUE)
    app.close()
    with ways.lease_connection(settings) as agent:
        heard = []
        with agent.Consumer([ways.lease_queue(settings)], no_ack=True, callbacks=[lambda body, _: heard.append(body)]):
            agent.drain_events(timeout=10)
    assert protocol.LeaseGrant.parse(heard[0]["body"]).nonce == "9"


@pytest.mark.parametrize("app", ["bitten_portal.celery", "bitten_portal.reports"])
def test_a_certificate_that_nobody_vouches_for_is_refused_by_both_apps_of_the_portal(app, closed):
    connect = f"from {app} import app; app.connection_for_write().connect(); print('in')"
    said, complained = python(connect, BROKER_URL=closed.url.partition("?")[0])
    assert (said, "CERTIFICATE_VERIFY_FAILED" in complained) == ("", True)
    assert python(connect, BROKER_URL=closed.url) == ("in\n", "")


def test_a_certificate_that_nobody_vouches_for_is_refused_by_keeper_and_agent(closed, keeping, tmp_path):
    url = closed.url.partition("?")[0]
    keeper = keeping(url)
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        ways.lease_connection(Settings(root=tmp_path, host="alpha", broker_url=url)).connect()
    app = ways.publisher(Settings(root=tmp_path, host="alpha", broker_url=url))
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        ways.publish(app, "", request(), protocol.LEASES_QUEUE)
    app.close()
    until(lambda: keeper.said("no leases can be granted"), seconds=30)
    assert not keeper.said("leases are granted")
