"""What a page, a sweep, a survey ask of PostgreSQL costs nothing for the rows that are at rest: read from its plans."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection, transaction

from farm import clock, doorbell, lifecycle
from farm.models import Host, Instance, Orphan
from farm.states import Connection, Goal, Kind, Reason, Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

AT_REST = 8_000
PAGES = 160
"""So many pages (8 kB) a statement may touch: a changed row costs some in each index. Those at rest fill far more."""


@pytest.fixture
def host():
    return HostFactory.create()


@pytest.fixture
def farm(host, monkeypatch):
    """A farm of long standing: many gone, many running on another host, a few of whatever is due."""
    monkeypatch.setattr(doorbell, "ring", lambda *args, **kwargs: True)
    customer = UserFactory.create()
    other = HostFactory.create(slots=AT_REST, taken=AT_REST)
    old = clock.now() - timedelta(days=9)
    Instance.objects.bulk_create(
        (
            Instance(
                customer=customer, kind=Kind.LIVE, folder=f"old-{number}", created_at=old, status_since=old,
                activity_at=old, host=other if number % 2 else host,
                status=Status.RUNNING if number % 2 else Status.DESTROYED,
                goal=Goal.RUNNING if number % 2 else Goal.DESTROYED,
            )
            for number in range(AT_REST)
        ),
        batch_size=2000,
    )  # fmt: skip
    answering = AnsweringHost(host)
    rows = [answering.obey(instance()) for _ in range(4)]
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE farm_instance")
        cursor.execute("VACUUM ANALYZE farm_host")
    return answering, rows


class Explained:
    """Explains every statement just before it is run, and keeps those that touched many pages."""

    def __init__(self):
        self.costly = []

    def __call__(self, execute, sql, params, many, context):
        if sql.startswith(("SELECT", "UPDATE")):
            with transaction.atomic():
                execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params, many, context)
                answer = context["cursor"].fetchone()[0]
                transaction.set_rollback(True)
            plan = (answer if isinstance(answer, list) else json.loads(answer))[0]["Plan"]
            pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            if pages > PAGES:
                self.costly.append(f"{pages} pages: {sql}")
        return execute(sql, params, many, context)


def costly(act):
    explained = Explained()
    with connection.execute_wrapper(explained):
        act()
    return explained.costly


def some_due(farm):
    answering, rows = farm
    lifecycle.restart(rows[0].pk, who="test")
    Instance.objects.filter(pk=rows[1].pk).update(
        status=Status.FAILED, reason=Reason.FILES_IN_USE, next_at=clock.now() - timedelta(seconds=1)
    )
    Host.objects.filter(pk=answering.host.pk).update(slots=4)
    return [instance() for _ in range(3)]


def test_a_sweep(farm):
    some_due(farm)
    assert costly(lifecycle.sweep) == []


def test_serving_the_line(farm):
    some_due(farm)
    Host.objects.filter(pk=farm[0].host.pk).update(slots=5)
    assert costly(lifecycle.admit) == []


def test_the_page_of_one_in_line(farm):
    row = some_due(farm)[-1]
    assert costly(lambda: (lifecycle.current(row.customer_id), lifecycle.waiting_position(row))) == []


def test_a_signup(farm):
    customer = UserFactory.create()
    assert costly(lambda: lifecycle.request(customer_id=customer.pk, kind=Kind.PRESS_PASS, who="test")) == []


def test_a_step_and_its_answer(farm):
    answering, rows = farm
    lifecycle.restart(rows[0].pk, who="test")
    assert costly(lambda: answering.answer(answering.claim(rows[0]))) == []


@pytest.mark.parametrize("said", ["nothing new", "a change", "a mended master"])
def test_a_survey(farm, said):
    answering, rows = farm
    connected = Connection.LOST if said == "a change" else Connection.CONNECTED
    Host.objects.filter(pk=answering.host.pk).update(master_ok=said != "a mended master")
    lines = [answering.line(row, connection=connected) for row in rows]
    assert costly(lambda: answering.survey(*lines)) == []


def test_recycling(farm):
    idle_before = clock.now() + timedelta(hours=1)
    ids = [row.pk for row in farm[1]]
    assert costly(lambda: lifecycle.recycle(ids, why="idle", who="test", idle_before=idle_before)) == []


def test_looking_for_holds_whose_time_is_over(farm):
    assert costly(lambda: lifecycle.expired_holds(100)) == []


def test_noting_activity(farm):
    with clock.moved(timedelta(hours=1)):
        assert costly(lambda: lifecycle.touch(farm[1][0].customer_id)) == []


def test_emptying_a_host(farm):
    HostFactory.create()
    Host.objects.filter(pk=farm[0].host.pk).update(state=Host.State.DRAINING)
    assert costly(lifecycle.drain_on) == []
    assert Instance.objects.filter(replaces__in=farm[1]).exists()


def test_looking_for_orphans_that_are_to_go(farm):
    gone = clock.now() - timedelta(days=9)
    Orphan.objects.bulk_create(
        Orphan(host=farm[0].host, folder=f"user_{number}", instance_number=number, first_seen_at=gone, gone_at=gone)
        for number in range(AT_REST)
    )
    Orphan.objects.create(host=farm[0].host, folder="user", instance_number=1, first_seen_at=gone, asked_by="staff:1")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE farm_orphan")
    found = []
    assert costly(lambda: found.extend(lifecycle.sweep_orphans())) == []
    assert len(found) == 1
