"""Warned, kept alive, recycled and brought back with what was made in it; in line, and from there to a terminal.

A farm of one slot. A day passes by setting back when the customer was last active: nobody waits for it.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from bitten_portal.stack import Stack
from tests.browser.conftest import SETTINGS
from tests.waiting import until

pytestmark = pytest.mark.browser

SECOND = 1000
UP = 60 * SECOND
PROFILE = "MQL5/Profiles/Charts/Default/mine.chr"
QUICK = {"RECYCLE_SECONDS": "1", "DEMO_ACCOUNTS": "without", "ACCOUNTS": "0"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    with Stack(data_dir=tmp_path_factory.mktemp("recycling") / "var", slots=1, env={**SETTINGS, **QUICK}) as up:
        yield up


@pytest.fixture
def somebody(quick, browser):
    """Make a browser of somebody's own, signed in as nobody."""
    made = []

    def make():
        context = browser.new_context(base_url=quick.url)
        made.append(context)
        return context.new_page()

    yield make
    for context in made:
        context.close()


def sign_up(page, email):
    page.goto("/")
    page.get_by_label("Your e-mail address").fill(email)
    page.get_by_role("button", name="Start my terminal").click()
    page.wait_for_url("**/terminal/")


def says(page, words):
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(words), timeout=UP)


def mailed_link(page, to, subject):
    def there():
        page.goto("/mail/")
        return page.locator(".mails li", has_text=to).filter(has_text=re.compile(subject)).count() > 0

    until(there, seconds=120)
    page.locator(".mails li", has_text=to).filter(has_text=re.compile(subject)).first.get_by_role("link").click()
    return page.locator(".mail-body a", has_text="token=").get_attribute("href")


def last_active(quick, email, *, hours_ago):
    at = (datetime.now(UTC) - timedelta(hours=hours_ago)).strftime("%Y-%m-%d %H:%M:%S.%f")
    its = "customer_id = (SELECT id FROM presspass_user WHERE email = ?) AND status = 'running'"
    with closing(sqlite3.connect(quick.places.database, timeout=20)) as base, base:
        assert base.execute(f"UPDATE farm_instance SET activity_at = ? WHERE {its}", [at, email]).rowcount == 1


def clone_of(quick, page):
    folder = page.locator("dt:text-is('Folder') + dd .value").inner_text()
    return next(quick.places.farm.rglob(f"Users/{folder}"))


def test_warned_kept_alive_recycled_brought_back_and_the_next_in_line_served(quick, somebody):
    ann, mailbox = somebody(), somebody()
    sign_up(ann, "ann@example.org")
    says(ann, "Your terminal is running")
    ann.get_by_role("button", name="Mail me a link to confirm it").click()
    ann.goto(mailed_link(mailbox, "ann@example.org", "sign-in link"))
    ann.get_by_role("button", name="Sign in").click()
    says(ann, "Your terminal is running")
    made = clone_of(quick, ann) / PROFILE
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text("mine")

    last_active(quick, "ann@example.org", hours_ago=19)
    mailbox.goto(mailed_link(mailbox, "ann@example.org", "will be recycled"))
    mailbox.get_by_role("button", name="Keep it").click()
    says(mailbox, "Your terminal is kept")

    bob = somebody()
    sign_up(bob, "bob@example.org")
    says(bob, "You are number 1 in line")

    last_active(quick, "ann@example.org", hours_ago=24.01)
    says(ann, "Your terminal was recycled after 24 h without activity")
    says(bob, "Your terminal is running")

    ann.get_by_role("button", name="Start a new terminal").click()
    says(ann, "You are number 1 in line")
    last_active(quick, "bob@example.org", hours_ago=24.01)
    says(ann, "Your terminal is running")
    assert (clone_of(quick, ann) / PROFILE).read_text() == "mine"
