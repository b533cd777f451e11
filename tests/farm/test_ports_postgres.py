"""Ports where it counts: on PostgreSQL, with ten thousand of them, and with many processes at once."""

from __future__ import annotations

import json
import multiprocessing

import pytest
from django.db import connection, transaction

from farm import ports
from farm.models import Host, Instance, Port
from farm.states import Status
from tests.factories import HostFactory, UserFactory

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

PORTS = 10_000


def waiting(count):
    customer = UserFactory.create()
    return Instance.objects.bulk_create(
        Instance(customer=customer, kind="live", status=Status.WAITING, folder=f"user_{customer.pk}-{n}")
        for n in range(count)
    )


def host_with(used):
    """A host with ten thousand ports, ``used`` of them taken, spread evenly."""
    host = HostFactory.create(port_first=20_000, port_last=20_000 + PORTS - 1, slots=PORTS)
    numbers = list(host.ports.order_by("number"))
    taken = numbers if used == PORTS else [numbers[n * PORTS // used] for n in range(used)]
    for port, row in zip(taken, waiting(used), strict=True):
        port.instance = row
    Port.objects.bulk_update(taken, ["instance"], batch_size=2000)
    Host.objects.filter(pk=host.pk).update(taken=used)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE farm_port")
    return host


def plan_of(host, row):
    """The planner's choice and the rows and pages that one reservation touched."""
    upper, lower = (ports._FREE.format(side=side, lock="FOR UPDATE SKIP LOCKED") for side in (">=", "<"))
    statement = ports._RESERVE.format(upper=upper, lower=lower)
    start = ports.preferred(host, row.customer_id)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", [row.pk, host.pk, start, host.pk, start])
        found = cursor.fetchone()[0]
    plan = found if isinstance(found, list) else json.loads(found)
    return plan[0]["Plan"]


def nodes(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.mark.parametrize("used", [PORTS // 100, PORTS * 99 // 100])
def test_a_reservation_costs_the_same_on_an_empty_and_on_a_full_host(used, django_assert_num_queries):
    host = host_with(used)
    first, second = waiting(2)
    plan = plan_of(host, first)
    assert not [node for node in nodes(plan) if node["Node Type"] in {"Seq Scan", "Sort", "Bitmap Heap Scan"}]
    assert "port_free" in {node.get("Index Name") for node in nodes(plan)}
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 60
    with transaction.atomic(), django_assert_num_queries(4):  # savepoint, slot, port, release
        ports.reserve(host, second)


def test_of_fifty_processes_that_race_for_the_last_ten_ports_ten_get_one_and_forty_the_typed_error():
    host = host_with(PORTS - 10)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.farm.racer"])
    from tests.farm import racer  # noqa: PLC0415  it sets Django up on import, which the fork server is to do

    start, answers = context.Barrier(50), context.SimpleQueue()
    database = connection.settings_dict["NAME"]
    racers = [
        context.Process(target=racer.report, args=(answers, database, host.pk, row.pk, start)) for row in waiting(50)
    ]
    for process in racers:
        process.start()
    got = [answers.get() for _ in racers]
    for process in racers:
        process.join(timeout=60)
    numbers = [answer for answer in got if isinstance(answer, int)]
    assert len(numbers) == len(set(numbers)) == 10
    assert got.count("NoFreePort") == 40
    host.refresh_from_db()
    assert host.taken == PORTS == Port.objects.filter(host=host, instance__isnull=False).count()
