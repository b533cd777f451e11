"""The operator's way to the agent's verbs: the same functions, the same locks, the same memory as the worker's.

An operator's verb is done for the generation that the host knows, never a lower or a higher one: the portal's next
order is obeyed as if nothing had happened, and what the operator did is in the survey.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from farm.agent import context as contexts
from farm.agent import errors, keepsake, keys, living, logs, master, orders, processes, protocol, verbs
from farm.agent.context import Context
from farm.agent.protocol import Observation, Order, Policy, Verb
from farm.agent.settings import BadSettings, Settings
from farm.agent.state import Goal, State
from farm.agent.survey import Surveyor
from farm.agent.usage import VERBS, parser
from farm.agent.watchdog import Watchdog

DONE, FAILED, USAGE = 0, 1, 2
STOPS_AT_ONCE = 8


# --- main ------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Do one command; return the exit code."""
    options = parser().parse_args(argv)
    logs.to(sys.stderr, level=logging.INFO if options.command in ("worker", "watchdog") else logging.WARNING)
    try:
        settings = Settings.from_environment()
        return COMMANDS[options.command](settings, options)
    except BadSettings as error:
        return _say({"ok": False, "reason": "settings", "detail": str(error)}, USAGE)
    except protocol.BadName as error:
        return _say({"ok": False, "reason": "usage", "detail": str(error)}, USAGE)
    except (keys.BadKeys, protocol.ProtocolError) as error:
        return _say({"ok": False, "reason": "keys", "detail": str(error)}, FAILED)
    except errors.AgentError as error:
        return _say({"ok": False, "reason": error.reason.value, "detail": error.detail}, FAILED)


def _say(answer: dict[str, Any], code: int = DONE) -> int:
    print(json.dumps(answer, indent=2, sort_keys=True, default=str))
    return code


def _context(settings: Settings) -> Context:
    settings.need("host", "key_file")
    assert settings.key_file is not None
    return contexts.opened(settings, keys.load(settings.key_file))


# --- the verbs -------------------------------------------------------------------------------------------------------


def _verb(settings: Settings, options: argparse.Namespace) -> int:
    settings.need("terminal_command")
    context = _context(settings)
    with context.held(options.instance):
        state = _known(context, options)
        order = _order(context, state, options)
        try:
            verbs.ACTS[order.verb](context, order, state)
        except errors.AgentError as trouble:
            return _failed(context, order, state, trouble)
    error = _wait_ready(context, order) if order.verb is Verb.START else None
    state = context.load(options.instance) or state
    return _answer(context.watch.observe(state), error)


def _failed(context: Context, order: Order, state: State, trouble: errors.AgentError) -> int:
    """Answer as the worker would: what an operator is told did not start, the supervision must not start either."""
    report = orders.failure(context, order, state, trouble)
    if state.start_order() == order:
        context.save(state)
    assert report.observed is not None, "a failure is always looked at"
    return _answer(report.observed, trouble)


def _answer(observed: Observation, error: errors.AgentError | None) -> int:
    answer: dict[str, Any] = {"ok": error is None, "observed": asdict(observed)}
    if error is not None:
        answer.update(reason=error.reason.value, detail=error.detail)
    return _say(answer, DONE if error is None else FAILED)


def _known(context: Context, options: argparse.Namespace) -> State:
    state = context.load(options.instance)
    if state is None:
        if not options.folder:
            raise BadSettings(f"Instance {options.instance} is not known on this host: give its --folder.")
        return State(instance=options.instance, folder=protocol.checked_name(options.folder))
    if options.folder and options.folder != state.folder:
        raise BadSettings(f"Instance {state.instance} is {state.folder} on this host, not {options.folder}.")
    return state


def _order(context: Context, state: State, options: argparse.Namespace) -> Order:
    """Return the order that the portal would send, for the generation that is known."""
    before = state.start_order() or state.inject_order()
    injected = state.inject_order()
    usual = {"port": 0, "magic": 0, "kind": "press pass"}
    known = {name: getattr(before, name) for name in usual} if before else usual
    given = {name: getattr(options, name, None) for name in usual}
    chosen: dict[str, Any] = {name: known[name] if value is None else value for name, value in given.items()}
    if living.is_live(str(known["kind"])) and not living.is_live(chosen["kind"]):
        raise BadSettings(f"Instance {state.instance} is live: as a demo it would run without a lease.")
    return Order(
        verb=Verb(options.command),
        host=context.settings.host,
        instance=state.instance,
        epoch=state.epoch,
        generation=state.generation,
        issued_at=context.now(),
        folder=state.folder,
        server=injected.server if injected else "",
        login=injected.login if injected else None,
        **chosen,
    )


def _wait_ready(context: Context, order: Order) -> errors.AgentError | None:
    """Wait until it can be told how the start went, as the worker's watch does, and clear the start-up file away."""
    clone = context.settings.clone(order.folder)
    try:
        while True:
            state = context.load(order.instance)
            if state is None or state.goal is not Goal.RUNNING or state.launch is None:
                return errors.TerminalDied("it was stopped meanwhile")
            verdict = orders.judge(context, state, context.watch.look(state))
            if verdict is not None:
                break
            time.sleep(0.05)
    finally:
        with context.held(order.instance):
            verbs.remove_ini(clone)
    if verdict.error is not None:
        with context.held(order.instance):
            orders.give_up(context, order, verdict.error)
    return verdict.error


