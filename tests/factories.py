"""Rows for tests, as few fields as the behaviour under test needs."""

from __future__ import annotations

import factory
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from farm import clock, lifecycle, ports, vault
from farm.agent import protocol
from farm.models import Host, Instance
from farm.states import Kind
from presspass.models import User

HOST_SIGNING_KEY = SigningKey(b"h" * 32)
HOST_SEAL_KEY = PrivateKey(b"s" * 32)


class UserFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = User
        skip_postgeneration_save = True

    email = factory.Sequence(lambda n: f"trader{n}@example.com")
    password = "!"


class HostFactory(factory.django.DjangoModelFactory):
    """A host that was just heard from, with its ports."""

    class Meta:
        model = Host
        skip_postgeneration_save = True

    name = factory.Sequence(lambda n: f"host{n}")
    slots = 20
    port_first = 9000
    port_last = 9099
    verify_key = protocol.b64(bytes(HOST_SIGNING_KEY.verify_key))
    seal_key = protocol.b64(bytes(HOST_SEAL_KEY.public_key))
    surveyed_at = factory.LazyFunction(clock.now)

    @factory.post_generation
    def provided(self: Host, create: bool, extracted: object, **kwargs: object) -> None:
        ports.provide(self)


def instance(user: User | None = None, kind: Kind = Kind.PRESS_PASS) -> Instance:
    """An instance as the farm makes one: placed if a host has room, else in line."""
    customer = user or UserFactory.create()
    return lifecycle.request(customer_id=customer.pk, kind=kind, who=f"customer:{customer.pk}")


def fill_vault(count: int = 1, server: str = "MetaQuotes-Demo") -> None:
    vault.put((server, 5_000_000 + number, f"Secret-{number}-1aA", None) for number in range(1, count + 1))


class AnsweringHost:
    """The agent's side of the wire, without the agent: answers orders as the test says, with a real signature."""

    def __init__(self, host: Host, key: SigningKey = HOST_SIGNING_KEY) -> None:
        self.host = host
        self.key = key
        self.sent = 0.0

    def claim(self, row: Instance) -> protocol.Order | None:
        letter = lifecycle.claim(row.pk)
        return protocol.Order.parse(letter.envelope["body"]) if letter else None

    def answer(
        self,
        order: protocol.Order,
        outcome: protocol.Outcome = protocol.Outcome.DONE,
        reason: protocol.Reason = protocol.Reason.NONE,
        **observed: object,
    ) -> bool:
        done = outcome is protocol.Outcome.DONE and not observed.pop("nothing_seen", False)
        seen = self.line(order, **observed) if done else None
        report = protocol.Report(
            host=self.host.name,
            instance=order.instance,
            epoch=order.epoch,
            generation=order.generation,
            verb=order.verb,
            outcome=outcome,
            reason=reason,
            sent_at=clock.now().timestamp(),
            observed=seen,
        )
        return lifecycle.record(protocol.sign(report, self.key))

    def line(self, about: protocol.Order | Instance, **changes: object) -> protocol.Observation:
        """What a healthy host would see of the instance."""
        started = about.verb is protocol.Verb.START if isinstance(about, protocol.Order) else True
        number = about.instance if isinstance(about, protocol.Order) else about.pk
        facts: dict[str, object] = {
            "instance": number,
            "folder": about.folder,
            "present": True,
            "process": protocol.Process.RUNNING if started else protocol.Process.STOPPED,
            "connection": protocol.Connection.CONNECTED if started else protocol.Connection.UNKNOWN,
            "epoch": self.host.epoch,
            "generation": about.generation,
        }
        return protocol.Observation(**(facts | changes))  # type: ignore[arg-type]

    def obey(self, row: Instance) -> Instance:
        """Take every order for ``row`` and do it, until none is due."""
        while (order := self.claim(row)) is not None:
            self.answer(order)
        row.refresh_from_db()
        return row

    def survey(self, *lines: protocol.Observation, **changes: object) -> None:
        self.sent = max(self.sent + 0.001, clock.now().timestamp())
        facts: dict[str, object] = {
            "host": self.host.name,
            "sent_at": self.sent,
            "nonce": "n",
            "boot_id": "boot",
            "agent": "1",
            "master_ok": True,
            "instances": list(lines),
            "since_boot": self.sent,
        }
        survey = protocol.Survey(**(facts | changes))  # type: ignore[arg-type]
        lifecycle.record_survey(protocol.sign(survey, self.key))
