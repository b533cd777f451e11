"""How the page looks while a terminal's machine is silent, lost or left; rows as they are then, no processes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from playwright.sync_api import expect

from farm import clock, lifecycle
from farm.models import Host, Instance, Keepsake
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance
from tests.farm.test_living import go_live

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SIZES = [(1280, 900), (320, 640)]


@pytest.fixture
def hosts(db):
    until = clock.now() + timedelta(seconds=120)
    fields = {"policy": "fenced", "said_policy": "fenced", "fenced_until": until, "stop_seconds": 30}
    return [AnsweringHost(HostFactory.create(slots=slots, **fields)) for slots in (30, 20)]


@pytest.fixture
def customer(db):
    return UserFactory.create(email="ann@example.com", email_verified_at=clock.now(), time_zone="Europe/Berlin")


@pytest.fixture
def live(hosts, customer):
    demo = hosts[0].obey(instance(customer))
    row = go_live(hosts[0], demo)
    hosts[0].obey(Instance.objects.get(pk=demo.pk))
    made_at = clock.now() - timedelta(hours=2)
    Keepsake.objects.create(customer=customer, from_instance=row, data=b"x", size=1, digest="d", made_at=made_at)
    return row


@pytest.fixture
def opened(page, context, live_server, customer):
    """Open the customer's page at a size."""
    browser = Client()
    browser.force_login(customer)
    (name, morsel), *_ = browser.cookies.items()
    context.add_cookies([{"name": name, "value": morsel.value, "url": live_server.url}])

    def at(size):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.goto(f"{live_server.url}/terminal/")
        return page.get_by_role("heading", level=1)

    return at


def silent(host, **time):
    at = clock.now() - timedelta(**time)
    Host.objects.filter(pk=host.host.pk).update(surveyed_at=at)


def lost(host):
    silent(host, minutes=4)
    Host.objects.filter(pk=host.host.pk).update(fenced_until=clock.now() - timedelta(minutes=2))
    lifecycle.give_up_host(host.host.pk, who="staff:1")


@pytest.mark.parametrize("size", SIZES)
def test_a_silent_machine(opened, live, hosts, looked_at, size):
    silent(hosts[0], seconds=45)
    expect(opened(size)).to_contain_text("was running when its machine last reported")
    looked_at("machine-silent")


@pytest.mark.parametrize("size", SIZES)
def test_a_lost_machine(opened, live, hosts, looked_at, size):
    lost(hosts[0])
    expect(opened(size)).to_have_text("Your terminal comes up on another machine.")
    looked_at("machine-lost")


@pytest.mark.parametrize("size", SIZES)
def test_in_line_after_a_loss(opened, live, hosts, looked_at, size):
    Host.objects.filter(pk=hosts[1].host.pk).update(slots=0)
    lost(hosts[0])
    expect(opened(size)).to_have_text("The machine your terminal ran on is down.")
    looked_at("machine-lost-in-line")


@pytest.mark.parametrize("size", SIZES)
def test_running_again(opened, live, hosts, looked_at, size):
    lost(hosts[0])
    hosts[1].obey(Instance.objects.filter(replaces=live).get())
    expect(opened(size)).to_have_text("Your terminal is running.")
    looked_at("machine-after-loss")


@pytest.mark.parametrize("size", SIZES)
def test_being_moved(opened, live, hosts, looked_at, size):
    lifecycle.drain(hosts[0].host.pk, forced=True, who="staff:1")
    lifecycle.drain_on()
    expect(opened(size)).to_have_text("Your terminal moves to another machine.")
    looked_at("machine-moved")
