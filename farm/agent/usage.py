"""What the operator may type: commands, options, and the help that teaches them."""

from __future__ import annotations

import argparse
from pathlib import Path

from farm.agent.protocol import Verb

EPILOG = """\
settings (environment):
  FARM_ROOT              the farm's folder: Masters, Users, Pool, State, Trash
  FARM_HOST              this host's name, as the portal knows it
  FARM_TERMINAL_COMMAND  how a terminal is started; {folder}, {ini} and {python} are filled in
  FARM_KEY_FILE          this host's keys (make them with keygen)
  FARM_PORTAL_KEYS       the portal's public keys, base64, comma separated        (worker)
  FARM_BROKER_URL        where orders come from and reports go                    (worker)
  FARM_TERMINAL_USER     whom terminals run as, where the agent is root; empty: as the agent      (not on Windows)
  FARM_POLICY            fenced (default): live terminals only under a lease, with a watchdog; static: without
  FARM_POOL, FARM_LINK, FARM_SURVEY_SECONDS, FARM_READY_SECONDS, FARM_STOP_SECONDS        (docs/host.md)

examples:
  python -m farm.agent list
  python -m farm.agent clone --instance 17 --folder user_9
  python -m farm.agent start --instance 17
  python -m farm.agent stop-all

Every command prints JSON. Exit code 0: done. 1: could not; "reason" and "detail" say why. 2: wrong usage or settings.
"""

KINDS = ("press pass", "live")

VERBS = {
    Verb.CLONE: "make the instance's folder from the master; no-op if it stands",
    Verb.INJECT: "read a signed inject order from standard input and keep its sealed account for the next start",
    Verb.START: "start its terminal and wait until it can be told how that went; no-op if it runs",
    Verb.STOP: "stop its terminal, politely, then by force; no-op if none runs. It is not started again by itself",
    Verb.DESTROY: "stop it, take its folder away and leave a tombstone; no-op if that was done",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m farm.agent",
        description="The agent of a host of MetaTrader terminals, by hand.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for verb, text in VERBS.items():
        _add_verb(commands.add_parser(verb.value, help=text, description=text.capitalize() + "."), verb)
    commands.add_parser("list", help="every instance that this host knows, seen now")
    commands.add_parser("survey", help="what the worker tells the portal every few seconds")
    commands.add_parser("check-master", help="what is wrong with the master, and why it would hurt")
    prepare = commands.add_parser("prepare-master", help="mend in the master what can be mended safely")
    prepare.add_argument("--dry-run", action="store_true", help="only show what would be done")
    keygen = commands.add_parser("keygen", help="make this host's keys; prints the public ones for manage.py add_host")
    keygen.add_argument("--file", type=Path, help="where to keep them (default: FARM_KEY_FILE)")
    keygen.add_argument("--rotate", action="store_true", help="make a new sealing key; the old one still opens")
    kept = commands.add_parser("keepsake", help="pack what the customer made in a clone, as a move would take it along")
    kept.add_argument("--folder", required=True, help="the clone under Users, as user_9")
    kept.add_argument("--out", type=Path, required=True, help="the archive to write")
    worker = commands.add_parser("worker", help="serve this host's queue until told to stop; terminals go on after")
    worker.add_argument("--concurrency", type=_positive, default=8, help="orders obeyed at once (default 8)")
    text = "stop the live terminals when this host's lease is over, and start them while it is not"
    commands.add_parser("watchdog", help=text, description=text.capitalize() + ". Beside the worker, on every host.")
    text = "stop every terminal, leaving what it is meant to be: the next worker starts those again that ran"
    commands.add_parser("stop-all", help=text, description=text.capitalize() + ".")
    return top


def _add_verb(command: argparse.ArgumentParser, verb: Verb) -> None:
    if verb is Verb.INJECT:
        return
    command.add_argument("--instance", type=_positive, required=True, help="the instance's id")
    command.add_argument("--folder", help="its folder under Users, as user_9 (default: the one that is known)")
    if verb in (Verb.CLONE, Verb.START):
        command.add_argument("--port", type=_port, help="port that its bridge is told (default: as before, or 0)")
        command.add_argument("--magic", type=_magic, help="magic number of its orders (default: as before, or 0)")
        command.add_argument("--kind", choices=KINDS, help="press pass or live (default: as before, or press pass)")


def _port(text: str) -> int:
    return _number(text, lowest=0, highest=65535)


def _magic(text: str) -> int:
    return _number(text, lowest=0, highest=2**31 - 1)


def _positive(text: str) -> int:
    return _number(text, lowest=1, highest=2**63 - 1)


def _number(text: str, *, lowest: int, highest: int) -> int:
    number = int(text)
    if not lowest <= number <= highest:
        raise argparse.ArgumentTypeError(f"must be from {lowest} to {highest}")
    return number
