"""Every date in every mail is the row's, in the customer's own zone, under every policy; and the link keeps, once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from zoneinfo import ZoneInfo

import pytest
from django.core.signing import dumps
from django.test import Client

from farm import clock
from farm import lifecycle as farm_lifecycle
from farm.models import Instance, Keepsake
from presspass import lifecycle, moments
from presspass.lifecycle import keep_alive
from presspass.models import Notice, User
from tests.factories import UserFactory, instance
from tests.recycling.conftest import heard

pytestmark = pytest.mark.django_db

ZONES = ["", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "Australia/Lord_Howe"]
SHOWN = re.compile(r"[A-Z][a-z]{2} \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d [A-Z]{3,5}(?:[+-]\d+(?::\d\d)?)?")


def mailed(mailoutbox):
    """The one mail that was just sent, as (subject, text, HTML)."""
    heard()
    lifecycle.recycle_idle(older_than=timedelta(hours=24))
    lifecycle.notice_news()
    lifecycle.send_due()
    sent = mailoutbox[-1]
    return sent.subject, sent.body, sent.alternatives[0].content


def dates_in(text):
    return set(SHOWN.findall(text))


def said(moment, name):
    zone = ZoneInfo(name) if name else UTC
    return moments.full(moment, zone=zone).text, moments.at(moment, now=clock.now(), zone=zone).text


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize(("idle", "warn"), [(24, 6), (24, 1), (2, 6), (72, 48)])
def test_the_date_of_a_warning_is_when_the_row_goes(running, mailoutbox, settings, name, idle, warn):
    settings.IDLE_HOURS, settings.WARN_HOURS = idle, warn
    customer = UserFactory.create(time_zone=name)
    row = running(customer=customer, quiet=timedelta(hours=idle - min(warn, idle / 2)) + timedelta(minutes=1))
    heard()
    lifecycle.recycle_idle(older_than=timedelta(hours=idle))
    lifecycle.send_due()
    sent = mailoutbox[-1]
    full, near = said(row.activity_at + timedelta(hours=idle), name)
    assert near in sent.subject
    for text in (sent.body, sent.alternatives[0].content):
        assert dates_in(text) == {full}
    assert keep_alive.look_at(re.search(r"token=(\S+)", sent.body)[1].replace("%3A", ":")).goes_at == (
        row.activity_at + timedelta(hours=idle)
    )


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("days", [7, 3, 30])
def test_the_date_of_an_end_is_the_row_s(running, mailoutbox, settings, name, days):
    settings.PRESS_PASS_DAYS = days
    running(customer=UserFactory.create(time_zone=name))
    lifecycle.recycle_idle(older_than=timedelta(hours=24))
    with clock.moved(timedelta(days=days - 1, minutes=5)):
        Instance.objects.update(activity_at=clock.now())
        subject, text, html = mailed(mailoutbox)
        ends_at = Instance.objects.get().ends_at
        full, near = said(ends_at, name)
    assert subject == f"Your Press Pass ends {near}"
    assert dates_in(text) == dates_in(html) == {full}


def test_a_renewal_after_the_warning_makes_the_old_date_untrue_and_unsent(running, mailoutbox, customer):
    now = clock.now()
    running(customer=customer, ends_at=now + timedelta(hours=20), warn_end_at=now)
    heard()
    lifecycle.recycle_idle(older_than=timedelta(hours=24))
    lifecycle.renew(customer, days=7, who="staff:1")
    assert lifecycle.send_due() == 0
    assert mailoutbox == []


def test_changed_days_do_not_change_what_was_written_down(running, mailoutbox, customer, settings):
    """The row's date holds, on the page as in the mail, whatever the setting says later."""
    row = running(customer=customer)
    lifecycle.recycle_idle(older_than=timedelta(hours=24))
    settings.PRESS_PASS_DAYS = 30
    row.refresh_from_db()
    assert lifecycle.situation(customer, row, zone=UTC).trial_ends_at == row.first_running_at + timedelta(days=7)


@pytest.mark.parametrize("name", ZONES)
def test_the_dates_after_recycling_are_those_of_the_days_and_of_what_is_kept(running, mailoutbox, name):
    customer = UserFactory.create(time_zone=name)
    row = running(customer=customer, quiet=timedelta(hours=25))
    Keepsake.objects.create(customer=customer, from_instance=row, data=b"x", size=1, digest="d")
    subject, text, html = mailed(mailoutbox)
    assert subject == "Your demo terminal was recycled after 24 h without activity"
    kept, _ = said(Keepsake.objects.get().made_at + timedelta(days=30), name)
    ends, _ = said(row.first_running_at + timedelta(days=7), name)
    assert dates_in(text) == dates_in(html) == {kept, ends}


def test_days_that_are_over_are_told_without_a_way_back_that_there_is_not(running, mailoutbox):
    running(ends_at=clock.now() - timedelta(seconds=1))
    subject, text, _ = mailed(mailoutbox)
    assert subject == "Your Press Pass has ended: its days are over"
    assert "brings up a new" not in text


@pytest.mark.parametrize("name", ZONES)
def test_the_date_of_a_held_slot_is_the_row_s(answering, mailoutbox, name):
    answering.host.__class__.objects.update(slots=0)
    row = instance(UserFactory.create(time_zone=name))
    with clock.moved(timedelta(minutes=5)):
        answering.host.__class__.objects.update(slots=1)
        subject, text, html = mailed(mailoutbox)
        row.refresh_from_db()
        full, near = said(row.held_until, name)
    assert subject == f"A slot is held for you until {near}"
    assert dates_in(text) == dates_in(html) == {full}


