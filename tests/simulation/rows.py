"""The portal's rows, and the two writes that everything hangs on: a status moves as ``farm.states`` allows, and a seat
moves only when what its holder runs is surely gone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from farm import fencing, states
from farm.agent.protocol import Connection, Observation, Reason
from farm.states import Goal, Kind, Status
from tests.simulation.world import World


@dataclass(slots=True)
class HostRow:
    id: int
    slots: int
    fenced: bool
    epoch: int = 1
    draining: bool = False
    retired: bool = False
    surveyed_at: datetime | None = None
    sent_at: float | None = None
    lines: dict[int, Observation] = field(default_factory=dict)
    lease_left: float | None = None
    fenced_until: datetime | None = None
    stop_seconds: float = 0.0
    asked_at: datetime | None = None
    held_until: datetime | None = None
    lost_at: datetime | None = None

    def facts(self) -> fencing.HostFacts:
        return fencing.HostFacts(
            id=self.id,
            fenced=self.fenced,
            surveyed_at=self.surveyed_at,
            fenced_until=self.fenced_until,
            stop_seconds=self.stop_seconds,
            lost=self.lost_at is not None,
        )


@dataclass(slots=True)
class Row:
    """An instance."""

    pk: int
    customer: int
    kind: Kind
    account: str | None = None
    status: Status = Status.WAITING
    goal: Goal = Goal.RUNNING
    host: int | None = None
    replaces: int | None = None
    generation: int = 0
    next_at: datetime | None = None
    claimed_until: datetime | None = None
    attempts: int = 0
    connection: Connection = Connection.UNKNOWN
    first_in_line: bool = False
    proven: bool = False
    ran: bool = False
    """Its journal shows that it was once injecting or starting."""

    def __str__(self) -> str:
        return f"instance {self.pk} ({self.kind.value} of {self.customer}, {self.account})"


@dataclass(slots=True)
class Watch:
    looked_at: datetime | None = None
    looked_since_boot: float = 0.0
    brake: fencing.Brake = field(default_factory=fencing.Brake)
    restored_at: datetime | None = None


class Database:
    def __init__(self, world: World):
        self.world = world
        self.hosts: dict[int, HostRow] = {}
        self.rows: dict[int, Row] = {}
        self.seats: dict[str, int] = {}
        """Account -> the instance that may run it."""
        self.demos: list[str] = []
        self.open: dict[int, Row] = {}
        """Those rows that are not destroyed."""
        self.watch = Watch()
        self.ring: Callable[[Row], None] = lambda row: None

    def add(self, row: Row) -> Row:
        self.rows[row.pk] = self.open[row.pk] = row
        return row

    def on(self, host: int) -> list[Row]:
        return [row for row in self.open.values() if row.host == host]

    def free_slots(self, host: HostRow) -> int:
        return host.slots - len(self.on(host.id))

    def move(self, row: Row, to: Status, why: str, *, now: datetime, **changes: object) -> None:
        """As ``farm.lifecycle.moving.move``: a step that becomes due has a number of its own."""
        self.world.demand(to in states.MOVES[row.status], "%s moves from %s to %s", row, row.status.value, to.value)
        self.world.note("%s: %s -> %s (%s)", row, row.status.value, to.value, why)
        row.status, row.claimed_until, row.next_at = to, None, None
        if to in states.IN_MOTION:
            row.next_at, row.generation = now, row.generation + 1
            self.ring(row)
        if to in {Status.RUNNING, Status.STOPPED, Status.DESTROYED}:
            row.attempts = 0
        if to in {Status.INJECTING, Status.STARTING}:
            row.ran = True
        for name, value in changes.items():
            setattr(row, name, value)
        if to is Status.DESTROYED:
            del self.open[row.pk]

    # --- seats --------------------------------------------------------------------------------------------------------

    def has_seat(self, row: Row) -> bool:
        return row.account is not None and self.seats.get(row.account) == row.pk

    def give_seat(self, account: str, row: Row) -> None:
        """Its holder must have stopped, be lost, or never have been told of the account; and, seen from above, no
        terminal of it may be there at this moment."""
        holder = self.rows.get(self.seats.get(account, 0))
        if holder is not None and holder.pk != row.pk:
            free = holder.status in {Status.STOPPED, Status.LOST, Status.DESTROYED}
            self.world.demand(free or not holder.ran, "%s gives its seat to %s", holder, row)
        self._demand_quiet(account)
        self.seats[account] = row.pk

    def leave_seat(self, row: Row) -> None:
        if row.account is not None and self.has_seat(row):
            self._demand_quiet(row.account)
            del self.seats[row.account]

    def _demand_quiet(self, account: str) -> None:
        terminal = self.world.running.get(account)
        self.world.demand(terminal is None, "the seat of %s is free while %s runs", account, terminal)

    # --- backups ------------------------------------------------------------------------------------------------------

    def backup(self) -> tuple:
        hosts = {id: replace(row, lines=dict(row.lines)) for id, row in self.hosts.items()}
        rows = {pk: copy.copy(row) for pk, row in self.rows.items()}
        return hosts, rows, dict(self.seats), list(self.demos), replace(self.watch)

    def restore(self, backup: tuple) -> None:
        hosts, rows, seats, demos, watch = backup
        self.hosts = {id: replace(row, lines=dict(row.lines)) for id, row in hosts.items()}
        self.rows = {pk: copy.copy(row) for pk, row in rows.items()}
        self.open = {pk: row for pk, row in self.rows.items() if row.status is not Status.DESTROYED}
        self.seats, self.demos, self.watch = dict(seats), list(demos), replace(watch)


__all__ = ["Database", "HostRow", "Reason", "Row", "Watch"]
