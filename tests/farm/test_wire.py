"""What comes in a host's name and is not by it, or not for it, or not new: refused, logged, and noted in its journal.

What a host refuses of what comes in the portal's name is in tests/agent/test_orders.py and test_leasing.py; what a
broker's login may do, in test_wire_logins.py.
"""

from __future__ import annotations

import json

import pytest
from nacl.signing import SigningKey

from farm import errors, hosts, letterbox, lifecycle, orders, reports
from farm.agent import protocol
from farm.agent.protocol import Connection, Outcome, Verb
from farm.models import Host, HostEvent, Instance, Transition
from farm.states import Status
from tests.factories import HOST_SIGNING_KEY, AnsweringHost, HostFactory, instance

pytestmark = pytest.mark.django_db

FIRST, SECOND, THIRD = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))


@pytest.fixture
def alpha():
    return HostFactory.create(name="alpha")


@pytest.fixture
def answering(alpha):
    return AnsweringHost(alpha)


@pytest.fixture
def row(answering):
    """Cloning on alpha: its host is about to report."""
    row = instance()
    answering.claim(row)
    row.refresh_from_db()
    assert row.status == Status.CLONING
    return row


@pytest.fixture
def beta(row):
    """Another host of ours, with a key of its own. It gets no instance."""
    return HostFactory.create(name="beta", verify_key=protocol.b64(bytes(SECOND.verify_key)), slots=0)


def report(row, **changes):
    facts = {
        "host": "alpha", "instance": row.pk, "epoch": 1, "generation": row.generation, "verb": Verb.CLONE,
        "outcome": Outcome.DONE, "sent_at": 1.0,
        "observed": protocol.Observation(instance=row.pk, folder=row.folder, present=True),
    }  # fmt: skip
    return protocol.Report(**(facts | changes))


def changed(envelope, was, becomes):
    assert was in envelope["body"]
    return {**envelope, "body": envelope["body"].replace(was, becomes)}


def everything():
    """All that a report could change."""
    return [*Instance.objects.order_by("pk").values()], Transition.objects.count()


FORGED_REPORTS = {
    "signed by a stranger": (lambda row: protocol.sign(report(row), THIRD), "alpha"),
    "signed by another host of ours": (lambda row: protocol.sign(report(row), SECOND), "alpha"),
    "changed after it was signed": (
        lambda row: changed(protocol.sign(report(row, verb=Verb.STOP), HOST_SIGNING_KEY), "stop", "clone"),
        "alpha",
    ),
    "about an instance of another host": (lambda row: protocol.sign(report(row, host="beta"), SECOND), "beta"),
    "about an instance that never was": (
        lambda row: protocol.sign(report(row, instance=row.pk + 999), HOST_SIGNING_KEY),
        "alpha",
    ),
    "an order that was meant for the host": (
        lambda row: orders.letter(row, Verb.CLONE, password=None).envelope,
        "alpha",
    ),
    "a lease request": (
        lambda row: protocol.sign(
            protocol.LeaseRequest(host="alpha", nonce="n", boot_id="b", sent_at=1.0, stop_seconds=1.0), HOST_SIGNING_KEY
        ),
        "alpha",
    ),
    "done, and nothing was seen of it": (
        lambda row: protocol.sign(report(row, observed=None), HOST_SIGNING_KEY),
        "alpha",
    ),
    "by a host that is not enrolled": (lambda row: protocol.sign(report(row, host="gamma"), THIRD), None),
    "a name that leaves the queue": (
        lambda row: changed(protocol.sign(report(row), HOST_SIGNING_KEY), '"alpha"', '"../alpha"'),
        None,
    ),
    "no envelope": (lambda row: {"unreadable": True}, None),
    "nothing": (lambda row: None, None),
    "a list": (lambda row: [1, 2], None),
}


@pytest.mark.parametrize("forged", FORGED_REPORTS)
def test_a_forged_report_changes_nothing_and_is_noted(forged, row, beta, caplog):
    make, named = FORGED_REPORTS[forged]
    envelope = make(row)
    before = everything()
    reports.record(envelope)
    assert everything() == before
    event = HostEvent.objects.get(what="forged")
    assert event.host == (Host.objects.get(name=named) if named else None)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["forged message"]


