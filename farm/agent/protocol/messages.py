"""What is said: orders, reports, surveys, and leases asked for and granted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self, TypedDict

from farm.agent.protocol.names import Malformed, checked_name
from farm.agent.protocol.words import Connection, Outcome, Policy, Process, Reason, Refusal, Verb

MOST_LEASE_SECONDS = 24 * 3600.0
MOST_STOP_SECONDS = 300.0
"""Nothing longer is believed, whoever signed it."""
LONGEST_WORD = 64
"""Of what one side only compares: a nonce, a boot, a version."""


class Heartbeat(TypedDict, total=False):
    """What the EA last wrote into the bridge (docs/bridge.md). Times are Unix seconds, money is in ``currency``."""

    at: float
    login: int
    server: str
    currency: str
    balance: float
    equity: float
    positions: int
    orders: int
    last_order_at: float | None
    trade_allowed: bool
    connected: bool


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one instance is, seen on its host at one moment."""

    instance: int
    folder: str
    present: bool
    """Its folder stands under ``Users``."""
    process: Process = Process.UNKNOWN
    pid: int | None = None
    started_at: float | None = None
    connection: Connection = Connection.UNKNOWN
    refusal: Refusal = Refusal.NONE
    refusal_text: str = ""
    """The broker's own words from the journal; never a password."""
    synchronized: bool = False
    trading: bool | None = None
    """The journal's word on whether this account may trade; None while it has said nothing."""
    heartbeat: Heartbeat | None = None
    activity_at: float | None = None
    """Last thing on the host that counts as activity: a command in the bridge, an order by this login."""
    digest: str = ""
    """Of the master that it was cloned from."""
    kind: str = ""
    """What it was started as, and for which account: all that is known of one that the portal forgot."""
    server: str = ""
    login: int | None = None
    epoch: int = 0
    generation: int = 0
    crashes: int = 0
    reason: Reason = Reason.NONE
    """Why it is not as it was told to be, e.g. ``crash_loop``."""
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    log_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Message:
    type: ClassVar[str]

    def body(self) -> str:
        return json.dumps({"type": self.type, **asdict(self)}, separators=(",", ":"), sort_keys=True)

    @classmethod
    def parse(cls, body: str) -> Self:
        """Raise :class:`Malformed` unless ``body`` is exactly such a message."""
        try:
            data = json.loads(body)
            if data.pop("type") != cls.type:
                raise Malformed(f"not a message of type {cls.type}")
            return cls(**data)
        except Malformed:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Malformed(f"not a {cls.type}: {type(error).__name__}") from error