def test_who_does_not_accept_is_told_that_it_went_on(answering, mailoutbox):
    answering.host.__class__.objects.update(slots=0)
    instance()
    with clock.moved(timedelta(minutes=5)):
        answering.host.__class__.objects.update(slots=1)
        mailed(mailoutbox)
    with clock.moved(timedelta(minutes=70)):
        subject, text, _ = mailed(mailoutbox)
    assert "went to the next in line" in subject
    assert "not in line any more" in text


@pytest.mark.parametrize(
    ("at", "hours", "expected"),
    [
        (datetime(2026, 3, 28, 12, 0, tzinfo=UTC), 24, "Sun 29 Mar 2026 14:00 CEST"),
        (datetime(2026, 10, 24, 12, 0, tzinfo=UTC), 24, "Sun 25 Oct 2026 13:00 CET"),
        (datetime(2026, 10, 24, 23, 30, tzinfo=UTC), 1, "Sun 25 Oct 2026 02:30 CEST"),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), 1, "Sun 25 Oct 2026 02:30 CET"),
    ],
)
def test_24_h_are_24_h_over_daylight_saving_and_the_zone_says_which_hour(at, hours, expected):
    assert moments.full(at + timedelta(hours=hours), zone=ZoneInfo("Europe/Berlin")).text == expected


def test_each_warning_has_one_button_a_reason_and_no_pictures(running, mailoutbox):
    running(quiet=timedelta(hours=19))
    _, text, html = mailed(mailoutbox)
    assert html.count("display:inline-block") == 1
    assert "<img" not in html
    assert "Why you get this" in text
    read = message_from_bytes(mailoutbox[-1].message().as_bytes(), policy=policy.default)
    assert read["Auto-Submitted"] == "auto-generated"


# --- the link ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def warned(running, customer, mailoutbox):
    row = running(customer=customer, quiet=timedelta(hours=19))
    _, text, _ = mailed(mailoutbox)
    link = re.search(r"http\S+/keep/\S+", text)[0]
    return row, link[link.index("/keep/") :]


def token_in(link):
    return link.partition("token=")[2].replace("%3A", ":")


def test_opening_the_link_shows_a_button_and_keeps_nothing(warned):
    row, link = warned
    page = Client().get(link)
    assert page.status_code == 200
    assert b'id="keep"' in page.content
    assert Instance.objects.get(pk=row.pk).activity_at == row.activity_at


def test_opening_it_signed_in_keeps_nothing_either(warned, customer):
    row, link = warned
    browser = Client()
    browser.force_login(customer)
    assert b'id="keep"' in browser.get(link).content
    assert Instance.objects.get(pk=row.pk).activity_at == row.activity_at


def test_pressing_the_button_keeps_it_for_24_h(warned):
    row, link = warned
    page = Client().post("/keep/", {"token": token_in(link)})
    assert b"is kept" in page.content
    assert clock.now() - Instance.objects.get(pk=row.pk).activity_at < timedelta(minutes=1)
    with clock.moved(timedelta(hours=6)):
        heard()
        assert lifecycle.recycle_idle(older_than=timedelta(hours=24)).recycled == []


def test_used_twice_it_keeps_once(warned):
    row, link = warned
    Client().post("/keep/", {"token": token_in(link)})
    with clock.moved(timedelta(hours=3)):
        page = Client().post("/keep/", {"token": token_in(link)})
    assert page.status_code == 410
    assert b"has done its work" in page.content
    assert clock.now() - Instance.objects.get(pk=row.pk).activity_at < timedelta(minutes=1)


def test_the_link_of_an_earlier_warning_is_void_after_activity(warned):
    row, link = warned
    farm_lifecycle.touch(row.customer_id)
    assert Client().get(link).status_code == 410


def test_the_link_to_a_terminal_that_has_gone_says_so(warned):
    row, link = warned
    farm_lifecycle.end(row.pk, why="test", who="test")
    page = Client().get(link)
    assert (page.status_code, b"has gone" in page.content) == (410, True)


@pytest.mark.parametrize("token", ["", "x", "a:b:c", dumps([1, "2026-01-01"]), dumps([1, "x"], salt=keep_alive.SCOPE),
                                   dumps("x", salt=keep_alive.SCOPE)],
                         ids=["empty", "letter", "parts", "other scope", "no moment", "no pair"])  # fmt: skip
def test_a_link_that_is_none_keeps_nothing(warned, token):
    assert Client().post("/keep/", {"token": token}).status_code == 410


def test_the_link_signs_nobody_in_and_its_token_is_no_sign_in_link(warned):
    _, link = warned
    browser = Client()
    browser.post("/keep/", {"token": token_in(link)})
    assert browser.get("/terminal/").status_code == 302
    assert browser.get("/sign-in/link/", {"token": token_in(link)}).status_code == 403


def test_the_row_of_the_mail_holds_no_link(warned):
    assert "token" not in repr(list(Notice.objects.values()))


def test_without_the_form_s_token_the_button_does_nothing(warned):
    row, link = warned
    assert Client(enforce_csrf_checks=True).post("/keep/", {"token": token_in(link)}).status_code == 403
    assert User.objects.filter(pk=row.customer_id).exists()