def _inject(settings: Settings, options: argparse.Namespace) -> int:
    """An account can be sealed by the portal only, so this takes what the portal would have put into the queue."""
    settings.need("portal_keys")
    context = _context(settings)
    try:
        envelope = json.load(sys.stdin)
    except ValueError as error:
        raise BadSettings("Standard input does not hold an envelope in JSON.") from error
    order = orders.opened(context, envelope)
    if order.verb is not Verb.INJECT:
        raise BadSettings(f"The order on standard input says {order.verb}, not inject.")
    report = orders.obey(context, envelope)
    assert report is not None, "an inject is answered at once"
    answer = {"ok": report.outcome is protocol.Outcome.DONE, **asdict(report)}
    return _say(answer, DONE if answer["ok"] else FAILED)


# --- looking ---------------------------------------------------------------------------------------------------------


def _list(settings: Settings, options: argparse.Namespace) -> int:
    context = _context(settings)
    scan = processes.scan(settings.users)
    rows = []
    for state in context.memory.every():
        seen = context.watch.observe(state, scan=scan)
        rows.append({"goal": state.goal, "verb": state.verb, "tombstone": state.tombstone, **asdict(seen)})
    return _say({"ok": True, "instances": rows})


def _survey(settings: Settings, options: argparse.Namespace) -> int:
    return _say({"ok": True, **asdict(Surveyor(_context(settings)).survey())})


def _stop_all(settings: Settings, options: argparse.Namespace) -> int:
    """Stop by folder, so that a terminal whose state is lost is stopped too."""
    context = _context(settings)
    stopped, left = [], []
    states = {state.folder: state for state in context.memory.every() if not state.tombstone}
    folders = sorted({*processes.scan(settings.users).by_folder, *_launched(states)})
    with ThreadPoolExecutor(STOPS_AT_ONCE) as threads:
        endings = [threads.submit(_end, context, folder, states.get(folder)) for folder in folders]
    for folder, ending in zip(folders, endings, strict=True):
        try:
            ending.result()
            stopped.append(folder)
        except errors.AgentError as error:
            left.append({"folder": folder, "reason": error.reason.value, "detail": error.detail})
    return _say({"ok": not left, "stopped": stopped, "left": left}, FAILED if left else DONE)


def _end(context: Context, folder: str, state: State | None) -> None:
    if state is None:
        processes.stop(context.settings.users, folder, grace_seconds=context.settings.stop_grace_seconds)
        return
    with context.held(state.instance):
        verbs.end(context, context.load(state.instance) or state)


def _launched(states: dict[str, State]) -> list[str]:
    return [folder for folder, state in states.items() if state.launch is not None]


# --- master, keys, worker --------------------------------------------------------------------------------------------


def _check_master(settings: Settings, options: argparse.Namespace) -> int:
    found = master.check(settings.root)
    wrong = any(finding.severity is master.Severity.ERROR for finding in found)
    return _say({"ok": not wrong, "findings": [asdict(finding) for finding in found]}, FAILED if wrong else DONE)


def _prepare_master(settings: Settings, options: argparse.Namespace) -> int:
    actions = master.prepare(settings.root, dry_run=options.dry_run)
    return _say({"ok": True, "dry_run": options.dry_run, "actions": [asdict(action) for action in actions]})


def _keygen(settings: Settings, options: argparse.Namespace) -> int:
    path = options.file or settings.key_file
    if path is None:
        raise BadSettings("FARM_KEY_FILE is not set, and no --file is given.")
    return _say({"ok": True, "host": settings.host, **keys.public(keys.generate(path, rotate=options.rotate))})


def _keepsake(settings: Settings, options: argparse.Namespace) -> int:
    made = keepsake.pack(settings.clone(options.folder), master.load(settings.root).manifest)
    with errors.typed(f"writing {options.out}"):
        options.out.write_bytes(made.data)
    return _say({"ok": True, "files": made.files, "bytes": len(made.data), "left_out": made.left_out})


def _worker(settings: Settings, options: argparse.Namespace) -> int:
    settings.need("broker_url", "portal_keys", "terminal_command")
    # By its name: Celery is loaded for this command alone. The watchdog must live without it.
    importlib.import_module("farm.agent.worker").Worker(_context(settings)).run(concurrency=options.concurrency)
    return DONE


def _watchdog(settings: Settings, options: argparse.Namespace) -> int:
    if settings.policy is Policy.STATIC:
        return _say({"ok": True, "detail": "FARM_POLICY is static: there is no lease to watch."})
    if not settings.root.is_dir():
        raise errors.FolderTrouble(f"{settings.root} is no folder (FARM_ROOT); nothing is made in its place")
    Watchdog(settings).run()
    return DONE


COMMANDS: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
    **{verb.value: _verb for verb in VERBS if verb is not Verb.INJECT},
    Verb.INJECT.value: _inject,
    "list": _list,
    "survey": _survey,
    "stop-all": _stop_all,
    "check-master": _check_master,
    "prepare-master": _prepare_master,
    "keygen": _keygen,
    "keepsake": _keepsake,
    "worker": _worker,
    "watchdog": _watchdog,
}
