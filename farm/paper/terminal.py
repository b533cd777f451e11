"""The paper terminal: stands in for terminal64.exe wherever no real MetaTrader can run.

    cd <clone> && python terminal.py /portable /config:<ini>

It is a program of its own: it imports nothing of the project, nothing imports it, and it is spoken to only as the real
one is: by its arguments, its ini, its journal, the bridge files of its EA, and signals. It stays one file although it
is long, so that it can be copied anywhere, and it imports little, so that a hundred of them start quickly.

Which accounts exist is told by the JSON file that PAPER_ACCOUNTS names (hashes, never passwords); positions are kept
beside it, one file an account. Who runs an account can be seen from outside: in the folder that PAPER_SEATS names, if
any, each terminal leaves a file <server>-<login>/<its pid> before it asks for that account, and never removes it. How
it misbehaves is told by the account's "quirks" and by PAPER_QUIRKS, separated by commas; `name=number` sets the number:

    slow=5           the broker takes so many seconds to answer
    noanswer         the broker never answers
    relogin=2        the connection is lost so long after it was made, and regained as much later
    update=1         LiveUpdate so long after login, once per folder: the executable is rewritten in place, this process
                     exits 0, and half a second later another one starts with /skipupdate and without the ini
    ea_lost          the EA isn't attached after that update
    late_journal=3   what is said reaches the disk so much later
    flood=64         so many MB of journal, very fast
    crash=2          dies with code 3 so long after connecting
    hang=1           so long after connecting it hears and writes nothing any more
    deaf             ignores a polite stop and goes on working
    dies             exits at once with code 1
    fork             the started process exits 0 at once, another pid goes on
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TYPE_CHECKING = False  # typing itself would cost a fifth of the start
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    Ini = dict[tuple[str, str], str]

BUILD, UPDATED_BUILD = 5836, 5950
EXPERT = "BittenBridge"
BRIDGE = "MQL5/Files/bitten"
COMMON_INI, TERMINAL_INI, ACCOUNTS_DAT = "Config/common.ini", "Config/terminal.ini", "Config/accounts.dat"
SYSTEM = "Windows 10 build 19043 on Wine 9.0 Linux, 3 / 7 Gb memory, 20 / 62 Gb disk, admin, GMT{:+d}"
TRADING = {
    "full": "enabled - hedging mode",
    "investor": "disabled - investor mode",
    "disabled": "disabled - disabled on server",
}
UPDATE_PAUSE_SECONDS = 0.5  # in reality 6 to 15: nothing runs in the folder meanwhile
QUIRKS = {
    "slow": 5.0, "noanswer": 0.0, "relogin": 2.0, "update": 1.0, "ea_lost": 0.0, "late_journal": 3.0, "flood": 64.0,
    "crash": 2.0, "hang": 1.0, "deaf": 0.0, "dies": 0.0, "fork": 0.0,
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- files


def text_of(path: str) -> str:
    """A text file as MetaTrader reads it: UTF-16LE with a mark, else UTF-8; "" if there is none."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError:
        return ""
    return raw[2:].decode("utf-16-le", "replace") if raw[:2] == b"\xff\xfe" else raw.decode("utf-8-sig", "replace")


def read_ini(path: str) -> Ini:
    """(section, key) in lower case -> value exactly as typed; a `;` is a comment at the start of a line only."""
    values: Ini = {}
    section = ""
    for line in text_of(path).split("\n"):
        line = line.removesuffix("\r")
        if line.startswith("[") and line.rstrip().endswith("]"):
            section = line.rstrip()[1:-1].lower()
        elif "=" in line and not line.startswith(";"):
            key, _, value = line.partition("=")
            values.setdefault((section, key.strip().lower()), value)
    return values


