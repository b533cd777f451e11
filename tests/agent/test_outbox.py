"""What the host has to say is kept until the broker takes it, and never holds anybody up."""

from __future__ import annotations

import threading

from nacl.signing import SigningKey

from farm.agent import protocol
from farm.agent.outbox import Outbox
from farm.agent.protocol import LeaseRequest, Outcome, Report, Survey, Verb
from tests.waiting import until

KEY = SigningKey.generate()


class Broker:
    """Takes what it is given, unless it is down."""

    def __init__(self) -> None:
        self.down = False
        self.taken: list[tuple[str, str]] = []

    def __call__(self, task: str, envelope: protocol.Envelope, queue: str) -> None:
        if self.down:
            raise ConnectionRefusedError
        assert protocol.opened(envelope, [KEY.verify_key])
        self.taken.append((queue, envelope["body"]))

    def bodies(self, queue: str) -> list[str]:
        return [body for name, body in self.taken if name == queue]


def a_report(generation: int) -> Report:
    return Report(
        host="alpha", instance=17, epoch=1, generation=generation, verb=Verb.STOP, outcome=Outcome.DONE, sent_at=1.0
    )


def a_survey(nonce: str) -> Survey:
    return Survey(host="alpha", sent_at=1.0, nonce=nonce, boot_id="b", agent="1", master_ok=True)


def test_what_the_broker_does_not_take_is_kept_in_order():
    broker = Broker()
    outbox = Outbox(broker, KEY)
    broker.down = True
    for generation in (1, 2, 3):
        outbox.report(a_report(generation))
    assert not outbox.flush()
    broker.down = False
    assert outbox.flush()
    assert [Report.parse(body).generation for body in broker.bodies(protocol.REPORTS_QUEUE)] == [1, 2, 3]


def test_of_surveys_that_could_not_be_sent_only_the_newest_goes_out():
    broker = Broker()
    outbox = Outbox(broker, KEY)
    broker.down = True
    for nonce in ("a", "b", "c"):
        outbox.survey(a_survey(nonce))
        outbox.flush()
    broker.down = False
    outbox.flush()
    assert [Survey.parse(body).nonce for body in broker.bodies(protocol.SURVEYS_QUEUE)] == ["c"]


def test_a_survey_made_while_another_is_sent_is_not_lost():
    outbox = Outbox(lambda task, envelope, queue: sent.append(envelope["body"]) or later(), KEY)
    sent: list[str] = []

    def later() -> None:
        if len(sent) == 1:
            outbox.survey(a_survey("second"))

    outbox.survey(a_survey("first"))
    assert outbox.flush()
    assert [Survey.parse(body).nonce for body in sent] == ["first", "second"]


def test_each_message_names_its_task():
    tasks: list[str] = []
    outbox = Outbox(lambda task, envelope, queue: tasks.append(task), KEY)
    outbox.report(a_report(1))
    outbox.survey(a_survey("a"))
    outbox.flush()
    assert tasks == [protocol.RECORD_TASK, protocol.SURVEY_TASK]


def test_its_thread_outlives_a_broker_that_was_down(monkeypatch):
    monkeypatch.setattr("farm.agent.outbox.RETRY_SECONDS", 0.01)
    broker = Broker()
    broker.down = True
    outbox, stopping = Outbox(broker, KEY), threading.Event()
    thread = threading.Thread(target=outbox.serve, args=(stopping,))
    thread.start()
    outbox.report(a_report(1))
    broker.down = False
    until(lambda: broker.taken)
    stopping.set()
    thread.join(5)
    assert not thread.is_alive()


def test_a_request_for_a_lease_goes_before_all_else_and_only_the_newest():
    broker = Broker()
    outbox = Outbox(broker, KEY)
    outbox.report(a_report(1))
    outbox.survey(a_survey("b"))
    for nonce in ("a", "b"):
        outbox.request(LeaseRequest(host="alpha", nonce=nonce, boot_id="b", sent_at=1.0, stop_seconds=40.0))
    assert outbox.flush()
    assert [queue for queue, _ in broker.taken] == [
        protocol.LEASES_QUEUE,
        protocol.REPORTS_QUEUE,
        protocol.SURVEYS_QUEUE,
    ]
    assert LeaseRequest.parse(broker.taken[0][1]).nonce == "b"
