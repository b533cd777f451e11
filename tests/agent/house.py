"""A host of its own for one test: a farm root with a tiny master, keys on both sides, paper terminals, its clock."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from farm.agent import orders, processes, protocol
from farm.agent.context import Context
from farm.agent.copying import Modes
from farm.agent.keys import HostKeys
from farm.agent.pool import Pool
from farm.agent.protocol import Credentials, Envelope, Order, Policy, Report, Verb
from farm.agent.settings import Settings
from farm.agent.state import State
from tests.waiting import until

TERMINAL = Path(__file__).parents[2] / "farm" / "paper" / "terminal.py"
SERVER, LOGIN, PASSWORD = "MetaQuotes-Demo", 5000001, "Pass#word1"
ACCOUNT = {"server": SERVER, "login": LOGIN}


@dataclass
class Clock:
    """The system's clock, as far ahead as a test wants it."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class House:
    root: Path
    accounts: Path
    portal: SigningKey = field(default_factory=SigningKey.generate)
    keys: HostKeys = field(default_factory=lambda: HostKeys(SigningKey.generate(), PrivateKey.generate()))
    clock: Clock = field(default_factory=Clock)
    generation: int = 0
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.settings = Settings(
            root=self.root,
            host="alpha",
            portal_keys=(self.portal.verify_key,),
            terminal_command=f"{{python}} {TERMINAL} /portable /config:{{ini}}",
            ready_seconds=20.0,
            stop_grace_seconds=5.0,
            pool=0,
            policy=Policy.STATIC,
        )
        make_master(self.root)
        self.account()
        self.context = self.anew()

    def anew(self, **changes: Any) -> Context:
        """A context that remembers only what is on the disk, as a restarted agent's."""
        self.settings = replace(self.settings, **changes)
        modes = Modes()
        self.context = Context(
            settings=self.settings,
            keys=self.keys,
            modes=modes,
            pool=Pool(self.root, self.settings.pool, modes),
            now=self.clock,
        )
        return self.context

    def account(self, *quirks: str, mode: str = "full", login: int = LOGIN) -> None:
        account = {
            "sha256": hashlib.sha256(PASSWORD.encode()).hexdigest(),
            "mode": mode,
            "balance": 10000.0,
            "quirks": list(quirks),
        }
        self.accounts.write_text(json.dumps({SERVER: {str(login): account}}), encoding="utf-8")

    def order(self, verb: Verb | str, *, password: str = PASSWORD, **changes: Any) -> Order:
        """The portal's next order for instance 17, or the one that ``changes`` make of it."""
        self.generation = changes.get("generation", self.generation + 1)
        fields: dict[str, Any] = {
            "verb": Verb(verb),
            "host": "alpha",
            "instance": 17,
            "epoch": 1,
            "generation": self.generation,
            "issued_at": self.clock(),
            "folder": "user_9",
            "port": 0,
            "magic": 700000017,
            "kind": "press pass",
        }
        order = Order(**{**fields, **changes})
        if order.verb is not Verb.INJECT or order.sealed:
            return order
        known = {name: getattr(order, name) for name in ("host", "instance", "epoch", "generation", "server", "login")}
        return replace(order, sealed=Credentials(**known, password=password).seal(self.keys.seal.public_key))

    def envelope(self, order: Order) -> Envelope:
        return protocol.sign(order, self.portal)

    def obey(self, verb: Verb | str, **changes: Any) -> Report | None:
        return orders.obey(self.context, self.envelope(self.order(verb, **changes)))

    def done(self, verb: Verb | str, **changes: Any) -> Report:
        """Give the order and wait for its report, which must say done."""
        report = self.report(verb, **changes)
        assert (report.outcome, report.reason, report.detail) == (protocol.Outcome.DONE, "", "")
        return report

    def report(self, verb: Verb | str, **changes: Any) -> Report:
        report = self.obey(verb, **changes)
        instance = changes.get("instance", 17)
        return report or until(lambda: orders.conclude(self.context, instance), seconds=30)

    def running(self, **account: Any) -> Report:
        """An instance 17 that runs, with ``account`` or without one."""
        self.done("clone")
        if account:
            self.done("inject", **account)
        return self.done("start", **account)

    def state(self, instance: int = 17) -> State:
        found = self.context.load(instance)
        assert found is not None
        return found

    @property
    def clone(self) -> Path:
        return self.root / "Users" / "user_9"

    @property
    def ini(self) -> Path:
        return self.clone / "Config" / "bitten-start.ini"

    def processes(self, folder: str = "user_9") -> list[processes.Proc]:
        return processes.scan(self.settings.users).of(folder)

    def kill(self) -> None:
        """Kill the terminal of user_9 as a crash would, and wait until it is gone."""
        for proc in self.processes():
            psutil.Process(proc.pid).kill()
        until(lambda: not self.processes())
        processes.reap()


def make_master(root: Path) -> Path:
    master = root / "Masters" / "BITTEN_MASTER"
    for name, content in {
        "terminal64.exe": b"MZ" + bytes(200),
        "Config/common.ini": b"\xff\xfe" + "[Experts]\r\nEnabled=1\r\nAccount=0\r\nProfile=0\r\n".encode("utf-16-le"),
        "Config/servers.dat": b"servers",
        "MQL5/Experts/BittenBridge.ex5": b"EX5",
    }.items():
        path = master / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return master


@contextmanager
def a_house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "farm", tmp_path / "accounts.json")
    try:
        yield house
    finally:
        end_all(house.settings.users)


def end_all(users: Path) -> None:
    """Kill what a test has left, and what that forks meanwhile."""
    until(lambda: not _killed(users))
    processes.reap()


def _killed(users: Path) -> int:
    found = [proc for procs in processes.scan(users).by_folder.values() for proc in procs]
    for proc in found:
        try:
            psutil.Process(proc.pid).kill()
        except psutil.NoSuchProcess:
            continue
    processes.reap()
    return len(found)