def change_ini(path: str, section: str, changes: dict[str, str]) -> None:
    """Set keys of one section and leave every other line as it is, as the terminal does when it closes."""
    lines = text_of(path).rstrip("\r\n").split("\r\n")
    heading = f"[{section}]"
    if heading not in lines:
        lines = [*(line for line in lines if line), heading]
    start = lines.index(heading) + 1
    end = next((n for n in range(start, len(lines)) if lines[n].startswith("[")), len(lines))
    mine = [line for line in lines[start:end] if line and line.partition("=")[0] not in changes]
    mine += [f"{key}={value}" for key, value in changes.items()]
    replace_file(path, b"\xff\xfe" + "\r\n".join([*lines[:start], *mine, *lines[end:], ""]).encode("utf-16-le"))


def read_json(path: str) -> Json:
    """The object in a JSON file; {} when there is none or it isn't one."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def replace_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write beside and move, so that nobody ever reads half of it."""
    beside = path + ".tmp"
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), mode)
    try:
        os.write(file, data)
    finally:
        os.close(file)
    os.replace(beside, path)


def options_of(words: list[str]) -> dict[str, str]:
    """MetaTrader's arguments: `/name` and `/name:value`; whatever else is typed is ignored, as there."""
    return {name: value for name, _, value in (word[1:].partition(":") for word in words if word.startswith("/"))}


def lock_folder() -> int | None:
    """The handle that keeps a second terminal out of this folder, or None when another one is in."""
    handle = os.open("Config/paper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def run_again(arguments: list[str]) -> None:
    """Start this script once more, as a process of its own, in the present working directory."""
    python = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]  # the interpreter's own options, and this script
    words = [sys.executable, *python, *arguments]
    if sys.platform == "win32":
        words = [f'"{word}"' if " " in word else word for word in words]
    os.spawnv(os.P_NOWAIT, sys.executable, words)


