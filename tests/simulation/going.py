"""Coming, going live, moving and leaving: the portal's decisions about one customer, as farm/lifecycle/ makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farm.states import Connection, Goal, Kind, Status
from tests.simulation.rows import HostRow, Row

if TYPE_CHECKING:
    from tests.simulation.portal import Portal

FREE = frozenset({Status.DESTROYED, Status.STOPPED, Status.LOST})
"""Nothing runs in one of these: its host said so, or was given up after its fence."""


class Going:
    def __init__(self, portal: Portal):
        self.portal, self.world = portal, portal.world
        self.last = 0

    # --- slots --------------------------------------------------------------------------------------------------------

    def _new(self, customer: int, kind: Kind, account: str | None = None, replaces: int | None = None) -> Row:
        self.last += 1
        return self.portal.db.add(Row(self.last, customer, kind, account, replaces=replaces))

    def is_usable(self, host: HostRow) -> bool:
        if host.retired or host.draining or host.lost_at is not None:
            return False
        return self.portal.is_fresh(host) and self.portal.db.free_slots(host) > 0

    def _settle(self, row: Row) -> bool:
        db = self.portal.db
        usable = [host for host in db.hosts.values() if self.is_usable(host)]
        if usable:
            row.host = max(usable, key=lambda host: (db.free_slots(host), -host.id)).id
        return bool(usable)

    def serve_line(self) -> None:
        waiting = [r for r in self.portal.db.open.values() if r.status is Status.WAITING and r.host is None]
        for row in sorted(waiting, key=lambda row: (not row.first_in_line, row.pk)):
            if row.pk in self.portal.db.open and not self._place(row):
                break

    def _place(self, row: Row) -> bool:
        """Give one in line a slot; False if the farm has none."""
        db = self.portal.db
        if row.kind is Kind.PRESS_PASS and row.account is None and not db.demos:
            return True
        if not self._settle(row):
            return False
        if row.kind is Kind.LIVE:
            self._begin(row)
            return True
        if row.account is None:
            row.account = db.demos.pop(0)
            db.give_seat(row.account, row)
        db.move(row, Status.REQUESTED, "a slot is free", now=self.portal.now())
        return True

    # --- coming, and going live ---------------------------------------------------------------------------------------

    def sign_up(self, customer: int) -> None:
        self._new(customer, Kind.PRESS_PASS)
        self.serve_line()

    def current(self, customer: int) -> Row | None:
        mine = [row for row in self.portal.db.open.values() if row.customer == customer]
        return max(mine, key=lambda row: row.pk, default=None)

    def go_on(self, customer: int, account: str, replaces: Row | None) -> Row:
        """Make a live terminal that is paid for; where no slot is free, it stands first in line."""
        row = self._new(customer, Kind.LIVE, account, replaces.pk if replaces is not None else None)
        row.first_in_line = True
        if self._settle(row):
            self._begin(row)
        return row

    def _old(self, row: Row) -> Row | None:
        return None if row.replaces is None else self.portal.db.rows[row.replaces]

    def _begin(self, row: Row) -> None:
        old = self._old(row)
        if old is None or old.account != row.account or old.status in FREE:
            self.proceed(row)
        elif old.status is Status.WAITING:
            self.end(old, "makes way for its successor")
        elif old.goal is Goal.RUNNING:
            self.stop(old, "makes way for its successor")

    def proceed(self, row: Row) -> None:
        """Take the seat and let the clone be made; refused if another terminal has it."""
        db = self.portal.db
        if row.host is None or row.status is not Status.WAITING:
            return
        holder = db.rows.get(db.seats.get(row.account, 0))
        if holder is not None and holder.pk != row.pk:
            mine = holder.customer == row.customer
            if not (mine and self._hands_over(holder, row)):
                self._leave(row, "another terminal runs this account")
                return
        if self._orphan_runs(row):
            return  # it stays in line until that one is gone
        db.give_seat(row.account, row)
        db.move(row, Status.REQUESTED, "paid; it has a slot", now=self.portal.now())

    def _hands_over(self, holder: Row, row: Row) -> bool:
        if holder.status is Status.LOST:
            return True
        return holder.pk == row.replaces and holder.status in {Status.STOPPED, Status.DESTROYED}

    def _orphan_runs(self, row: Row) -> bool:
        """Whether a host shows a clone of this account that no row of it accounts for."""
        db = self.portal.db
        for host in db.hosts.values():
            for pk in host.lines:
                machine_clone = self.portal.machines[host.id].clones.get(pk)
                known = db.rows.get(pk)
                unknown = known is None or known.host != host.id
                if unknown and machine_clone is not None and machine_clone.account == row.account:
                    return True
        return False

    def successors_go_on(self, old: Row) -> None:
        for row in list(self.portal.db.open.values()):
            if row.replaces == old.pk and row.kind is Kind.LIVE and row.status is Status.WAITING and row.host:
                self.proceed(row)

    # --- stopping, leaving --------------------------------------------------------------------------------------------

    def stop(self, row: Row, why: str) -> None:
        if row.goal is Goal.STOPPED:
            return
        if row.status is Status.STOPPING:
            row.goal = Goal.STOPPED
            return
        self.portal.db.move(row, Status.STOPPING, why, now=self.portal.now(), goal=Goal.STOPPED, attempts=0)

    def resume(self, row: Row) -> None:
        if row.status is Status.LOST and row.goal is Goal.STOPPED:
            row.goal = Goal.DESTROYED
            self.go_on(row.customer, row.account, row)
        elif row.status is Status.STOPPED and row.goal is Goal.STOPPED:
            self.portal.db.give_seat(row.account, row)
            self.portal.db.move(row, Status.STARTING, "paid again", now=self.portal.now(), goal=Goal.RUNNING)

    def end(self, row: Row, why: str) -> None:
        if row.goal is Goal.DESTROYED:
            return
        if row.status is Status.WAITING:
            self._leave(row, why)
        elif row.status is Status.LOST:
            row.goal = Goal.DESTROYED
        else:
            now = self.portal.now()
            self.portal.db.move(row, Status.DESTROYING, why, now=now, goal=Goal.DESTROYED, attempts=0)

    def end_replaced(self, row: Row) -> None:
        old = self._old(row)
        if old is not None and old.pk in self.portal.db.open:
            self.end(old, "replaced by its successor")

    def refuse(self, row: Row) -> None:
        now = self.portal.now()
        self.portal.db.move(
            row, Status.DESTROYING, "not let in", now=now,
            goal=Goal.DESTROYED, attempts=0, connection=Connection.REFUSED,
        )  # fmt: skip

    def _leave(self, row: Row, why: str) -> None:
        made_way = row.host is not None
        self.portal.db.move(row, Status.DESTROYED, why, now=self.portal.now(), goal=Goal.DESTROYED)
        self.gone(row, made_way=made_way)

    def gone(self, row: Row, *, made_way: bool = True) -> None:
        """Nothing of it is left on a host: its seat is free, and whoever waits for that goes on."""
        db = self.portal.db
        if db.has_seat(row):
            db.leave_seat(row)
            if row.kind is Kind.PRESS_PASS:
                db.demos.append(row.account)
        self.successors_go_on(row)
        if made_way:
            self._restart_old(row)

    def _restart_old(self, row: Row) -> None:
        old = self._old(row)
        if old is None or row.proven or old.goal is not Goal.STOPPED or self._has_other_successor(old, row):
            return
        if old.status is Status.LOST:
            self.resume(old)
        elif old.status is not Status.STOPPED:
            old.goal = Goal.RUNNING
        elif old.account not in self.portal.db.seats or self.portal.db.has_seat(old):
            self.resume(old)

    def _has_other_successor(self, old: Row, row: Row) -> bool:
        others = self.portal.db.open.values()
        return any(r.replaces == old.pk and r.pk != row.pk and r.goal is Goal.RUNNING for r in others)
