"""What goes into telling, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

from farm.models import Transition
from presspass.moments import Moment


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the row itself does not say. All of it was read before; nothing here asks the database."""

    now: datetime
    zone: tzinfo = UTC
    verified: bool = True
    """Whether the customer's address is confirmed: until then they may look, not act."""
    journal: Sequence[Transition] = ()
    """Of this instance, oldest first; may be only the newest part."""
    position: int | None = None
    """Its place in line, 1 for the first."""
    usual_seconds: float | None = None
    """What a start-up took lately, from request to running; None if not known."""
    trial_ends_at: datetime | None = None
    """When the days of the customer's Press Pass are over; None before it first ran."""
    trial_days: float = 7
    idle_after: timedelta = timedelta(hours=24)
    survey_fresh: timedelta = timedelta(seconds=30)
    """A host that has said nothing for longer is not known to be well."""
    sold: bool = False
    """Whether a live terminal can be bought here."""
    subscribed: bool = False
    """Whether the customer has paid for one."""
    held_until: datetime | None = None
    """Until when a slot is held for it, if it stands first in line and nobody was there."""
    expected: timedelta | None = None
    """How long its place in line takes at the pace of the last day; None if there is none to go by."""
    kept_until: datetime | None = None
    """Until when what was made in it is kept; None if nothing is."""
    keep_days: float = 30
    server: str = ""
    """The broker server that was typed for it: its credentials go when it is refused."""
    support: str = ""
    """Whom to write to."""
    elsewhere_at: datetime | None = None
    """While its machine is silent: from when on it may come up on another; None: not before a person looked."""
    held_back: bool = False
    """While its machine is silent: whether nothing at all is moved to other machines now."""
    came: Came | None = None
    """If it is there in place of one on another machine."""


@dataclass(frozen=True, kw_only=True)
class Came:
    """From another machine: that was lost, or is being emptied."""

    lost: bool
    at: datetime
    """When it was given up there, or began to leave."""
    heard_at: datetime | None = None
    """When that machine was last heard before it was lost; None if that is not known any more."""
    kept_at: datetime | None = None
    """Of when what the customer made in it is that comes along; None if nothing does."""
    kept_known: bool = True
    """False: what came along was followed by one of its own, and its age is not known any more."""
    same_account: bool = True
    stopped_for: str = ""
    """Why the one before was last stopped, as its journal has it."""


class Mark(StrEnum):
    """The shape beside the sentence; colour never speaks alone."""

    WAITING = "waiting"
    MOVING = "moving"
    RUNNING = "running"
    DOUBT = "doubt"
    BROKEN = "broken"
    STOPPED = "stopped"
    ENDED = "ended"


class Action(StrEnum):
    """What the customer may do next; the first of them is the page's main button."""

    START_AGAIN = "start again"
    CONFIRM_ADDRESS = "confirm address"
    ACCEPT_SLOT = "accept slot"
    GO_LIVE = "go live"
    CORRECT_LOGIN = "correct login"
    CHANGE_LOGIN = "change login"
    PAY = "pay"
    RESTART = "restart"
    END = "end"


@dataclass(frozen=True)
class Saying:
    headline: str
    mark: Mark
    below: tuple[str, ...] = ()
    title: str = ""
    """Of the browser's tab; "" for the usual one, which names the status."""


@dataclass(frozen=True)
class Step:
    label: str
    state: str
    """done, now or to do."""
    at: Moment | None = None
    took: str = ""


@dataclass(frozen=True)
class Fact:
    term: str
    value: str
    copied: str = ""
    """What its copy button copies; empty for none."""
    at: Moment | None = None

    @property
    def slug(self) -> str:
        return self.term.lower().replace(" ", "-")


@dataclass(frozen=True)
class Line:
    at: Moment
    text: str


@dataclass(frozen=True, kw_only=True)
class Told:
    headline: str
    mark: Mark
    below: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    facts: tuple[Fact, ...] = ()
    names: tuple[Fact, ...] = ()
    """The smaller facts: what the terminal and its place are called."""
    ends: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    history: tuple[Line, ...] = ()
    look_again_seconds: int | None = None
    """When the page asks again; None when nothing will change by itself."""
    title: str = field(default="Your terminal")

    @property
    def next_action(self) -> Action | None:
        return self.actions[0] if self.actions else None
