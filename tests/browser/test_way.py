"""The way of a customer in a real browser, against a whole stack of processes."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.waiting import until

pytestmark = pytest.mark.browser

DESKTOP, PHONE, SMALLEST = (1280, 900), (375, 740), (320, 640)
SECOND = 1000
UP = 60 * SECOND


def sign_up(page, email):
    page.goto("/")
    page.get_by_label("Your e-mail address").fill(email)
    page.get_by_role("button", name="Start my terminal").click()
    page.wait_for_url("**/terminal/")


def is_up(page):
    expect(page.get_by_role("heading", level=1)).to_have_text("Your terminal is running.", timeout=UP)


def link_from_mail(page, to):
    """The newest mail to that address, as the page under /mail/ shows it."""

    def there():
        page.goto("/mail/")
        return page.locator(".mails li", has_text=to).count() > 0

    until(there, seconds=40)
    page.locator(".mails li", has_text=to).first.get_by_role("link").click()
    return page.locator(".mail-body a", has_text="token=")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_sign_up_watch_it_come_up_sign_out_and_come_back_by_link(page, eyes, looked_at, size, scheme):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)
    email = f"ann-{scheme}-{size[0]}@example.org"
    page.goto("/")
    looked_at(f"1-first-page-{scheme}")
    sign_up(page, email)
    is_up(page)
    expect(page.locator(".steps .step-done")).not_to_have_count(0)
    expect(page.locator(".facts.large")).to_contain_text("10,000.00", timeout=UP)
    looked_at(f"2-running-{scheme}")
    folder = page.locator("dt:text-is('Folder') + dd .value").inner_text()
    assert re.fullmatch(r"user_\d+", folder)

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(re.compile(r":\d+/$"))
    page.get_by_role("link", name="Have a sign-in link mailed").click()
    page.get_by_label("Your e-mail address").fill(email)
    looked_at(f"3-sign-in-{scheme}")
    page.get_by_role("button", name="Send me a link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your mail.")
    looked_at(f"4-check-your-mail-{scheme}")

    link = link_from_mail(page, email)
    looked_at(f"5-mail-{scheme}")
    link.click()
    looked_at(f"6-link-{scheme}")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/terminal/")
    is_up(page)
    assert page.locator("dt:text-is('Folder') + dd .value").inner_text() == folder
    page.get_by_text("History").click()
    expect(page.locator("#journal")).to_contain_text("Asked for, by you.")
    looked_at(f"7-back-{scheme}")


def test_restart_end_and_begin_again(page, eyes, looked_at):
    email = "bob@example.org"
    sign_up(page, email)
    is_up(page)
    expect(page.get_by_role("button", name="Restart it")).to_have_count(0)
    page.get_by_role("button", name="Mail me a link to confirm it").click()
    link_from_mail(page, email).click()
    page.get_by_role("button", name="Sign in").click()

    page.get_by_role("button", name="Restart it").click()
    is_up(page)
    expect(page.locator("#journal")).to_contain_text("Stopping began", timeout=UP)

    page.get_by_role("link", name="End my Press Pass").click()
    looked_at("8-end")
    page.get_by_role("button", name="End it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You ended your Press Pass.", timeout=UP)
    looked_at("9-ended")
    page.get_by_role("button", name="Start a new terminal").click()
    is_up(page)
    assert page.locator("dt:text-is('Folder') + dd .value").inner_text().endswith("-2")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/", "first"), ("/sign-in/", "sign-in"), ("/sign-in/sent/", "sent"), ("/mail/", "mails")],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_the_smallest_screen(page, eyes, looked_at, path, name, scheme):
    page.set_viewport_size({"width": SMALLEST[0], "height": SMALLEST[1]})
    page.emulate_media(color_scheme=scheme)
    page.goto(path)
    looked_at(f"small-{name}-{scheme}")


def test_a_bad_address_is_told_at_the_field(page, eyes, looked_at):
    page.goto("/")
    page.get_by_label("Your e-mail address").fill("nonsense")
    page.get_by_role("button", name="Start my terminal").click()
    expect(page.locator(".invalid-feedback")).to_contain_text("not a complete e-mail address")
    looked_at("invalid")


@pytest.mark.parametrize(("path", "name"), [("/nothing/here/", "404"), ("/sign-in/link/?token=used", "bad-link")])
def test_refusals_are_in_our_look(page, looked_at, path, name):
    page.goto(path)
    looked_at(f"refused-{name}")


def test_the_keyboard_alone_is_enough_and_shows_where_it_is(page, eyes):
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the page’s content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Your e-mail address")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type("carol@example.org")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Start my terminal")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/terminal/")


def test_the_focus_stays_where_it_is_while_the_page_renews_itself(page, eyes):
    sign_up(page, "dora@example.org")
    is_up(page)
    button = page.locator("#copy-folder")
    button.focus()
    seen = page.locator("#state").get_attribute("hx-get")
    expect(page.locator("#state")).not_to_have_attribute("hx-get", seen, timeout=15 * SECOND)
    expect(page.locator("#copy-folder")).to_be_focused()


def test_a_double_click_starts_one_terminal(page, eyes):
    page.goto("/")
    page.get_by_label("Your e-mail address").fill("eve@example.org")
    page.get_by_role("button", name="Start my terminal").dblclick()
    page.wait_for_url("**/terminal/")
    is_up(page)
    assert not page.locator("dt:text-is('Folder') + dd .value").inner_text().endswith("-2")


def test_without_scripts_it_works_and_says_the_truth_on_reload(browser, base_url, browser_context_args):
    context = browser.new_context(**{**browser_context_args, "base_url": base_url, "java_script_enabled": False})
    page = context.new_page()
    sign_up(page, "fay@example.org")

    def up():
        page.get_by_role("link", name="Look again").click()
        return page.get_by_role("heading", level=1).inner_text() == "Your terminal is running."

    until(up, seconds=60)
    expect(page.get_by_role("button", name="Copy folder")).to_have_count(0)
    context.close()


def test_nothing_turns_for_who_wants_no_motion(page, eyes):
    page.emulate_media(reduced_motion="reduce")
    sign_up(page, "gus@example.org")
    turning = "[...document.querySelectorAll('*')].filter(one => getComputedStyle(one).animationName !== 'none').length"
    assert page.evaluate(turning) == 0


def test_times_are_in_the_zone_of_the_browser(browser, base_url, browser_context_args):
    context = browser.new_context(**{**browser_context_args, "base_url": base_url, "timezone_id": "Asia/Tokyo"})
    page = context.new_page()
    sign_up(page, "hal@example.org")
    is_up(page)
    expect(page.locator(".ends")).to_contain_text("JST")
    context.close()
