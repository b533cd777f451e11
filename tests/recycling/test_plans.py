"""A run of recycle_idle reads no row that nothing is due for: read from PostgreSQL's plans."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection

from farm import clock, doorbell, lifecycle
from farm.models import Host, Instance
from farm.states import Goal, Kind, Status
from presspass.lifecycle import keep_alive, leaving, recycle_idle, runs
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance
from tests.farm.test_plans import AT_REST, costly

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

DAY = timedelta(hours=24)


@pytest.fixture
def farm(monkeypatch):
    """Thousands of Press Passes in use and thousands that are gone, and one of whatever is due."""
    monkeypatch.setattr(doorbell, "ring", lambda *args, **kwargs: True)
    host = HostFactory.create()
    other = HostFactory.create(slots=AT_REST, taken=AT_REST)
    now = clock.now()
    users = UserFactory._meta.model.objects.bulk_create(
        [UserFactory.build(email=f"r{number}@example.com") for number in range(AT_REST)], batch_size=2000
    )
    Instance.objects.bulk_create(
        (
            Instance(
                customer=user, kind=Kind.PRESS_PASS, folder="x", created_at=now, status_since=now - 3 * DAY,
                first_running_at=now - 2 * DAY, activity_at=now - timedelta(hours=1), host=other,
                ends_at=now + 4 * DAY, warn_end_at=now + 2 * DAY,
                status=Status.RUNNING if number % 2 else Status.DESTROYED,
                goal=Goal.RUNNING if number % 2 else Goal.DESTROYED,
            )
            for number, user in enumerate(users)
        ),
        batch_size=2000,
    )  # fmt: skip
    answering = AnsweringHost(host)
    rows = [answering.obey(instance()) for _ in range(5)]
    Instance.objects.filter(pk__in=[row.pk for row in rows]).update(connection="no account")
    due = [
        {"activity_at": now - timedelta(hours=25), "ends_at": now + 4 * DAY},
        {"activity_at": now - timedelta(hours=19), "ends_at": now + 4 * DAY},
        {"ends_at": now - timedelta(seconds=1)},
        {"ends_at": now + DAY, "warn_end_at": now - timedelta(seconds=1)},
        {},
    ]
    for row, changes in zip(rows, due, strict=True):
        Instance.objects.filter(pk=row.pk).update(**changes)
    with connection.cursor() as cursor:
        for table in ("farm_instance", "farm_host", "presspass_user"):
            cursor.execute(f"VACUUM ANALYZE {table}")
    return rows


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_run(farm, dry_run):
    assert costly(lambda: recycle_idle(older_than=DAY, dry_run=dry_run)) == []


def test_a_run_with_nothing_due(farm):
    recycle_idle(older_than=DAY)
    assert costly(lambda: recycle_idle(older_than=DAY)) == []


def test_letting_held_slots_go_on_and_saying_how_long_it_takes(farm):
    Host.objects.update(slots=0)
    instance()
    assert costly(lambda: (lifecycle.withdraw_expired(), lifecycle.expected_wait(1))) == []


def test_replacing_refused_demo_accounts(farm):
    assert costly(lifecycle.replace_refused) == []


def test_a_keep_alive_link(farm):
    row = Instance.objects.get(pk=farm[1].pk)
    token = keep_alive.url(row.pk, row.activity_at).partition("token=")[2].replace("%3A", ":")
    assert costly(lambda: keep_alive.use(token)) == []


def test_watching_and_letting_go(farm):
    assert costly(lambda: (runs.watch(), leaving.finish())) == []