@dataclass(frozen=True, kw_only=True)
class Order(Message):
    type: ClassVar[str] = "order"

    verb: Verb
    host: str
    instance: int
    epoch: int
    generation: int
    issued_at: float
    folder: str
    port: int
    magic: int
    kind: str
    server: str = ""
    login: int | None = None
    """The account that the journal must name; None for a terminal without account."""
    sealed: str = ""
    """Base64 of a SealedBox over :class:`Credentials`; only in ``inject``."""
    keepsake: str = field(default="", repr=False)
    """A one-time address of the portal: where ``clone`` gets the customer's keepsake, and ``keep`` and ``destroy`` put
    it. Empty: none is wanted."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "verb", Verb(self.verb))
        for name in ("instance", "epoch", "generation", "port", "magic"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise Malformed(f"{name} is not a whole number")
        checked_name(self.host)
        checked_name(self.folder)

    @property
    def age(self) -> tuple[int, int]:
        """Orders for one instance are ordered by this; a host never acts on a lower one than it has seen."""
        return (self.epoch, self.generation)


@dataclass(frozen=True, kw_only=True)
class Report(Message):
    type: ClassVar[str] = "report"

    host: str
    instance: int
    epoch: int
    generation: int
    verb: Verb
    outcome: Outcome
    sent_at: float
    reason: Reason = Reason.NONE
    detail: str = ""
    """One line for staff; never a secret."""
    observed: Observation | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "verb", Verb(self.verb))
        object.__setattr__(self, "outcome", Outcome(self.outcome))
        object.__setattr__(self, "reason", Reason(self.reason))
        if isinstance(self.observed, Mapping):
            object.__setattr__(self, "observed", observation(self.observed))


@dataclass(frozen=True, kw_only=True)
class Survey(Message):
    type: ClassVar[str] = "survey"

    host: str
    sent_at: float
    nonce: str
    boot_id: str
    agent: str
    """Version of the agent."""
    master_ok: bool
    master_reason: str = ""
    master_digest: str = ""
    servers: list[str] = field(default_factory=list)
    """Broker servers that an operator has proven on the master."""
    pool: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    """Disk, memory and load of the machine, in bytes and as plain numbers."""
    instances: list[Observation] = field(default_factory=list)
    policy: Policy = Policy.STATIC
    """What it runs live terminals under. A host that says nothing has no watchdog."""
    watchdog_ok: bool = True
    lease_left: float | None = None
    """Seconds until its lease is over; None: it has none."""
    strangers: list[str] = field(default_factory=list)
    """Folders under ``Users`` that no known order made."""
    since_boot: float = 0.0
    """By a clock that nobody sets: which of two surveys of one boot is the newer."""

    def __post_init__(self) -> None:
        rows = [observation(row) if isinstance(row, Mapping) else row for row in self.instances]
        object.__setattr__(self, "instances", rows)
        object.__setattr__(self, "policy", Policy(self.policy))
        object.__setattr__(self, "since_boot", _number(self.since_boot))
        object.__setattr__(self, "sent_at", _number(self.sent_at))
        if self.lease_left is not None:
            object.__setattr__(self, "lease_left", _number(self.lease_left))
        for said in (self.nonce, self.boot_id, self.agent):
            _word(said)
        if not isinstance(self.master_reason, str) or not isinstance(self.master_digest, str):
            raise Malformed("a master that is told in no words")


@dataclass(frozen=True, kw_only=True)
class LeaseRequest(Message):
    """A fenced host asks to go on running live terminals. Sent with every survey, only while its watchdog ticks."""

    type: ClassVar[str] = "lease request"

    host: str
    nonce: str
    """Of the survey that it was sent with."""
    boot_id: str
    sent_at: float
    stop_seconds: float
    """The longest from a lease's end until no live terminal runs there any more."""

    def __post_init__(self) -> None:
        checked_name(self.host)
        _word(self.nonce)
        _word(self.boot_id)
        if not 0 < _number(self.stop_seconds) < MOST_STOP_SECONDS:
            raise Malformed("a lease request that cannot be")
        _number(self.sent_at)


@dataclass(frozen=True, kw_only=True)
class LeaseGrant(Message):
    """Live terminals may run for ``seconds`` from when the request with this nonce was sent, by the host's clocks."""

    type: ClassVar[str] = "lease grant"

    host: str
    nonce: str
    boot_id: str
    seconds: float

    def __post_init__(self) -> None:
        checked_name(self.host)
        if not 0 < _number(self.seconds) <= MOST_LEASE_SECONDS:
            raise Malformed("a lease that cannot be")


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed("not a number")
    try:
        number = float(value)
    except OverflowError as error:  # JSON knows whole numbers that no float can hold
        raise Malformed("not a number that can be") from error
    if not math.isfinite(number):
        raise Malformed("not a number")
    return number


def _word(value: object) -> None:
    """Refuse what is no short text, or one that no database takes (a zero byte, half a surrogate pair)."""
    if not isinstance(value, str) or len(value) > LONGEST_WORD or not value.isprintable():
        raise Malformed("not a word")


_OBSERVATION_FIELDS = frozenset(f.name for f in fields(Observation))


def observation(data: Mapping[str, Any]) -> Observation:
    """Read an observation off the wire; raise :class:`Malformed` on a word that is not in the lists above."""
    if not data.keys() <= _OBSERVATION_FIELDS:
        raise Malformed("an observation with unknown fields")
    try:
        words = {
            "process": Process(data.get("process", "unknown")),
            "connection": Connection(data.get("connection", "unknown")),
            "refusal": Refusal(data.get("refusal", "")),
            "reason": Reason(data.get("reason", "")),
        }
        return Observation(**{**data, **words})
    except (ValueError, TypeError) as error:
        raise Malformed(f"an observation that says {error}") from error
