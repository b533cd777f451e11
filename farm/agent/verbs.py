"""The five things a host does to an instance, as plain functions.

Each is given the order and the instance's state, which is locked and already knows the order; each may be repeated
after it was done, or after it was killed anywhere, and ends in the same place. Each raises
:class:`~farm.agent.errors.AgentError` when it cannot do it, and changes nothing that a repetition could not finish.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from farm.agent import (
    bridge,
    build,
    errors,
    faults,
    keeping,
    master,
    ports,
    processes,
    protocol,
    purge,
    startup,
    terminal_user,
    tree,
)
from farm.agent.context import Context
from farm.agent.protocol import Credentials, Order, Process, Reason, Verb
from farm.agent.state import Goal, Launch, State

log = logging.getLogger(__name__)

# What each may take at most, besides waiting for its lock: a clone this; a stop, and with it a destroy, the grace that
# the settings give and processes.KILL_SECONDS; a start until it is decided, the settings' ready_seconds.
CLONE_SECONDS = 120.0


# --- clone -----------------------------------------------------------------------------------------------------------


def clone(context: Context, order: Order, state: State) -> str:
    """Make the instance's folder from the master. No-op if it stands already and is this instance's.

    Returns what staff should know of the keepsake that was to come into it.
    """
    if state.tombstone:
        raise errors.Tombstoned
    _need_user(context)
    folder = context.settings.clone(order.folder)
    if folder.is_dir():
        if not is_ours(context, state):
            raise errors.AlreadyThere(f"{order.folder} stands already and is not instance {state.instance}'s")
    else:
        # The digest goes with it: killed right after the clone became visible, nobody could tell it any more.
        state.built, state.digest = "building", master.load(context.settings.root).digest
        context.save(state)
        state.digest = _made(context, order, state)
    # Never into one that was done before: its customer may have been in it since.
    note = keeping.bring(context, order) if order.keepsake and state.built != "built" else ""
    bridge.write_identity(folder, _identity(context, order, state))
    state.built = "built"
    context.save(state)
    return note


def _made(context: Context, order: Order, state: State) -> str:
    try:
        return build.make_clone(
            context.settings.root,
            order.folder,
            pool=context.pool,
            modes=context.modes,
            deadline_at=time.monotonic() + CLONE_SECONDS,
        ).digest
    except errors.AlreadyThere:
        state.built = ""  # it came between our look and the rename: somebody else's
        context.save(state)
        raise


def _identity(context: Context, order: Order, state: State) -> bridge.Identity:
    return bridge.Identity(
        instance=order.instance,
        host=context.settings.host,
        folder=order.folder,
        kind=order.kind,
        magic=order.magic,
        port=order.port,
        server=order.server,
        login=order.login,
        digest=state.digest,
    )


def is_ours(context: Context, state: State) -> bool:
    """Whether the folder that stands under this instance's name is its own.

    By our memory alone: what lies in a clone, its identity file too, is in the customer's hands. Raise
    :class:`errors.AgentError` if a link stands there: no clone is one, and where its terminal now runs nobody can tell.
    """
    folder = context.settings.clone(state.folder)
    if state.built and tree.links(folder):
        raise errors.AgentError(f"{state.folder} is a link, which no clone is")
    return bool(state.built) and folder.is_dir()


def is_ours_to_end(context: Context, state: State) -> bool:
    """Whether what runs under this instance's name is its own; also when its folder was taken away from under it."""
    folder = context.settings.clone(state.folder)
    return is_ours(context, state) or (bool(state.built) and not os.path.lexists(folder))


# --- inject ----------------------------------------------------------------------------------------------------------


def inject(context: Context, order: Order, state: State) -> None:
    """Keep the sealed account for the next start, after proving that it can be opened and written.

    The password itself is kept nowhere. A running terminal goes on with the account that it has.
    """
    _need_clone(context, state)
    found = _unsealed(context, order)
    startup.text(server=found.server, login=found.login, password=found.password)
    state.injected = asdict(order)
    context.save(state)


