"""Going live in a real browser: from the demo to the customer's own account, and each way it can be refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psutil
import pytest
from playwright.sync_api import expect

from tests.browser.test_way import UP, is_up, link_from_mail, sign_up
from tests.waiting import until

pytestmark = pytest.mark.browser

LIVE = "PaperBroker-Live"


def ask(stack, query, *values):
    with closing(sqlite3.connect(f"file:{stack.places.database}?mode=ro", uri=True, timeout=5)) as base:
        return base.execute(query, values).fetchall()


def folders_of(stack, email):
    """The customer's folders that stand on the host, and those in which a terminal runs."""
    (customer,) = ask(stack, "SELECT id FROM presspass_user WHERE email = ?", email)[0]
    users = stack.places.farm / "Users"
    mine = {path.name for path in users.iterdir() if path.name.split("-")[0] == f"user_{customer}"}
    running = set()
    for process in psutil.process_iter():
        try:
            if "/portable" in process.cmdline() and process.cwd().startswith(f"{users}/"):
                running.add(process.cwd().rsplit("/", 1)[-1])
        except psutil.Error:
            continue
    return sorted(mine), sorted(running & mine)


def verified(page, email):
    """A customer with a running demo and a confirmed address."""
    sign_up(page, email)
    is_up(page)
    page.get_by_role("button", name="Mail me a link to confirm it").click()
    link_from_mail(page, email).click()
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/terminal/")
    is_up(page)


def hand_in(page, login, password, *, plan="fang"):
    page.goto("/go-live/")
    if plan:
        page.locator(f"input[name=plan][value={plan}]").check()
    page.locator("#id_server").fill(LIVE)
    page.locator("#id_login").fill(str(login))
    page.locator("#id_password").fill(password)
    page.locator("#send").click()


def is_live(page, stack, email, login):
    expect(page.locator(".facts.large")).to_contain_text(str(login), timeout=UP)
    is_up(page)
    expect(page.locator(".facts.large")).to_contain_text(LIVE)
    until(lambda: [len(found) for found in folders_of(stack, email)] == [1, 1], seconds=30)


def test_pay_and_watch_it_go_live_and_only_then_the_demo_goes(page, eyes, looked_at, stack):
    email = "live-at-once@example.org"
    verified(page, email)
    demo = folders_of(stack, email)[0]
    page.goto("/go-live/")
    looked_at("golive-1-form")
    hand_in(page, 7000001, "Paper#7000001")
    page.get_by_role("button", name="Pay", exact=True).click()
    page.wait_for_url("**/terminal/**", timeout=UP)
    is_live(page, stack, email, 7000001)
    looked_at("golive-2-live")
    assert folders_of(stack, email)[0] != demo


def test_a_wrong_password_leaves_the_demo_running_and_is_corrected_without_paying_again(page, eyes, looked_at, stack):
    email = "live-in-two@example.org"
    verified(page, email)
    hand_in(page, 7000004, "Wrong#7000004")
    page.get_by_role("button", name="Pay", exact=True).click()
    page.wait_for_url("**/terminal/**", timeout=UP)
    expect(page.locator("#correct-login").first).to_be_visible(timeout=UP)
    expect(page.locator("main")).to_contain_text("refused the login")
    until(lambda: [len(found) for found in folders_of(stack, email)] == [1, 1], seconds=30)
    looked_at("golive-3-refused")
    hand_in(page, 7000004, "Paper#7000004", plan=None)
    page.wait_for_url("**/terminal/**", timeout=UP)
    is_live(page, stack, email, 7000004)
    paid = ask(stack, "SELECT count(*) FROM presspass_checkout c JOIN presspass_user u ON u.id = c.customer_id "
                      "WHERE u.email = ? AND c.status = 'paid'", email)  # fmt: skip
    assert paid == [(1,)]


def test_a_declined_card_charges_nothing_and_the_demo_runs_on(page, looked_at, stack):
    email = "declined@example.org"
    verified(page, email)
    hand_in(page, 7000002, "Paper#7000002")
    page.get_by_role("button", name="Decline the card").click()
    expect(page.locator("body")).to_contain_text("declined")
    page.get_by_role("button", name="Cancel and go back").click()
    page.goto("/terminal/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("A slot is held for your live terminal")
    expect(page.locator("main")).to_contain_text("Your terminal is running.")
    looked_at("golive-4-declined")
    assert [len(found) for found in folders_of(stack, email)] == [1, 1]
    assert ask(stack, "SELECT count(*) FROM presspass_subscription s JOIN presspass_user u ON u.id = s.customer_id "
                      "WHERE u.email = ?", email) == [(0,)]  # fmt: skip


def test_the_window_closed_right_after_paying_costs_the_customer_nothing(page, looked_at, stack):
    email = "closed-window@example.org"
    verified(page, email)
    hand_in(page, 7000006, "Paper#7000006")
    page.route("**/go-live/paid/**", lambda route: route.abort())
    page.get_by_role("button", name="Pay", exact=True).click(no_wait_after=True)
    live = "SELECT count(*) FROM farm_instance i JOIN presspass_user u ON u.id = i.customer_id WHERE u.email = ? AND "
    until(lambda: ask(stack, live + "i.kind = 'live' AND i.status = 'running'", email) == [(1,)], seconds=60)
    page.unroute("**/go-live/paid/**")
    page.goto("/terminal/")
    is_live(page, stack, email, 7000006)
