"""Rows of a farm that runs, and what its hosts would say of them. A part of benchmarks.fleet.

Half of the terminals of a host are live, with an account, a seat and a heartbeat; the others are demos. A third of the
live ones have open positions. Every host signs with a key of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.management.color import no_style
from django.db import connection
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from farm import clock, vault
from farm.agent import protocol
from farm.models import BrokerAccount, Host, Instance, Port, Seat
from farm.states import Connection, Goal, Kind, Process, Status
from presspass.models import User

SERVER = "PaperBroker-Live"
BROKERS = 8
DIGEST = "d" * 64
GENERATION = 4
FIRST_PORT = 9000
SPARE_SLOTS = 10
CHANGED_EVERY = 20
"""One in so many has changed in a round with changes: 5 %."""
BEAT_DUE = timedelta(seconds=16)
"""Longer than HEARTBEAT_RESOLUTION_SECONDS: every heartbeat is written."""


def signing_key(host: int) -> SigningKey:
    return SigningKey(hashlib.sha256(b"fleet %d" % host).digest())


def seal_key(host: int) -> PrivateKey:
    return PrivateKey(hashlib.sha256(b"fleet seal %d" % host).digest())


def facts(number: int) -> dict[str, Any]:
    return {
        "currency": "USD",
        "balance": 10_000.0 + number,
        "equity": 10_000.0 + number,
        "positions": 1 if number % 6 == 0 else 0,
        "orders": 0,
        "trade_allowed": True,
        "connected": True,
    }


# --- rows -------------------------------------------------------------------------------------------------------------


def fill(first: int, last: int, *, each: int) -> None:
    """Hosts ``first`` to ``last``, each with ``each`` terminals that run."""
    now = clock.now()
    hosts = Host.objects.bulk_create([_host(number, each, now) for number in range(first, last + 1)])
    numbers = range((first - 1) * each + 1, last * each + 1)
    User.objects.bulk_create(
        [User(pk=number, email=f"bench{number}@example.com", password="!") for number in numbers], batch_size=1000
    )
    password = vault.encrypted("Secret-1aA")
    accounts = {number: _account(number, password) for number in numbers if is_live(number)}
    BrokerAccount.objects.bulk_create(accounts.values(), batch_size=1000)
    rows = [_row(number, hosts[(number - 1) // each - (first - 1)], accounts.get(number), now) for number in numbers]
    Instance.objects.bulk_create(rows, batch_size=1000)
    taken = [Port(host=row.host, number=FIRST_PORT + (row.pk - 1) % each, instance=row) for row in rows]
    free = [Port(host=host, number=FIRST_PORT + each + spare) for host in hosts for spare in range(SPARE_SLOTS)]
    Port.objects.bulk_create([*taken, *free], batch_size=1000)
    Seat.objects.bulk_create(
        [
            Seat(server_key=vault.server_key(_server(row.pk)), login=row.pk, instance=row)
            for row in rows
            if row.account_id
        ],
        batch_size=1000,
    )
    _count_on()


def _count_on() -> None:
    """Rows were made with ids of their own: the next one that is made takes the next."""
    models = [User, BrokerAccount, Host, Instance, Port, Seat]
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), models):
            cursor.execute(statement)


def is_live(number: int) -> bool:
    return number % 2 == 0


def _server(number: int) -> str:
    return f"{SERVER}{number % BROKERS}"


def _host(number: int, each: int, now: datetime) -> Host:
    return Host(
        pk=number,
        name=f"bench{number}",
        slots=each + SPARE_SLOTS,
        taken=each,
        port_first=FIRST_PORT,
        port_last=FIRST_PORT + each + SPARE_SLOTS - 1,
        verify_key=protocol.b64(bytes(signing_key(number).verify_key)),
        seal_key=protocol.b64(bytes(seal_key(number).public_key)),
        surveyed_at=now,
        boot_id="boot",
        master_digest=DIGEST,
        said_policy=Host.Policy.FENCED,
    )


def _account(number: int, password: str) -> BrokerAccount:
    return BrokerAccount(pk=number, server=_server(number), login=number, password=password, owner_id=number)


def _row(number: int, host: Host, account: BrokerAccount | None, now: datetime) -> Instance:
    live = account is not None
    return Instance(
        pk=number,
        customer_id=number,
        host=host,
        account=account,
        folder=f"user_{number}",
        kind=Kind.LIVE if live else Kind.PRESS_PASS,
        status=Status.RUNNING,
        goal=Goal.RUNNING,
        generation=GENERATION,
        connection=Connection.CONNECTED if live else Connection.NO_ACCOUNT,
        digest=DIGEST,
        first_running_at=now,
        proven_at=now if live else None,
        heartbeat_at=now if live else None,
        activity_at=now,
        facts=facts(number) if live else {},
        ends_at=None if live else now + timedelta(days=7),
    )


def settle(kind: str) -> None:
    """Every row as it is before such a round, and every host just heard."""
    now = clock.now()
    beat = now - BEAT_DUE if kind == "beats" else now
    same = {"status": Status.RUNNING, "generation": GENERATION, "next_at": None, "claimed_until": None}
    Instance.objects.update(**same, activity_at=now)
    live = list(Instance.objects.filter(kind=Kind.LIVE).only("pk"))
    for row in live:
        row.connection, row.heartbeat_at, row.facts = Connection.CONNECTED, beat, facts(row.pk)
    Instance.objects.bulk_update(live, ["connection", "heartbeat_at", "facts"], batch_size=500)
    Host.objects.update(surveyed_at=now)


# --- what a host says -------------------------------------------------------------------------------------------------


def survey(host: int, kind: str, *, each: int, now: datetime) -> protocol.Envelope:
    """The signed survey of a host in which nothing changed (``quiet``), 5 % did (``changed``), or nothing did, after
    so long that every heartbeat is to be written (``beats``)."""
    said = protocol.Survey(
        host=f"bench{host}",
        sent_at=now.timestamp(),
        nonce=f"{now.timestamp():.6f}",
        boot_id="boot",
        agent="1",
        master_ok=True,
        master_digest=DIGEST,
        servers=[f"{SERVER}{number}" for number in range(BROKERS)],
        pool={"ready": 3, "wanted": 3},
        load={"cpus": 8, "cpu_percent": 40.0, "load_1m": 3.0, "memory_total": 1 << 35, "memory_available": 1 << 34},
        policy=protocol.Policy.FENCED,
        lease_left=110.0,
        instances=[line(number, kind, now) for number in range((host - 1) * each + 1, host * each + 1)],
    )
    return protocol.sign(said, signing_key(host))


def line(number: int, kind: str, now: datetime) -> protocol.Observation:
    seen: dict[str, Any] = {
        "instance": number,
        "folder": f"user_{number}",
        "present": True,
        "process": Process.RUNNING,
        "pid": 1000 + number,
        "started_at": now.timestamp() - 3600,
        "connection": Connection.CONNECTED if is_live(number) else Connection.NO_ACCOUNT,
        "synchronized": True,
        "trading": True,
        "digest": DIGEST,
        "kind": (Kind.LIVE if is_live(number) else Kind.PRESS_PASS).value,
        "epoch": 1,
        "generation": GENERATION,
        "cpu_seconds": 12.5,
        "memory_bytes": 300 << 20,
        "disk_bytes": 5 << 20,
        "log_bytes": 1 << 16,
    }
    if is_live(number):
        beat = {"at": now.timestamp(), "login": number, "server": _server(number), **facts(number)}
        seen |= {"server": _server(number), "login": number, "heartbeat": beat}
    if kind == "changed" and number % CHANGED_EVERY == 0:
        seen |= _change(number // CHANGED_EVERY, seen)
    return protocol.Observation(**seen)


def _change(turn: int, seen: dict[str, Any]) -> dict[str, Any]:
    """In turn: another balance, the broker lost, the terminal gone and started again by its host."""
    if turn % 3 == 0:
        return {"heartbeat": {**seen["heartbeat"], "balance": 1.0}}
    return {"connection": Connection.LOST} if turn % 3 == 1 else {"process": Process.STOPPED, "heartbeat": None}


def surveys(hosts: Sequence[int], kind: str, *, each: int) -> list[protocol.Envelope]:
    now = clock.now()
    return [survey(host, kind, each=each, now=now) for host in hosts]