def _unsealed(context: Context, order: Order) -> Credentials:
    # What is kept may be of before this machine, or its disk, was made another host: there that account runs elsewhere.
    if order.host != context.settings.host:
        raise errors.CannotUnseal(f"sealed for the host {order.host}, and this one is {context.settings.host}")
    try:
        return protocol.unseal(order, context.keys.unsealing)
    except protocol.ProtocolError as error:
        raise errors.CannotUnseal(str(error)) from error


def _need_clone(context: Context, state: State) -> None:
    if state.tombstone:
        raise errors.Tombstoned
    if not is_ours(context, state):
        raise errors.CloneMissing(f"{state.folder} does not stand under Users")


# --- start -----------------------------------------------------------------------------------------------------------


def start(context: Context, order: Order, state: State) -> None:
    """Start the terminal and return once its process was seen; what becomes of it is the watch's to tell.

    A terminal that runs with this account is re-attached, never started twice; one with another account is stopped
    first.
    """
    _need_clone(context, state)
    _account(context, order, state)
    context.fence.check(order.kind)
    state.goal, state.run, state.reason, state.crashes = Goal.RUNNING, asdict(order), Reason.NONE, []
    context.save(state)
    if not attach(context, order, state):
        launch(context, order, state)


def attach(context: Context, order: Order, state: State) -> bool:
    """Take the process that the instance has, if it has one that serves ``order``, as the one to watch."""
    process, found = processes.find(context.settings.users, state.folder, hint(state))
    if process is Process.UNKNOWN:
        raise errors.AgentError(f"whether {state.folder} has a process cannot be seen by this user")
    if process is Process.STOPPED:
        return False
    known = state.launch
    if known and known.account != account_name(order):
        end(context, state)
        return False
    newest = found[-1]
    if known is None or (known.pid, known.created) != (newest.pid, newest.created):
        state.launch = Launch(
            pid=newest.pid,
            created=newest.created,
            started_at=known.started_at if known else newest.created,
            account=account_name(order),
            journal=known.journal if known else None,
            watchdog=(known.watchdog if known else "") or context.fence.watchdog(order.kind),
        )
        context.save(state)
        log.info("re-attached", extra={"event": "attach", "instance": state.instance, "pid": newest.pid})
    return True


def launch(context: Context, order: Order, state: State) -> None:
    """Write bridge and start-up file and start the process. It must be certain that none runs."""
    folder = context.settings.clone(state.folder)
    _need_user(context)
    terminal_user.check_owner(folder, context.modes.terminal_user)
    found = _account(context, order, state)
    context.fence.check(order.kind)
    if order.port and not ports.is_free(order.port):
        raise errors.PortTaken(f"port {order.port} is held by a program that is not this terminal")
    bridge.clear_stale(folder)
    bridge.write_identity(folder, _identity(context, order, state))
    bridge.write_bridge(folder, magic=order.magic, port=order.port)
    faults.point("bridge written")
    state.launch = Launch(
        pid=0,
        created=0.0,
        started_at=context.now(),
        account=account_name(order),
        journal=context.watch.checkpoint(folder),
    )
    context.save(state)
    ini = startup.ini_path(folder)
    try:
        _write_ini(ini, found)
        proc, watchdog = _launched(context, order, folder, ini)
    except Exception:
        remove_ini(folder)
        raise
    state.launch = replace(state.launch, pid=proc.pid, created=proc.created, watchdog=watchdog)
    context.save(state)


def _launched(context: Context, order: Order, folder: Path, ini: Path) -> tuple[processes.Proc, str]:
    """Start the process, or have the watchdog do it; return that one's name, too, or ""."""
    if not context.fence.is_for(order.kind):
        user, group = context.modes.terminal_user, context.modes.terminal_group
        return processes.launch(context.settings.terminal_command, folder, ini, user=user, group=group), ""
    try:
        return context.fence.launch(order.folder)
    except errors.NoLease:
        # It may have been started all the same, and the answer lost. It must not run on behind our back.
        processes.stop(context.settings.users, order.folder, grace_seconds=0.0)
        raise


