"""``make run``: a stack in the foreground, until Ctrl-C, SIGTERM, or the death of who started it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bitten_portal.stack.environments import PYTHON, Environments
from bitten_portal.stack.keys import Keys
from bitten_portal.stack.places import REPOSITORY, Places, StackError
from bitten_portal.stack.running import STAFF, Stack

PARENT_SECONDS = 0.3
DATA_DIR = Path("var")
UP = """
BITTEN Portal is running.

  page    {url}/
  mail    {url}/mail/     what the portal sends is read here
  admin   {url}/admin/    {staff}   {password}
  data    {data}     logs in {log}

Ctrl-C ends it, terminals included. The next `make run` goes on where this one stopped.
"""


def say(text: str) -> None:
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.manage and options.manage[0] != "manage":
        parser.error(f"{options.manage[0]!r} is not known; only `manage COMMAND …` may stand here")
    try:
        if options.manage:
            return manage(Places(options.data_dir), options.manage[1:])
        where = {"data_dir": options.data_dir, "port": options.port}
        return run(Stack(**where, slots=options.slots, hosts=options.hosts, say=say))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bitten_portal.stack", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="of the page (default 8000)")
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="where everything is kept (default var)")
    parser.add_argument("--slots", type=int, default=20, help="terminals at once on each host (default 20)")
    parser.add_argument("--hosts", type=positive, default=1, help="hosts, all on this machine (default 1)")
    parser.add_argument("manage", nargs=argparse.REMAINDER, help="`manage COMMAND …`: a Django command on its database")
    return parser


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("give a number from 1 on")
    return int(text)


def run(stack: Stack) -> int:
    """Until told to stop. Whoever started us may die without telling: then our parent is another."""
    parent = os.getppid()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stack.interrupt()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    say("Starting; the first time takes a few seconds more.")
    with stack:
        say(_up(stack))
        while os.getppid() == parent and not stack.interrupted:
            time.sleep(PARENT_SECONDS)
        say("\nEnding, terminals included.")
    return 0


def _up(stack: Stack) -> str:
    known = (
        f"its password was shown on the first run; a new one: {make_manage(stack.places, f'changepassword {STAFF}')}"
    )
    password = f"password {stack.staff_password}   (shown this once)" if stack.staff_password else known
    return UP.format(url=stack.url, staff=STAFF, password=password, data=stack.places.data_dir, log=stack.places.log)


def make_manage(places: Places, command: str) -> str:
    """What to type for a Django command on this stack."""
    where = "" if places.data_dir == Places(DATA_DIR).data_dir else f" DATA_DIR={shlex.quote(str(places.data_dir))}"
    return f"make manage{where} C={shlex.quote(command)}"


def manage(places: Places, command: Sequence[str]) -> int:
    """Run a Django command as the web process would: without the keys that only the portal worker has."""
    try:
        ports = json.loads(places.ports.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StackError(f"Nothing was run on {places.data_dir} yet: make run comes first.") from error
    environments = Environments(
        places=places,
        keys=Keys.kept(places.secrets),
        port=ports["web"],
        broker_port=ports["broker"],
        stripe_port=ports.get("stripe", 0),
        extra={},
    )
    env = {**environments.web(), "TERM": os.environ.get("TERM", "dumb")}
    return subprocess.run([PYTHON, "manage.py", *command], env=env, cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
