"""The paper Stripe as a process of its own, one for all tests of a worker, forgetful between them."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import django
import pytest

django.setup()

from django.core.cache import cache  # noqa: E402

from farm import clock  # noqa: E402
from presspass import limits  # noqa: E402
from presspass.models import Plan  # noqa: E402
from tests.billing import shop as shops  # noqa: E402
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance  # noqa: E402
from tests.waiting import until  # noqa: E402

PROGRAM = Path(__file__).parents[2] / "presspass/paper/stripe.py"


@pytest.fixture(scope="session")
def paper_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stripe")
    said = folder / "said"
    command = [sys.executable, str(PROGRAM), "--port", "0", "--data", str(folder / "book.json")]
    with said.open("wb") as out, (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--secret", shops.SECRET, "--key", shops.KEY], stdout=out, stderr=log)
    until(lambda: said.read_text().endswith("\n") or process.poll() is not None, seconds=30)
    yield shops.Paper(said.read_text().removeprefix("paper stripe on ").strip())
    process.send_signal(signal.SIGTERM)
    process.wait(10)


@pytest.fixture
def paper(paper_process, settings):
    paper_process.ask("reset")
    settings.STRIPE_SECRET_KEY = shops.KEY
    settings.STRIPE_API_BASE = paper_process.url
    settings.STRIPE_WEBHOOK_SECRET = [shops.SECRET]
    settings.LIMIT_LOGINS = "1000/h"
    settings.SUPPORT_EMAIL = "help@example.com"
    with clock.moved(timedelta()):
        yield paper_process


@pytest.fixture(autouse=True)
def nothing_counted():
    cache.clear()
    limits.memory.counts.clear()
    limits.breaker.quiet_until = 0.0


@pytest.fixture
def plans(db):
    for key, name, cents in (("nibbler", "Nibbler", 3900), ("fang", "Fang", 8900)):
        Plan.objects.get_or_create(key=key, defaults={"name": name, "cents": cents, "includes": "One terminal"})


@pytest.fixture
def answering(db):
    return AnsweringHost(HostFactory.create(servers=["PaperBroker-Live", "MetaQuotes-Demo"]))


@pytest.fixture
def shop(paper, plans, answering):
    """A confirmed customer whose demo runs, in front of the page."""
    customer = UserFactory.create(email="ann@example.com", email_verified_at=clock.now())
    answering.obey(instance(customer))
    yield shops.Shop(paper, customer, answering)
    shops.adds_up()