def _need_user(context: Context) -> None:
    if context.modes.barred:
        raise errors.TerminalCommand(context.modes.barred)


def _write_ini(ini: Path, found: Credentials | None) -> None:
    if found is None:
        startup.write(ini)
    else:
        startup.write(ini, server=found.server, login=found.login, password=found.password)


def _account(context: Context, order: Order, state: State) -> Credentials | None:
    """Open the account that ``order`` names; None if it names none. Raises :class:`errors.NotInjected`."""
    if order.login is None:
        return None
    kept = state.inject_order()
    if kept is None or (kept.server, kept.login) != (order.server, order.login):
        raise errors.NotInjected(f"account {order.login} on {order.server} was not injected before its start")
    return _unsealed(context, kept)


def account_name(order: Order) -> str:
    return "" if order.login is None else f"{order.login}@{order.server}"


def hint(state: State) -> processes.Proc | None:
    return processes.Proc(state.launch.pid, state.launch.created) if state.launch and state.launch.pid else None


def remove_ini(folder: Path) -> None:
    """Remove the start-up file, which may hold a password; one that is held open is left to the supervision."""
    try:
        startup.remove(startup.ini_path(folder))
    except errors.AgentError as error:
        log.warning("start-up file not removed", extra={"event": "ini", "folder": folder.name, "detail": error.detail})


# --- stop and destroy ------------------------------------------------------------------------------------------------


def stop(context: Context, order: Order, state: State) -> None:
    """End the instance's processes, politely and then by force. No-op if it has none, or no folder.

    What runs in a folder that no state accounts for may be this very instance: it is neither ended nor called gone.
    """
    if state.goal is not Goal.DESTROYED:
        state.goal = Goal.STOPPED
        context.save(state)
    _end_what_is_ours(context, state)


def _end_what_is_ours(context: Context, state: State) -> None:
    """Stop the instance's processes; those of another that bears its name are left alone."""
    if is_ours_to_end(context, state):
        end(context, state)
    elif context.watch.unaccounted(state)[0] is not Process.STOPPED:
        raise errors.WillNotStop(f"something may run in {state.folder}, and no state on this host says whose it is")


def end(context: Context, state: State) -> None:
    """Stop the instance's processes and remove its start-up file, whatever it is meant to be."""
    try:
        processes.stop(context.settings.users, state.folder, grace_seconds=context.settings.stop_grace_seconds)
        faults.point("terminal stopped")
        if (known := hint(state)) and processes.is_alive(known):
            raise errors.WillNotStop(f"process {known.pid} runs on where {state.folder} was taken to")
    finally:
        remove_ini(context.settings.clone(state.folder))
    state.launch = None
    context.save(state)


def destroy(context: Context, order: Order, state: State) -> str:
    """Stop the terminal, take the folder away and leave a tombstone. No-op if that was done, or if it never was made.

    A folder of that name that is another instance's, or nobody's that we know, is left alone. Returns what staff should
    know of the keepsake; while the portal does not get it, the folder stays where it is.
    """
    note = ""
    if not state.tombstone:
        state.goal = Goal.DESTROYED
        context.save(state)
    _end_what_is_ours(context, state)
    if is_ours(context, state):
        note = keeping.send(order, keeping.packed(context, state)) if order.keepsake else ""
        purge.discard(context.settings.root, context.settings.clone(state.folder))
    if not state.tombstone:
        state.bury(at=context.now())
        context.save(state)
    context.watch.forget(state.instance)
    return note


ACTS: dict[Verb, Callable[[Context, Order, State], str | None]] = {
    Verb.CLONE: clone,
    Verb.INJECT: inject,
    Verb.START: start,
    Verb.STOP: stop,
    Verb.DESTROY: destroy,
}
"""What obeys which verb; what it returns is for staff to read. (A keep changes nothing: farm.agent.orders.)"""

__all__ = ["ACTS", "Context", "attach", "clone", "destroy", "end", "inject", "launch", "remove_ini", "start", "stop"]
