"""The page of the customer's terminal, and what they may do there."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client

from farm import clock
from farm import lifecycle as farm_lifecycle
from farm.models import Host, Instance
from farm.states import Goal, Kind, Status
from presspass import lifecycle
from presspass.errors import NotVerified, TrialOver
from presspass.models import Notice
from tests.factories import UserFactory, instance

pytestmark = pytest.mark.django_db

TERMINAL, STATE = "/terminal/", "/terminal/state/"
HTMX = {"HX-Request": "true"}


def text(page):
    return page.content.decode()


def seen(page):
    return re.search(r"seen=([0-9a-f]{16})", text(page))[1]


@pytest.fixture
def row(answering, customer):
    return answering.obey(instance(customer))


ACTIONS = ["/terminal/{}/restart/", "/terminal/{}/end/", "/terminal/start-again/", "/terminal/confirm-address/"]


@pytest.mark.parametrize("path", ACTIONS)
def test_who_is_not_signed_in_is_led_to_the_sign_in_page_and_nothing_is_done(row, path):
    answer = Client().post(path.format(row.pk))
    assert answer.headers["Location"].startswith("/sign-in/")
    row.refresh_from_db()
    assert (row.status, Notice.objects.count()) == (Status.RUNNING, 0)


@pytest.mark.parametrize("path", ["/terminal/{}/restart/", "/terminal/{}/end/"])
@pytest.mark.parametrize("number", [0, 999_999, 10**30])
def test_a_terminal_that_is_none_is_not_found(signed_in, path, number):
    assert signed_in.post(path.format(number)).status_code == 404


@pytest.mark.parametrize("path", ["/terminal/{}/restart/", "/terminal/{}/end/"])
def test_another_customers_terminal_is_not_found_either(answering, signed_in, path):
    other = answering.obey(instance())
    assert signed_in.post(path.format(other.pk)).status_code == 404
    assert signed_in.get(f"/terminal/{other.pk}/end/").status_code == 404
    other.refresh_from_db()
    assert other.status == Status.RUNNING


@pytest.mark.parametrize("path", ACTIONS)
def test_opening_an_address_does_nothing(signed_in, row, path):
    signed_in.get(path.format(row.pk))
    row.refresh_from_db()
    assert (row.status, row.goal, Notice.objects.count()) == (Status.RUNNING, Goal.RUNNING, 0)


def test_until_the_address_is_confirmed_nobody_restarts_ends_or_starts_again(answering):
    customer = UserFactory.create()
    row = answering.obey(instance(customer))
    for ask in (
        lambda: lifecycle.restart(customer, row.pk),
        lambda: lifecycle.end(customer, row.pk),
        lambda: lifecycle.start_again(customer),
    ):
        with pytest.raises(NotVerified):
            ask()
    browser = Client()
    browser.force_login(customer)
    assert "Confirm your address first" in text(browser.post(f"/terminal/{row.pk}/restart/", follow=True))
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_the_page_offers_to_confirm_the_address_and_mails_a_link(answering):
    customer = UserFactory.create()
    answering.obey(instance(customer))
    browser = Client()
    browser.force_login(customer)
    assert "Mail me a link to confirm it" in text(browser.get(TERMINAL))
    assert browser.post("/terminal/confirm-address/").headers["Location"] == "/sign-in/sent/"
    assert Notice.objects.get().customer == customer


def test_restart_is_refused_in_a_sentence_unless_it_runs(signed_in, customer, host):
    row = instance(customer)
    page = signed_in.post(f"/terminal/{row.pk}/restart/", follow=True)
    assert "Only a running terminal can be restarted." in text(page)


def test_restart_stops_and_starts_it(signed_in, answering, row):
    page = signed_in.post(f"/terminal/{row.pk}/restart/", follow=True)
    assert "Restarting your terminal." in text(page)
    assert answering.obey(row).status == Status.RUNNING
    assert row.transitions.filter(became="stopping").get().who == f"customer:{row.customer_id}"


def test_ending_asks_first_and_then_ends_it(signed_in, answering, row):
    asked = signed_in.get(f"/terminal/{row.pk}/end/")
    assert "End your Press Pass?" in text(asked)
    page = signed_in.post(f"/terminal/{row.pk}/end/", follow=True)
    assert "Ending your Press Pass." in text(page)
    answering.obey(row)
    assert "You ended your Press Pass." in text(signed_in.get(TERMINAL))


def test_ending_twice_is_success(signed_in, row):
    for _ in range(2):
        assert signed_in.post(f"/terminal/{row.pk}/end/").headers["Location"] == TERMINAL


def test_a_live_terminal_is_not_ended_here(signed_in, row):
    Instance.objects.filter(pk=row.pk).update(kind=Kind.LIVE)
    assert "Only a Press Pass is ended here." in text(signed_in.post(f"/terminal/{row.pk}/end/", follow=True))
    row.refresh_from_db()
    assert row.goal == Goal.RUNNING


def ended(answering, row):
    farm_lifecycle.end(row.pk, why="24 h without activity", who="recycle_idle")
    return answering.obey(row)


def test_after_it_was_recycled_one_button_brings_a_new_one(signed_in, answering, row):
    ended(answering, row)
    assert "Start a new terminal" in text(signed_in.get(TERMINAL))
    page = signed_in.post("/terminal/start-again/", follow=True)
    assert "Copying your terminal." in text(page)
    new = Instance.objects.latest("pk")
    assert (new.replaces_id, new.folder) == (row.pk, f"user_{row.customer_id}-2")


def test_pressed_twice_it_brings_one(signed_in, answering, row):
    ended(answering, row)
    for _ in range(2):
        signed_in.post("/terminal/start-again/")
    assert Instance.objects.count() == 2


def test_while_it_runs_the_button_changes_nothing(signed_in, row):
    signed_in.post("/terminal/start-again/")
    assert Instance.objects.count() == 1


def test_the_days_count_from_the_first_start_and_a_new_terminal_gives_no_new_ones(customer, answering, row, settings):
    ended(answering, row)
    first_end = lifecycle.situation(customer, row, zone=None).trial_ends_at
    with clock.moved(timedelta(days=2)):
        Host.objects.update(surveyed_at=clock.now())
        answering.obey(lifecycle.start_again(customer))
        assert lifecycle.situation(customer, row, zone=None).trial_ends_at == first_end
    assert first_end == row.first_running_at + timedelta(days=settings.PRESS_PASS_DAYS)


def test_after_the_days_it_is_said_instead(signed_in, answering, customer, row, settings):
    ended(answering, row)
    Instance.objects.filter(pk=row.pk).update(
        first_running_at=clock.now() - timedelta(days=settings.PRESS_PASS_DAYS, seconds=1)
    )
    with pytest.raises(TrialOver):
        lifecycle.start_again(customer)
    page = text(signed_in.get(TERMINAL))
    assert "The 7 days of your Press Pass were over" in page
    assert "Start a new terminal" not in page


def test_who_never_had_one_gets_the_button(signed_in, host):
    assert "You have no terminal yet." in text(signed_in.get(TERMINAL))
    signed_in.post("/terminal/start-again/")
    assert Instance.objects.count() == 1


def test_the_page_shows_what_names_the_terminal(signed_in, row):
    page = text(signed_in.get(TERMINAL))
    for word in (row.folder, row.host.name, str(row.port_number), str(row.magic), "Your terminal is running."):
        assert word in page


def test_without_scripts_the_page_says_when_it_was_so_and_how_to_look_again(signed_in, row):
    assert re.search(
        r"<noscript>.*This is how it was at \d\d:\d\d UTC.*Look again", text(signed_in.get(TERMINAL)), re.S
    )


def test_times_are_in_the_zone_that_the_browser_names(signed_in, row):
    signed_in.cookies["zone"] = "Asia/Tokyo"
    assert "JST" in text(signed_in.get(TERMINAL))
    signed_in.cookies["zone"] = "nonsense"
    assert "JST" in text(signed_in.get(TERMINAL)), "the last one that was a zone"


def test_the_poll_sends_nothing_while_the_page_says_the_same(signed_in, row):
    again = signed_in.get(STATE, headers=HTMX)
    same = signed_in.get(STATE, {"seen": seen(again)}, headers=HTMX)
    if same.status_code != 204:  # a second ticked over in between
        same = signed_in.get(STATE, {"seen": seen(same)}, headers=HTMX)
    assert same.status_code == 204
    farm_lifecycle.restart(row.pk, who="staff:1")
    changed = signed_in.get(STATE, {"seen": seen(again)}, headers=HTMX)
    assert "Restarting your terminal." in text(changed)
    assert "<html" not in text(changed)


def test_the_poll_stops_when_it_is_destroyed(signed_in, answering, row):
    ended(answering, row)
    assert "hx-get" not in text(signed_in.get(STATE, headers=HTMX))


def test_the_poll_of_who_is_signed_out_leads_to_the_sign_in_page(client):
    assert client.get(STATE, headers=HTMX).headers["HX-Redirect"] == "/sign-in/"


def test_the_poll_opened_as_a_page_leads_to_the_page(signed_in):
    assert signed_in.get(STATE).headers["Location"] == TERMINAL


def quiet(row, hours=5):
    Instance.objects.filter(pk=row.pk).update(activity_at=clock.now() - timedelta(hours=hours))


def activity(row):
    row.refresh_from_db()
    return clock.now() - row.activity_at


def test_a_tab_left_open_does_not_keep_the_terminal(signed_in, row):
    quiet(row)
    for _ in range(3):
        signed_in.get(STATE, headers=HTMX)
    assert activity(row) > timedelta(hours=4)


def test_a_page_that_the_browser_fetches_in_advance_does_not_either(signed_in, row):
    quiet(row)
    signed_in.get(TERMINAL, headers={"Sec-Purpose": "prefetch;prerender"})
    assert activity(row) > timedelta(hours=4)


def test_opening_the_page_does(signed_in, row):
    quiet(row)
    signed_in.get(TERMINAL)
    assert activity(row) < timedelta(minutes=1)


def test_what_others_do_does_not(row, client):
    quiet(row)
    client.get("/")
    other = Client()
    other.force_login(UserFactory.create())
    other.get(TERMINAL)
    assert activity(row) > timedelta(hours=4)


def test_the_page_and_the_poll_cost_the_same_few_queries_however_much_there_is(
    signed_in, answering, row, django_assert_max_num_queries
):
    for _ in range(5):
        answering.obey(instance())
    with django_assert_max_num_queries(9):
        signed_in.get(TERMINAL)
    with django_assert_max_num_queries(7):
        signed_in.get(STATE, headers=HTMX)


def test_the_expected_time_is_the_median_of_the_last_starts(answering):
    assert lifecycle.passes.usual_start_seconds() is None
    for seconds in (1, 2, 9):
        row = answering.obey(instance())
        reserved = row.transitions.get(became="requested").at
        Instance.objects.filter(pk=row.pk).update(first_running_at=reserved + timedelta(seconds=seconds))
    assert lifecycle.passes.usual_start_seconds() == 2