@pytest.mark.parametrize("forged", FORGED_REPORTS)
def test_the_hosts_own_report_counts_after_it(forged, row, beta):
    reports.record(FORGED_REPORTS[forged][0](row))
    reports.record(protocol.sign(report(row), HOST_SIGNING_KEY))
    row.refresh_from_db()
    assert row.status == Status.STARTING


def test_a_report_that_comes_twice_counts_once_and_the_second_is_logged(row, caplog):
    caplog.set_level("INFO")
    envelope = protocol.sign(report(row), HOST_SIGNING_KEY)
    reports.record(envelope)
    before = everything()
    reports.record(envelope)
    assert everything() == before
    assert "late report" in caplog.messages
    assert not HostEvent.objects.filter(what="forged").exists(), "the broker may deliver twice: that is no forgery"


def test_a_report_that_is_played_again_when_the_instance_is_as_it_was_then_counts_for_nothing(row, answering):
    kept = protocol.sign(report(row), HOST_SIGNING_KEY)
    answering.answer(orders_of(row), outcome=Outcome.FAILED, reason=protocol.Reason.TOO_SLOW)
    Instance.objects.update(next_at=None)
    lifecycle.retry(row.pk, who="staff:a")
    answering.claim(row)
    row.refresh_from_db()
    assert row.status == Status.CLONING, "cloning once more, under a newer order"
    before = everything()
    reports.record(kept)
    assert everything() == before


def orders_of(row):
    return protocol.Order.parse(orders.letter(row, Verb.CLONE, password=None).envelope["body"])


def test_a_report_of_before_the_database_was_restored_counts_for_nothing(row):
    envelope = protocol.sign(report(row), HOST_SIGNING_KEY)
    Host.objects.update(epoch=2)
    before = everything()
    reports.record(envelope)
    assert everything() == before


# --- surveys ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(answering):
    return answering.obey(instance())


def survey(answering, row, **changes):
    line = answering.line(row, connection=Connection.LOST)
    facts = {"host": "alpha", "sent_at": 1e9, "nonce": "n", "boot_id": "b", "agent": "1", "master_ok": False}
    return protocol.Survey(**(facts | {"instances": [line]} | changes))


FORGED_SURVEYS = {
    "signed by a stranger": (lambda survey: protocol.sign(survey, THIRD), "alpha"),
    "signed by another host of ours": (lambda survey: protocol.sign(survey, SECOND), "alpha"),
    "changed after it was signed": (
        lambda survey: changed(protocol.sign(survey, HOST_SIGNING_KEY), '"agent":"1"', '"agent":"2"'),
        "alpha",
    ),
    "with a word that is none": (
        lambda survey: signed(survey.body().replace('"lost"', '"lucky"'), HOST_SIGNING_KEY),
        "alpha",
    ),
    "no envelope": (lambda survey: {}, None),
}


def signed(body, key):
    return {"body": body, "signature": protocol.b64(key.sign(body.encode()).signature)}


@pytest.mark.parametrize("forged", FORGED_SURVEYS)
def test_a_forged_survey_changes_nothing_and_is_noted(forged, running, answering):
    HostFactory.create(name="beta", verify_key=protocol.b64(bytes(SECOND.verify_key)))
    make, named = FORGED_SURVEYS[forged]
    before = everything(), Host.objects.values().get(name="alpha")
    reports.record_survey(make(survey(answering, running)))
    assert (everything(), Host.objects.values().get(name="alpha")) == before
    assert HostEvent.objects.get(what="forged").host == (Host.objects.get(name=named) if named else None)


def test_what_a_host_says_of_another_hosts_instance_changes_nothing_of_it(running, answering):
    HostFactory.create(name="beta", verify_key=protocol.b64(bytes(SECOND.verify_key)), slots=0)
    before = everything()
    theirs = survey(answering, running, host="beta", sent_at=2e9)
    reports.record_survey(protocol.sign(theirs, SECOND))
    assert everything() == before


def test_an_older_survey_that_is_played_again_changes_nothing(running, answering):
    old = protocol.sign(survey(answering, running), HOST_SIGNING_KEY)
    answering.survey(answering.line(running))
    before = everything(), Host.objects.values().get(name="alpha")
    reports.record_survey(old)
    assert (everything(), Host.objects.values().get(name="alpha")) == before


# --- keys that change -------------------------------------------------------------------------------------------------


def rekeyed(host, key):
    hosts.enrol(
        hosts.Enrolment(
            name=host.name, slots=host.slots, port_first=host.port_first, port_last=host.port_last,
            verify_key=protocol.b64(bytes(key.verify_key)), seal_key=host.seal_key,
        )
    )  # fmt: skip


