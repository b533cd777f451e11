"""What staff press in an emergency can be pressed, on a desk's screen and on a telephone's."""

from __future__ import annotations

import pytest
from django.test import Client
from playwright.sync_api import expect

from farm import lifecycle
from farm.models import Watch
from presspass.models import User
from tests.factories import HostFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def hosts(page, context, live_server):
    """Open the list of hosts as a superuser, at a width."""
    HostFactory.create()
    browser = Client()
    browser.force_login(User.objects.create_superuser(email="root@example.com", password="x"))
    (name, morsel), *_ = browser.cookies.items()
    context.add_cookies([{"name": name, "value": morsel.value, "url": live_server.url}])

    def at(width):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{live_server.url}/admin/farm/host/")
        return page

    return at


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_the_brake_is_within_reach_on_and_off(hosts, width):
    page = hosts(width)
    page.get_by_role("link", name="Pull the brake").click(timeout=2000)
    page.go_back()
    page.get_by_role("link", name="Add host").click(timeout=2000)
    lifecycle.pull_brake(why="20 of 40 hosts went silent at about the same time", who="staff:1")
    assert Watch.objects.get().brake_why
    page = hosts(width)
    page.get_by_role("link", name="Release the brake").click(timeout=2000)
    expect(page.get_by_role("heading", level=1)).to_contain_text("brake")
