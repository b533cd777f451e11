"""Keeping what is meant to run running, and clearing away what was left: by what is on the disk, not by memory.

A process that is found running is re-attached and never restarted because our records are bad. One that died is
started again, later each time, and not at all after it died too often. An update's relaunch is no death; an update that
lost the Expert Advisor is a reason for a proper restart.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

import psutil

from farm.agent import bridge, inside, processes, reserve, startup, state, verbs
from farm.agent.context import Context
from farm.agent.errors import AgentError, NoLease, TooSlow
from farm.agent.living import is_live
from farm.agent.processes import Scan
from farm.agent.protocol import Order, Process, Reason
from farm.agent.state import Goal, State
from farm.agent.watch import Look

log = logging.getLogger(__name__)

LOOP_CRASHES, LOOP_SECONDS = 5, 120.0
"""So many deaths in so long are a crash loop."""
CRASHES_KEPT = 50
EXPERT_SECONDS = 15.0
"""So long after an update the Expert Advisor may take to give its first heartbeat."""
LOCK_SECONDS = 0.05
"""An instance that is being worked on is looked at again in a second."""
STARTS_AT_ONCE = 4
"""In one pass: after a reboot all terminals are due, and each costs seconds of processor time in its first moments."""
TOMBSTONE_SECONDS = 7 * 24 * 3600.0
"""Much longer than an order lives: nothing that the tombstone refuses can come any more."""
JOURNAL_DAYS, JOURNAL_BYTES = 14, 64 << 20
MOST_JOURNALS = 10_000


def tend(context: Context, *, first: bool = False) -> int:
    """Look at every instance once and set right what is not as it should be; return how many terminals were started.

    ``first``: nobody looked before, so a missing process was stopped with the machine or by hand, and is no crash.
    """
    scan = processes.scan(context.settings.users)
    started = 0
    for known in context.memory.every():
        if known.tombstone:
            continue
        try:
            if not _concerns_us(context, known, scan):
                continue
            with context.held(known.instance, seconds=LOCK_SECONDS):
                current = context.load(known.instance)
                if current is not None and not current.tombstone:
                    started += _tend_one(context, current, first=first, may_start=started < STARTS_AT_ONCE)
        except TooSlow:
            continue
        except AgentError as error:
            log.warning("not tended", extra={"event": "tend", "instance": known.instance, "detail": error.detail})
        except Exception:  # what is in one clone is a customer's, and must not leave all others untended
            log.exception("a defect while tending", extra={"event": "tend", "instance": known.instance})
    return started


def _concerns_us(context: Context, known: State, scan: Scan) -> bool:
    """Whether anything may have to be done; most instances need nothing most of the time, and no lock for it."""
    if startup.ini_path(context.settings.clone(known.folder)).exists():
        return True
    if known.goal is not Goal.RUNNING or (known.awaits_start and known.launch and known.launch.pid):
        return False
    look = context.watch.look(known, scan=scan)
    launch = known.launch
    if look.observation.process is Process.RUNNING and launch and launch.pid == look.observation.pid:
        return _lost_expert(context, known, look)
    return True


def _tend_one(context: Context, current: State, *, first: bool, may_start: bool) -> int:
    """Set one instance right, whose lock is held; return 1 if its terminal was started."""
    look = context.watch.look(current)
    order = current.start_order()
    _clear_ini(context, current, look)
    if current.goal is not Goal.RUNNING or order is None or look.observation.process is Process.UNKNOWN:
        return 0
    if look.observation.process is Process.RUNNING:
        if _lost_expert(context, current, look):
            return _restart(context, current, order)
        verbs.attach(context, order, current)
        return 0
    if _ran_under_a_lease(context, current, order):
        current.launch = None
        _note_no_lease(context, current)
        return 0
    if current.launch is not None:
        if look.may_come_back and not _is_certainly_gone(current, first=first):
            return 0
        counts = not first and not current.awaits_start and not look.ending.taken_down
        _note_death(context, current, counts=counts)
    if current.awaits_start and not first:
        return 0  # its order's to tell
    if context.fence.bars(order.kind):
        _note_no_lease(context, current)
        return 0
    if may_start and _is_due(context, current):
        return _start(context, current, order)
    return 0


def _ran_under_a_lease(context: Context, current: State, order: Order) -> bool:
    """Whether a host that is static now stopped it for its lease, or with its watchdog: only an order starts it again.

    It may run elsewhere by now. Making a host static must not be a way round the fence.
    """
    if context.fence.is_on or not is_live(order.kind):
        return False
    return current.reason is Reason.NO_LEASE or bool(current.launch and current.launch.watchdog)


def _is_certainly_gone(current: State, *, first: bool) -> bool:
    """Whether the process cannot be on its way back: never started, or ended with the machine."""
    launch = current.launch
    return launch is None or (first and (launch.pid == 0 or launch.started_at < psutil.boot_time()))


def _note_death(context: Context, current: State, *, counts: bool) -> None:
    if current.awaits_start and not counts and current.launch and current.launch.pid:
        return
    log.warning("terminal is gone", extra={"event": "gone", "instance": current.instance, "counts": counts})
    current.launch = None
    if counts:
        _note_crash(context, current)
    context.save(current)


def _note_no_lease(context: Context, current: State) -> None:
    """Say why it is not running. What was given up for its crashes stays so."""
    if current.reason not in (Reason.NO_LEASE, Reason.CRASH_LOOP):
        current.reason = Reason.NO_LEASE
        context.save(current)


def _note_crash(context: Context, current: State) -> None:
    current.crashes = [*current.crashes, context.now()][-CRASHES_KEPT:]
    if len(_recent(context, current)) >= LOOP_CRASHES:
        current.reason = Reason.CRASH_LOOP
        log.error("crash loop", extra={"event": "crash_loop", "instance": current.instance})


def _recent(context: Context, current: State) -> list[float]:
    """Those of the last minutes; not those after now, which a clock that was set back would keep new for days."""
    return [at for at in current.crashes if 0 <= context.now() - at < LOOP_SECONDS]


def _is_due(context: Context, current: State) -> bool:
    """Whether a dead terminal may be started now: 1, 2, 4, ... seconds after it died, and not in a crash loop."""
    if current.reason is Reason.CRASH_LOOP:
        return False
    recent = _recent(context, current)
    return not recent or context.now() - recent[-1] >= 2.0 ** (len(recent) - 1)


def _restart(context: Context, current: State, order: Order) -> int:
    log.warning("expert lost after an update", extra={"event": "expert_lost", "instance": current.instance})
    verbs.end(context, current)
    return _start(context, current, order)


def _start(context: Context, current: State, order: Order) -> int:
    try:
        verbs.launch(context, order, current)
    except NoLease:
        current.launch, current.reason = None, Reason.NO_LEASE
        context.save(current)
        return 0
    except AgentError as error:
        current.launch, current.reason = None, error.reason
        _note_crash(context, current)
        context.save(current)
        log.warning("not started again", extra={"event": "start", "instance": current.instance, "detail": error.detail})
        return 0
    if current.reason is not Reason.NONE:
        current.reason = Reason.NONE
        context.save(current)
    log.info("started again", extra={"event": "start", "instance": current.instance})
    return 1


def _lost_expert(context: Context, current: State, look: Look) -> bool:
    """Whether an update brought the terminal back without its Expert Advisor."""
    standing, seen = look.standing, look.observation
    if (
        standing is None
        or not standing.updated
        or standing.updating
        or standing.expert_loaded
        or seen.started_at is None
    ):
        return False
    if not (context.settings.clone(current.folder) / "MQL5" / "Experts" / f"{startup.EXPERT}.ex5").exists():
        return False
    last = max(seen.started_at, seen.heartbeat.get("at", 0.0) if seen.heartbeat else 0.0)
    return context.now() - last > EXPERT_SECONDS


def _clear_ini(context: Context, current: State, look: Look) -> None:
    """Remove the start-up file once it was read, and when nobody is going to read it."""
    clone = context.settings.clone(current.folder)
    if not startup.ini_path(clone).exists():
        return
    read = look.standing is not None and look.standing.ini_read
    launch = current.launch
    alive = look.observation.process is not Process.STOPPED and launch is not None
    waiting = alive and launch is not None and launch.waited(context.now()) < context.settings.ready_seconds
    if read or not (waiting or (current.awaits_start and launch is not None and look.may_come_back)):
        verbs.remove_ini(clone)


def clear_read_ini(context: Context, instance: int) -> None:
    """Remove the start-up file of a start that is on its way, if its journal shows that it was read."""
    try:
        with context.held(instance, seconds=0.0):
            current = context.load(instance)
            if current is not None:
                _clear_ini(context, current, context.watch.look(current))
    except TooSlow:
        return  # someone works on it; the next look comes soon


# --- once, and now and then -------------------------------------------------------------------------------------------


def clear_leftovers(context: Context) -> None:
    """Remove what a killed agent left: half-built clones, start-up files that nobody waits for, half-written states."""
    if context.pool:
        context.pool.clean()
    waiting = {known.folder for known in context.memory.every() if known.goal is Goal.RUNNING}
    with suppress(FileNotFoundError):
        for clone in context.settings.users.iterdir():
            if clone.name not in waiting:
                verbs.remove_ini(clone)
    state.mend(context.settings.state_folder, now=time.time())
    for path in state.leftovers(context.settings.state_folder, older_than_seconds=60.0, now=time.time()):
        with suppress(OSError):
            path.unlink()


def prune(context: Context) -> None:
    """Forget tombstones that nothing can come after, and thin out the journals of every clone."""
    now = context.now()
    reserve.keep(context.settings.state_folder)
    for known in context.memory.every():
        if known.tombstone:
            if now - (known.destroyed_at or now) > TOMBSTONE_SECONDS:
                with suppress(TooSlow), context.held(known.instance, seconds=LOCK_SECONDS):
                    state.forget(context.settings.state_folder, known.instance)
        elif known.built:
            for folder in bridge.JOURNALS:
                prune_journals(context.settings.clone(known.folder), folder, now=now)


def prune_journals(
    clone: Path, folder: str, *, now: float, days: float = JOURNAL_DAYS, most_bytes: int = JOURNAL_BYTES
) -> None:
    """Remove old journals, the oldest first, until they are young and small enough. The newest is never touched."""
    with suppress(OSError), inside.opened(clone, folder) as journals:
        names = sorted((e.name for e in journals.entries(most=MOST_JOURNALS) if e.name.endswith(".log")), reverse=True)
        total = 0
        for position, name in enumerate(names):
            with suppress(OSError):
                found = journals.look(name)
                total += found.st_size
                if position and (total > most_bytes or now - found.st_mtime > days * 86400):
                    journals.remove(name)