def test_the_key_before_counts_and_one_older_does_not(alpha):
    for key in (FIRST, SECOND):
        rekeyed(alpha, key)
    said = protocol.Survey(host="alpha", sent_at=1.0, nonce="n", boot_id="b", agent="1", master_ok=True)
    for key in (SECOND, FIRST):
        assert orders.opened(protocol.sign(said, key))[0] == alpha
    with pytest.raises(errors.Untrusted):
        orders.opened(protocol.sign(said, HOST_SIGNING_KEY))


def test_when_the_key_before_is_emptied_only_the_newest_counts(alpha):
    rekeyed(alpha, FIRST)
    Host.objects.update(previous_verify_key="")
    said = protocol.Survey(host="alpha", sent_at=1.0, nonce="n", boot_id="b", agent="1", master_ok=True)
    with pytest.raises(errors.Untrusted):
        orders.opened(protocol.sign(said, HOST_SIGNING_KEY))
    assert orders.opened(protocol.sign(said, FIRST))[0] == alpha


def test_a_host_whose_pinned_key_is_no_key_is_believed_by_nobody(alpha):
    Host.objects.update(verify_key="", previous_verify_key="AAAA")
    said = protocol.Survey(host="alpha", sent_at=1.0, nonce="n", boot_id="b", agent="1", master_ok=True)
    with pytest.raises(errors.Untrusted):
        orders.opened(protocol.sign(said, HOST_SIGNING_KEY))


# --- the letterbox ----------------------------------------------------------------------------------------------------

ENVELOPE = {"body": "b", "signature": "s"}


def message(body, task=protocol.RECORD_TASK, **headers):
    return {
        "body": protocol.b64(json.dumps(body).encode()),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": task, "id": "theirs", **headers},
        "properties": {"body_encoding": "base64", "delivery_tag": "theirs", "delivery_info": {"exchange": "portal"}},
    }


def carried(raw, queue=protocol.REPORTS_QUEUE):
    made = letterbox.plain(raw, queue)
    return json.loads(protocol.unb64(made["body"])), made


LINK = {"task": "presspass.refund", "args": [1], "kwargs": {}, "options": {"queue": "portal"}, "subtask_type": None}


def test_nothing_but_the_envelope_passes_the_letterbox():
    embed = {"callbacks": [LINK], "errbacks": [LINK], "chain": [LINK], "chord": LINK}
    raw = message([[ENVELOPE], {"also": 1}, embed], eta="2999-01-01T00:00:00", expires=1, retries=7, timelimit=[9, 9])
    body, made = carried(raw)
    assert body == [[ENVELOPE], {}, {}]
    assert made["headers"].keys() == {"lang", "task", "id", "root_id"}
    assert made["headers"]["id"] != "theirs"
    assert made["properties"]["delivery_tag"] != "theirs"
    assert made["properties"]["delivery_info"] == {"exchange": "", "routing_key": "reports"}


@pytest.mark.parametrize(
    "raw",
    [
        None, 7, "x", [], {}, {"body": 1}, {"body": "!", "properties": {"body_encoding": "base64"}, "headers": {}},
        message([[ENVELOPE], {}, {}], task="farm.dispatch"),
        message([[ENVELOPE], {}, {}], task="celery.map"),
        message([[ENVELOPE], {}, {}], task=protocol.SURVEY_TASK),
        message([[ENVELOPE], {}, {}], task={"a": 1}),
        message([[], {}, {}]),
        message([[ENVELOPE, ENVELOPE], {}, {}]),
        message({"args": [ENVELOPE]}),
        {**message([[ENVELOPE], {}, {}]), "body": protocol.b64(b"[" * 200_000)},
        {**message([[ENVELOPE], {}, {}]), "headers": None},
    ],
)  # fmt: skip
def test_what_is_no_such_message_becomes_one_without_an_envelope(raw):
    body, made = carried(raw)
    assert (body, made["headers"]["task"]) == ([[None], {}, {}], protocol.RECORD_TASK)


def test_a_queue_that_is_for_no_task_carries_the_envelope_alone():
    raw = {**message(ENVELOPE), "headers": {}}
    body, made = carried(raw, protocol.LEASES_QUEUE)
    assert (body, made["headers"]) == (ENVELOPE, {})
