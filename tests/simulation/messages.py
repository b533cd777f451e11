"""What host and portal say to each other: the fields that decide, unsigned. Signatures are proven elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from farm.agent.protocol import Observation, Outcome, Reason, Verb
from farm.states import Kind


@dataclass(slots=True)
class Order:
    host: int
    instance: int
    epoch: int
    generation: int
    verb: Verb
    kind: Kind
    account: str | None

    @property
    def age(self) -> tuple[int, int]:
        return (self.epoch, self.generation)


@dataclass(slots=True)
class Report:
    order: Order
    outcome: Outcome
    reason: Reason = Reason.NONE
    observed: Observation | None = None


@dataclass(slots=True)
class Survey:
    host: int
    sent_at: float
    lines: dict[int, Observation]
    lease_left: float | None


@dataclass(slots=True)
class Request:
    host: int
    nonce: str
    stop_seconds: float
    sent_at: float


@dataclass(slots=True)
class Grant:
    nonce: str
    seconds: float
