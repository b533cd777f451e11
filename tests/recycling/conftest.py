"""What the tests of recycling share: a customer whose terminal runs, and a clock that is set."""

from __future__ import annotations

from datetime import timedelta

import django
import pytest

django.setup()

from django.core.cache import cache  # noqa: E402

from farm import clock  # noqa: E402
from farm.models import Host, Instance, Watch  # noqa: E402
from farm.states import Connection  # noqa: E402
from presspass import lifecycle, limits  # noqa: E402
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance  # noqa: E402

DAY = timedelta(hours=24)


@pytest.fixture(autouse=True)
def nothing_counted():
    cache.clear()
    limits.memory.counts.clear()
    limits.breaker.quiet_until = 0.0


@pytest.fixture
def answering(db):
    return AnsweringHost(HostFactory.create())


@pytest.fixture
def running(answering):
    """Make a Press Pass that runs without an account and was last active so long ago."""

    def make(*, quiet=timedelta(), customer=None, **changes):
        row = answering.obey(instance(customer))
        now = clock.now()
        changes = {"connection": Connection.NO_ACCOUNT, "activity_at": now - quiet, **changes}
        Instance.objects.filter(pk=row.pk).update(**changes)
        row.refresh_from_db()
        return row

    return make


@pytest.fixture
def customer(db):
    return UserFactory.create(email="ann@example.com", email_verified_at=clock.now(), time_zone="Europe/Berlin")


def heard():
    """Every host was just heard from, by the clock as it is now, and somebody looks after them."""
    now = clock.now()
    Host.objects.update(surveyed_at=now)
    Watch.objects.update_or_create(pk=1, defaults={"looked_at": now, "leases_seen_at": now})


def run(**options):
    heard()
    return lifecycle.recycle_idle(older_than=DAY, **options)
