"""What must have become of everything when the faults have stopped and time has passed."""

from __future__ import annotations

from farm.states import Goal, Kind, Status
from tests.simulation.portal import Portal
from tests.simulation.rows import Row

STILL = frozenset({Status.RUNNING, Status.STOPPED, Status.DESTROYED})


def _rests(portal: Portal, row: Row) -> bool:
    if row.status is Status.WAITING and row.host is None:
        return _is_full(portal, row)
    if row.status is Status.RUNNING and row.goal is Goal.RUNNING:
        process = portal.machines[row.host].clones[row.pk].process
        return process is not None and process.account == row.account
    return row.status in STILL


def _is_full(portal: Portal, row: Row) -> bool:
    if row.kind is Kind.PRESS_PASS and row.account is None and not portal.db.demos:
        return True
    return not any(portal.going.is_usable(host) for host in portal.db.hosts.values())


def at_rest(portal: Portal) -> bool:
    db = portal.db
    if db.watch.brake.is_on or any(host.lost_at and not host.retired for host in db.hosts.values()):
        return False
    if any(not portal.machines[id].powered and not host.retired and db.on(id) for id, host in db.hosts.items()):
        return False
    return all(_rests(portal, row) for row in db.open.values())


def demand_all_well(portal: Portal) -> None:
    world, db = portal.world, portal.db
    for row in db.open.values():
        world.demand(_rests(portal, row), "%s never came to rest: it is %s on host %s", row, row.status.value, row.host)
    world.demand(at_rest(portal), "the farm never came to rest")
    for account, holder in db.seats.items():
        has = db.open.get(holder)
        world.demand(has is not None and has.account == account, "the seat of %s is held by what is gone", account)
    for account, terminal in world.running.items():
        world.demand(db.seats.get(account) == terminal.instance, "%s runs without its seat", terminal)
    for host in db.hosts.values():
        world.demand(db.free_slots(host) >= 0, "host %s holds more than it has slots", host.id)
