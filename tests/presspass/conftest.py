"""What the tests of the customers' side share."""

from __future__ import annotations

import django
import pytest

django.setup()  # pytest reads this file before pytest-django has come to it

from django.core.cache import cache  # noqa: E402
from django.test import Client  # noqa: E402

from farm import clock  # noqa: E402
from presspass import limits  # noqa: E402
from tests.factories import AnsweringHost, HostFactory, UserFactory  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_counted():
    cache.clear()
    limits.memory.counts.clear()
    limits.breaker.quiet_until = 0.0


@pytest.fixture
def host(db):
    return HostFactory.create()


@pytest.fixture
def answering(host):
    return AnsweringHost(host)


@pytest.fixture
def customer(db):
    """Somebody whose address is confirmed."""
    return UserFactory.create(email="ann@example.com", email_verified_at=clock.now())


@pytest.fixture
def signed_in(customer):
    browser = Client()
    browser.force_login(customer)
    return browser