class Journal:
    """Daily files of one folder: UTF-16LE with a mark, CRLF, five columns parted by tabs, local time."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.day = ""
        self.file = -1
        self.lines = self.lost = 0

    def entry(self, source: str, message: str, level: int = 0) -> tuple[str, bytes]:
        """The day's file and the bytes of one line, of this moment."""
        now = time.time()
        stamp = time.localtime(now)
        self.lines += 1
        code = chr(65 + (self.lines * 7 + len(message)) % 26) + chr(65 + (self.lines * 11 + len(source)) % 26)
        clock = time.strftime("%H:%M:%S", stamp) + f".{int(now * 1000) % 1000:03d}"
        line = f"{code}\t{level}\t{clock}\t{source}\t{message}\r\n"
        return time.strftime("%Y%m%d", stamp), line.encode("utf-16-le", "replace")

    def write(self, day: str, data: bytes) -> None:
        """Append to that day's file. What can't be written (no folder any more, no room) is lost."""
        try:
            self.append(day, data)
        except OSError:
            self.lost += 1

    def append(self, day: str, data: bytes) -> None:
        """A new day begins a new file, and a new file begins with the mark."""
        if day != self.day:
            os.makedirs(self.folder, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            file = os.open(f"{self.folder}/{day}.log", flags, 0o644)
            if self.file >= 0:
                os.close(self.file)
            self.file, self.day = file, day
            if os.fstat(file).st_size == 0:
                data = b"\xff\xfe" + data
        os.write(self.file, data)


# --------------------------------------------------------------------------------------------------- the broker's side


class Broker:
    """What the trade servers know: the accounts of PAPER_ACCOUNTS, and what each has open."""

    def __init__(self) -> None:
        self.path = os.environ.get("PAPER_ACCOUNTS", "")

    def server(self, name: str) -> Json | None:
        """The accounts of one server by login, or None when no server has that name."""
        accounts = read_json(self.path).get(name) if self.path else None
        return accounts if isinstance(accounts, dict) else None

    def account(self, server: str, login: str) -> Json:
        """One account, or {}."""
        entry = (self.server(server) or {}).get(login)
        return entry if isinstance(entry, dict) else {}

    def name(self, server: str, login: str) -> str:
        """An account's name that every file system can hold."""
        return "".join(c if c.isalnum() or c in "._- " else "_" for c in f"{server}-{login}")

    def record_path(self, server: str, login: str) -> str:
        """Where the account's positions are kept."""
        return f"{self.path}.positions/{self.name(server, login)}.json"

    def sit(self, server: str, login: str) -> None:
        """Show that this process runs the account."""
        if seats := os.environ.get("PAPER_SEATS", ""):
            folder = f"{seats}/{self.name(server, login)}"
            os.makedirs(folder, exist_ok=True)
            replace_file(f"{folder}/{os.getpid()}", b"")

    def record(self, server: str, login: str) -> Json:
        """Positions, the last order's time, the last login: they belong to the account, not to a terminal."""
        empty: Json = {"positions": [], "last_order_at": None, "authorized_at": None, "tickets": 0}
        return {**empty, **read_json(self.record_path(server, login))}

    def keep(self, server: str, login: str, record: Json) -> None:
        """Remember an account's record over restarts and moves."""
        path = self.record_path(server, login)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        replace_file(path, json.dumps(record).encode())


# ------------------------------------------------------------------------------------------------- the terminal itself


class Woken(Exception):
    """A signal came while the terminal slept."""


class Loop:
    """What is to be done when; asleep in between."""

    def __init__(self) -> None:
        self.due: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.stopping = self.asleep = self.deaf = False

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Do it so many seconds from now."""
        self.count += 1
        self.due.append((time.monotonic() + seconds, self.count, do))

    def on_signal(self, number: int, frame: object) -> None:
        """Asked to stop. Raises only out of the sleep, so that nothing is ever left half-written."""
        if self.deaf:
            return
        self.stopping = True
        if self.asleep:
            self.asleep = False
            raise Woken

    def listen(self) -> None:
        """Hear every polite stop that this system has."""
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self.on_signal)

    def sleep(self, seconds: float) -> None:
        """Until the time is over or a signal comes."""
        try:
            self.asleep = True
            if not self.stopping:
                time.sleep(seconds)
            self.asleep = False
        except Woken:
            return

    def run(self) -> None:
        """Do what is due, in order, until told to stop."""
        longest = 0.25 if sys.platform == "win32" else 3600.0  # Windows runs a handler only once the sleep is over
        while not self.stopping:
            first = min(self.due, default=None)
            wait = first[0] - time.monotonic() if first else longest
            if wait > 0:
                self.sleep(min(wait, longest))
            elif first:
                self.due.remove(first)
                first[2]()


class Terminal:
    """One terminal in its folder, which is the working directory: settings, journal, account, connection."""

    def __init__(self, options: dict[str, str]) -> None:
        self.updated = "skipupdate" in options
        self.config = options.get("config", "")
        start = read_ini(self.config) if self.config else {}
        if not start:
            self.config = ""  # as the real one: a wrong path stops nothing, the defaults are used
        self.common = read_ini(COMMON_INI)
        self.settings: Ini = {**self.common, **start}
        self.folder = os.getcwd()
        self.build = int(read_ini(TERMINAL_INI).get(("liveupdate", "lastbuild"), "") or BUILD)
        self.loop, self.broker = Loop(), Broker()
        self.journal, self.prints = Journal("logs"), Journal("MQL5/Logs")
        self.late: list[tuple[str, bytes]] = []
        self.server = self.login = self.digest = ""
        self.choose_account(start, options.get("login", ""))
        self.connected = False
        self.account: Json = {}
        self.record: Json = {"positions": [], "last_order_at": None}
        self.changed = True  # something that the EA reports
        self.quirks = self.find_quirks()
        self.on_connected: list[Callable[[], None]] = []
        self.experts = self.setting("experts", "Enabled") == "1"
        self.loop.deaf = "deaf" in self.quirks

    def setting(self, section: str, key: str, default: str = "") -> str:
        return self.settings.get((section, key.lower()), default)

    def choose_account(self, start: Ini, login: str) -> None:
        """The start ini's account; else a remembered one: the wanted login's, the last used."""
        server, typed = start.get(("common", "server"), ""), start.get(("common", "login"), "")
        password = start.get(("common", "password"), "")
        if server and typed and password:
            self.server, self.login = server, typed
            self.digest = hashlib.sha256(password.encode()).hexdigest()
            return
        wanted = typed or login or self.common.get(("common", "login"), "")
        for known in self.remembered():
            if wanted in ("", known["login"]):
                self.server, self.login, self.digest = known["server"], known["login"], known["sha256"]
                return

    def remembered(self) -> list[dict[str, str]]:
        """Accounts of accounts.dat, last used first: server, login, hash; never a password."""
        known: list[dict[str, str]] = read_json(ACCOUNTS_DAT).get("accounts", [])
        return known

    def remember(self) -> None:
        mine = {"server": self.server, "login": self.login, "sha256": self.digest}
        others = [known for known in self.remembered() if {**known, "sha256": self.digest} != mine]
        replace_file(ACCOUNTS_DAT, json.dumps({"accounts": [mine, *others]}).encode(), 0o600)

    def find_quirks(self) -> dict[str, float]:
        words = os.environ.get("PAPER_QUIRKS", "").split(",")
        words += self.broker.account(self.server, self.login).get("quirks", [])
        parted = (word.strip().partition("=") for word in words if word.strip())
        return {name: float(number) if number else QUIRKS.get(name, 0.0) for name, _, number in parted}

    # -- what it says

    def say(self, source: str, message: str, level: int = 0) -> None:
        """One line of the journal, at once or, with the quirk, late but with the time of now."""
        day, data = self.journal.entry(source, message, level)
        if "late_journal" in self.quirks:
            self.late.append((day, data))
            self.loop.at(self.quirks["late_journal"], self.flush_one)
        else:
            self.journal.write(day, data)

    def flush_one(self) -> None:
        if self.late:
            self.journal.write(*self.late.pop(0))

    def network(self, message: str, level: int = 0) -> None:
        self.say("Network", f"'{self.login}': {message}", level)

    def greet(self) -> None:
        """The lines of every start."""
        self.say("Terminal", f"MetaTrader 5 x64 build {self.build} started for MetaQuotes Ltd.")
        self.say("Terminal", SYSTEM.format(time.localtime().tm_gmtoff // 3600))
        self.say("Terminal", self.folder)
        if self.config:
            self.say("Startup", f'successfully initialized from start config "{self.config}"')
            self.say("Terminal", f"launched with {self.config}")
        if self.updated and self.build == UPDATED_BUILD:
            self.say("Terminal", f"update {self.folder}{os.sep}MQL5 folder started")
            self.say("Terminal", f"update {self.folder}{os.sep}MQL5 folder finished")

    def close(self) -> None:
        """The lines of every stop."""
        self.say("Terminal", "exit with code 0")
        if self.connected:
            self.network(f"disconnected from {self.server}")
        self.say("Terminal", "stopped with 0")
        self.attempt(self.write_settings)
        while self.late:
            self.flush_one()

    def write_settings(self) -> None:
        """What the real one rewrites when it closes."""
        if self.login:
            change_ini(COMMON_INI, "Common", {"Login": self.login, "Server": self.server})
        change_ini(COMMON_INI, "Experts", {"Enabled": str(int(self.experts))})
        change_ini(TERMINAL_INI, "LiveUpdate", {"LastBuild": str(self.build), "LastTime": str(int(time.time()))})

    # -- the connection

    def connect(self) -> None:
        """Ask the broker. A name that the terminal can't resolve is not even tried: no line at all, as in reality."""
        if not self.login:
            return
        self.attempt(lambda: self.broker.sit(self.server, self.login))
        if self.broker.server(self.server) is None:
            if self.server.rpartition(":")[2].isdigit() and ":" in self.server:
                self.network(f"no connection to {self.server}", 2)
        elif "noanswer" in self.quirks:
            self.network("scanning network for access points")
        elif "slow" in self.quirks:
            self.network("scanning network for access points")
            self.loop.at(self.quirks["slow"], self.answer)
        else:
            self.answer()

    def answer(self) -> None:
        """The broker's yes or no."""
        account = self.broker.account(self.server, self.login)
        if account.get("sha256", "").lower() != self.digest:
            self.network(f"authorization on {self.server} failed (Invalid account)", 2)
            return
        self.account, self.connected, self.changed = account, True, True
        self.record = self.broker.record(self.server, self.login)
        self.network(f"authorized on {self.server} through Access Point EU 1 (ping: 44.17 ms, build 3683)")
        before = self.record["authorized_at"]
        if before:
            self.network(f"previous successful authorization performed from 127.0.0.1 on {before}")
        self.record["authorized_at"] = time.strftime("%Y.%m.%d %H:%M:%S")
        self.attempt(self.keep_record)
        synchronized = f"{len(self.record['positions'])} positions, 0 orders, 88 symbols, 0 spreads"
        self.network(f"terminal synchronized with MetaQuotes Software Corp.: {synchronized}")
        self.network(f"trading has been {TRADING[self.mode]}")
        if self.setting("common", "KeepPrivate") == "1":
            self.attempt(self.remember)
        if self.setting("experts", "Account") == "1" and self.common.get(("common", "login")) != self.login:
            self.experts = False
            self.say("Experts", "automated trading is disabled because the account has been changed")
        while self.on_connected:
            self.on_connected.pop()()

    def keep_record(self) -> None:
        """Have the broker remember what the account has."""
        self.broker.keep(self.server, self.login, self.record)

    def attempt(self, write: Callable[[], None]) -> None:
        """Write a file; when it can't be, the journal says so and the terminal goes on."""
        try:
            write()
        except OSError as error:
            self.say("Terminal", f"can't write {error.filename}: {error.strerror}", 2)

    @property
    def mode(self) -> str:
        """full, investor or disabled."""
        return str(self.account.get("mode", "full"))

    def lose_connection(self) -> None:
        if self.connected:
            self.connected, self.changed = False, True
            self.network(f"connection to {self.server} lost")
            self.network("scanning network for access points")

    def order_refused(self) -> str:
        """Why no order can be sent now; "" when it can."""
        if not self.connected:
            return "no connection"
        return "" if self.mode == "full" and self.experts else "trading is disabled"


# ------------------------------------------------------------------------------------------------------- the EA's side


class Bridge:
    """BittenBridge.ex5 on its chart: obeys commands, then writes what it sees; the heartbeat last."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.sequence = 0
        self.state = ""
        self.seconds = 1.0
        self.magic = 0
        symbol, period = terminal.setting("startup", "Symbol", "EURUSD"), terminal.setting("startup", "Period", "H1")
        self.chart = f"({symbol},{period})"

    def attach(self) -> None:
        """OnInit, if the EA is there to be attached."""
        lost = self.terminal.updated and "ea_lost" in self.terminal.quirks
        if lost or not os.path.exists(f"MQL5/Experts/{EXPERT}.ex5"):
            return
        settings = {**read_json(f"{BRIDGE}/identity.json"), **read_json(f"{BRIDGE}/bridge.json")}
        timer, magic = settings.get("timer_ms"), settings.get("magic")
        self.seconds = max(timer, 10) / 1000 if isinstance(timer, (int, float)) else 1.0
        self.magic = magic if isinstance(magic, int) else 0
        os.makedirs(BRIDGE, exist_ok=True)
        self.terminal.say("Experts", f"expert {EXPERT} {self.chart} loaded successfully")
        self.tick()

    def tick(self) -> None:
        """OnTimer. A file that can't be written now (its reader holds it, the disk is full) is written next time."""
        self.terminal.loop.at(self.seconds, self.tick)
        try:
            self.obey_all()
            self.report()
        except OSError as error:
            if self.sequence == 0:
                self.note(f"bridge not written: {error.strerror}")

    def report(self) -> None:
        """The three files. Account and positions only after a change: an idle terminal must cost next to nothing."""
        if self.terminal.changed:
            self.report_account()
            self.terminal.changed = False
        self.sequence += 1
        beat = f'{{"schema": 1, "sequence": {self.sequence}, "at": {time.time():.3f}, {self.state}'
        replace_file(f"{BRIDGE}/heartbeat.json", beat.encode())

    def report_account(self) -> None:
        """Account and positions; and what the next heartbeats say besides their number and time."""
        terminal, account, record = self.terminal, self.terminal.account, self.terminal.record
        who = {"login": int(terminal.login) if account else 0, "server": terminal.server if account else ""}
        balance = float(account.get("balance", 10000.0)) if account else 0.0
        equity = balance + sum(position["profit"] for position in record["positions"])
        money = {
            "name": account.get("name", ""), "currency": account.get("currency", "USD"), "balance": balance,
            "equity": equity, "margin": 0.0, "margin_free": equity, "leverage": account.get("leverage", 100),
        }  # fmt: skip
        open_now = {"positions": record["positions"], "orders": 0, "last_order_at": record["last_order_at"]}
        replace_file(f"{BRIDGE}/account.json", json.dumps({"schema": 1, **who, **money}).encode())
        replace_file(f"{BRIDGE}/positions.json", json.dumps({"schema": 1, **open_now}).encode())
        live = terminal.setting("experts", "AllowLiveTrading", "1") == "1"
        flags = {
            "connected": terminal.connected,
            "terminal_trade_allowed": terminal.experts and live,
            "account_trade_allowed": terminal.connected and terminal.mode == "full",
            "algo_trading": terminal.experts,
        }
        self.state = json.dumps({**who, **flags, "build": terminal.build}).removeprefix("{")

    def note(self, message: str) -> None:
        """What an EA prints: a line in the journal of MQL5, not in the terminal's."""
        self.terminal.prints.write(*self.terminal.prints.entry(f"{EXPERT} {self.chart}", message))

    def obey_all(self) -> None:
        folder = f"{BRIDGE}/commands"
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return
        for name in sorted(name for name in names if name.endswith(".json")):
            command = read_json(f"{folder}/{name}")
            os.remove(f"{folder}/{name}")
            refused = self.obey(command)
            self.note(f"command {name} refused: {refused}" if refused else f"command {name} done")

    def obey(self, command: Json) -> str:
        """Do one command; answers why not, or ""."""
        what, terminal = command.get("do"), self.terminal
        if what == "open":
            return terminal.order_refused() or self.open(command)
        if what == "close":
            return terminal.order_refused() or self.trade([])
        if what == "drop_connection":
            terminal.lose_connection()
        elif what == "restore_connection":
            if not terminal.connected:
                terminal.connect()
        else:
            return "unknown command"
        return ""

    def open(self, command: Json) -> str:
        symbol, volume, side = command.get("symbol"), command.get("volume"), command.get("side", "buy")
        number = isinstance(volume, (int, float)) and not isinstance(volume, bool) and volume > 0
        if not isinstance(symbol, str) or not symbol or not number or side not in ("buy", "sell"):
            return "invalid symbol, volume or side"
        record = self.terminal.record
        record["tickets"] += 1
        position = {
            "ticket": record["tickets"], "symbol": symbol, "side": side, "volume": volume, "open_price": 1.1,
            "profit": 0.0, "magic": self.magic, "opened_at": int(time.time()),
        }  # fmt: skip
        return self.trade([*record["positions"], position])

    def trade(self, positions: list[Json]) -> str:
        """The account's positions after an order."""
        record = self.terminal.record
        record["positions"], record["last_order_at"] = positions, int(time.time())
        self.terminal.changed = True
        self.terminal.attempt(self.terminal.keep_record)
        return ""


# -------------------------------------------------------------------------------------------------------- misbehaviour


class Mischief:
    """What the quirks make of a terminal that has connected."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.updating = False
        self.flooded = 0

    def plan(self) -> None:
        """Misbehave from the first connection on; at once when there is no account to connect with."""
        acts = (self.crash, self.hang, self.update, self.relogin, self.flood)
        for act in acts:
            if act.__name__ in self.terminal.quirks:
                self.terminal.loop.at(0.0 if act == self.flood else self.terminal.quirks[act.__name__], act)

    def crash(self) -> None:
        os._exit(3)

    def hang(self) -> None:
        self.terminal.loop.deaf = True
        while True:
            time.sleep(3600)

    def relogin(self) -> None:
        self.terminal.lose_connection()
        self.terminal.loop.at(self.terminal.quirks["relogin"], self.terminal.connect)

    def flood(self) -> None:
        """A megabyte at a time, so that a stop is still heard."""
        text = f"'{self.terminal.login}': auto connecting to a better access point with 92% quality (previous: 71%)"
        day, line = self.terminal.journal.entry("Network", text)
        self.terminal.journal.write(day, line * (2**20 // len(line)))
        self.flooded += 1
        if self.flooded < self.terminal.quirks["flood"]:
            self.terminal.loop.at(0.0, self.flood)

    def update(self) -> None:
        """LiveUpdate: the updater, a program in another folder, is started and this process makes way for it."""
        terminal, new = self.terminal, UPDATED_BUILD
        if terminal.build >= new or terminal.updated:
            return
        stage = r"C:\Users\paper\AppData\Roaming\MetaQuotes\Terminal\PAPER\liveupdate\terminal64.exe"
        terminal.say("LiveUpdate", f"new version build {new} (IDE: {new}, Tester: {new}) is available")
        terminal.say("LiveUpdate", "'mt5clw64' downloaded (35300 kb)")
        terminal.say("LiveUpdate", "downloaded successfully")
        terminal.say("LiveUpdate", f'start "{stage}" /update /path:"{terminal.folder}" /portable')
        self.updating = terminal.loop.stopping = True


def update_folder(folder: str) -> int:
    """The updater: writes into the executable that is there, which is what makes it dangerous, and starts it."""
    time.sleep(UPDATE_PAUSE_SECONDS)
    if not os.path.isdir(folder):
        return 1  # destroyed meanwhile
    os.chdir(folder)
    journal = Journal("logs")
    executable = os.path.join(folder, "terminal64.exe")
    journal.write(*journal.entry("LiveUpdate", "updating..."))
    try:
        with open(executable, "r+b") as file:
            file.seek(64)
            file.write(f"build {UPDATED_BUILD}".encode())
    except OSError as error:
        journal.write(*journal.entry("LiveUpdate", f"'{executable}' not updated: {error.strerror}", 2))
    else:
        change_ini(TERMINAL_INI, "LiveUpdate", {"LastBuild": str(UPDATED_BUILD)})
        journal.write(*journal.entry("LiveUpdate", f"'{executable}' updated"))
        journal.write(*journal.entry("LiveUpdate", "updated successfully"))
    run_again([f"/skipupdate:{UPDATED_BUILD:032X}", "/portable"])
    return 0


def run_terminal(terminal: Terminal) -> None:
    """From the first line of the journal to the last."""
    mischief = Mischief(terminal)
    terminal.loop.listen()
    terminal.on_connected.append(mischief.plan)
    terminal.greet()
    terminal.connect()
    Bridge(terminal).attach()
    if not terminal.login:
        mischief.plan()
    terminal.loop.run()
    terminal.close()
    if mischief.updating:
        os.chdir(os.path.dirname(os.path.abspath(__file__)))  # the updater isn't one of the folder's processes
        run_again(["/update", f"/path:{terminal.folder}", "/portable"])


def main() -> int:
    words = options_of(sys.argv[1:])
    if "update" in words:
        return update_folder(words.get("path", ""))
    os.makedirs("Config", exist_ok=True)
    terminal = Terminal(words)
    if unknown := sorted(set(terminal.quirks) - set(QUIRKS)):
        sys.stderr.write(f"paper terminal: no such quirk: {', '.join(unknown)}\n")
        return 2
    if "dies" in terminal.quirks:
        return 1
    lock = lock_folder()
    if lock is None:
        return 0
    if "fork" in terminal.quirks and not os.environ.get("PAPER_FORKED"):
        os.environ["PAPER_FORKED"] = "1"
        os.close(lock)
        run_again(sys.argv[1:])
        return 0
    run_terminal(terminal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
