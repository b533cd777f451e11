"""What was recycled comes back by one button, for what is left of its days; one mailbox has one Press Pass."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client

from farm import clock
from farm import keepsakes as kept
from farm import lifecycle as farm_lifecycle
from farm.agent.protocol import Verb
from farm.models import Host, Instance, Keepsake
from farm.states import Goal, Status
from presspass import lifecycle
from presspass.errors import TrialOver
from presspass.models import Notice, PastMailbox, User, mailbox_mark
from tests.factories import HostFactory, UserFactory, instance
from tests.recycling.conftest import heard, run

pytestmark = pytest.mark.django_db


@pytest.fixture
def recycled(running, customer, answering):
    row = running(customer=customer, quiet=timedelta(hours=25))
    run()
    row.refresh_from_db()
    row = answering.obey(row)
    assert row.status == Status.DESTROYED
    return row


def keepsake_of(row):
    return Keepsake.objects.create(
        customer=row.customer, from_instance=row, made_at=clock.now(), data=b"PK", size=2, digest="d"
    )


def page(customer):
    return lifecycle.told(customer, farm_lifecycle.current(customer.pk), zone=UTC)


def test_the_page_says_why_and_until_when_the_button_is_there(recycled, customer):
    keepsake_of(recycled)
    told = page(customer)
    assert told.headline == "Your terminal was recycled after 24 h without activity."
    assert told.next_action == "start again"
    assert any("is kept until" in line for line in told.below)


def test_the_button_brings_a_new_clone_that_fetches_what_was_kept(recycled, customer, answering):
    keepsake_of(recycled)
    row = lifecycle.start_again(customer)
    order = answering.claim(row)
    assert order.verb is Verb.CLONE
    assert "/keepsake/" in order.keepsake
    assert row.ends_at == recycled.first_running_at + timedelta(days=7)


@pytest.mark.parametrize("days", [1, 14])
def test_a_changed_setting_moves_no_end_that_was_promised(recycled, customer, settings, days):
    settings.PRESS_PASS_DAYS = days
    assert lifecycle.start_again(customer).ends_at == recycled.ends_at


def test_days_that_were_over_stay_over_when_the_setting_grows(recycled, customer, settings):
    settings.PRESS_PASS_DAYS = 14
    with clock.moved(timedelta(days=8)), pytest.raises(TrialOver):
        lifecycle.start_again(customer)


def test_after_the_keeping_days_it_is_deleted_and_the_page_says_so(recycled, customer, settings):
    keepsake_of(recycled)
    with clock.moved(timedelta(days=settings.KEEPSAKE_DAYS, minutes=5)):
        assert kept.expire() == 1
        told = page(customer)
    assert any("was kept for 30 days and is deleted" in line for line in told.below)


def test_after_the_days_there_is_no_new_press_pass(recycled, customer):
    with clock.moved(timedelta(days=7, minutes=1)), pytest.raises(TrialOver):
        lifecycle.start_again(customer)


def test_after_the_days_the_page_has_no_such_button(recycled, customer):
    with clock.moved(timedelta(days=7, minutes=1)):
        assert "start again" not in page(customer).actions


def test_renewed_by_staff_the_button_is_back(recycled, customer):
    with clock.moved(timedelta(days=8)):
        lifecycle.renew(customer, days=3, who="staff:1")
        heard()
        assert lifecycle.start_again(customer).ends_at == customer.pass_ends_at
        assert page(customer).headline == "Copying your terminal."


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("ann@gmail.com", "a.n.n@gmail.com"),
        ("ann@gmail.com", "ann+two@googlemail.com"),
        ("ann@example.com", "ann+two@example.com"),
        ("ann+one@example.com", "ann@example.com"),
    ],
)
def test_another_spelling_of_the_mailbox_is_the_same_customer(host_of_two, first, again):
    joined = lifecycle.join(first, mark="a")
    twice = lifecycle.join(again, mark="b")
    assert (twice.customer, twice.signs_in) == (joined.customer, False)
    assert Instance.objects.count() == User.objects.count() == 1


@pytest.fixture
def host_of_two(db):
    return HostFactory.create(slots=2)


def test_the_link_goes_to_the_address_that_is_known(host_of_two, mailoutbox):
    lifecycle.join("ann@example.com", mark="a")
    Client().post("/", {"email": "ann+two@example.com"})
    lifecycle.send_due()
    assert [sent.to for sent in mailoutbox] == [["ann@example.com"]]


def test_another_mailbox_is_another_customer(host_of_two):
    lifecycle.join("ann@example.com", mark="a")
    assert lifecycle.join("a.nn@example.com", mark="a").signs_in


def test_a_mailbox_whose_days_are_over_signs_up_and_gets_no_terminal(host_of_two):
    PastMailbox.objects.create(mark=mailbox_mark("ann@example.com"), pass_ends_at=clock.now() - timedelta(days=1))
    joined = lifecycle.join("ann+new@example.com", mark="a")
    assert not Instance.objects.exists()
    told = page(joined.customer)
    assert told.headline == "You have no terminal."
    assert "start again" not in told.actions


def test_a_mailbox_with_days_left_gets_those(host_of_two):
    ends_at = clock.now() + timedelta(days=2)
    PastMailbox.objects.create(mark=mailbox_mark("ann@example.com"), pass_ends_at=ends_at)
    lifecycle.join("ann@example.com", mark="a")
    assert Instance.objects.get().ends_at == ends_at


# --- staff ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def staff(db):
    user = User.objects.create_user("staff@example.org", "a-long-password", is_staff=True)
    wanted = ["view_user", "renew_press_pass", "view_instance"]
    user.user_permissions.add(*Permission.objects.filter(codename__in=wanted))
    browser = Client()
    browser.force_login(user)
    return browser


def test_staff_renew_a_press_pass_after_being_asked_for_how_long(running, customer, staff):
    running(customer=customer)
    run()
    before = Instance.objects.get().ends_at
    action = {"action": "renew_selected", "_selected_action": [customer.pk]}
    assert b"days" in staff.post("/admin/presspass/user/", action).content
    assert Instance.objects.get().ends_at == before
    staff.post("/admin/presspass/user/", {**action, "confirmed": "yes", "days": "5"})
    assert Instance.objects.get().ends_at == before + timedelta(days=5)
    assert "by 5 days" in LogEntry.objects.get().change_message


@pytest.mark.parametrize("days", ["0", "-3", "x", "9999", ""])
def test_a_renewal_of_no_sense_renews_nothing(running, customer, staff, days):
    running(customer=customer)
    action = {"action": "renew_selected", "_selected_action": [customer.pk], "confirmed": "yes", "days": days}
    staff.post("/admin/presspass/user/", action)
    customer.refresh_from_db()
    assert customer.pass_ends_at is None


def test_staff_see_when_an_instance_would_go_and_on_which_evidence(running, staff):
    row = running(quiet=timedelta(hours=3))
    text = staff.get(f"/admin/farm/instance/{row.pk}/change/").content.decode()
    assert f"Would be recycled at {row.activity_at + timedelta(hours=24):%Y-%m-%d %H:%M:%S} UTC" in text


# --- the waiting list, as its customer sees it ------------------------------------------------------------------------


@pytest.fixture
def in_line(customer):
    HostFactory.create(slots=0)
    row = instance(customer)
    browser = Client()
    browser.force_login(customer)
    return row, browser


def poll(browser):
    return browser.get("/terminal/state/", HTTP_HX_REQUEST="true").content.decode()


def test_the_page_says_the_position_and_that_the_time_is_not_known(in_line):
    text = poll(in_line[1])
    assert "You are number 1 in line for a slot." in text
    assert "we don&#x27;t know" in text


def test_the_expected_time_is_counted_from_who_left(in_line):
    Instance.objects.create(
        customer=UserFactory.create(), status=Status.DESTROYED, goal=Goal.DESTROYED, folder="x", generation=3
    )
    assert "it takes about 24 h" in poll(in_line[1])


def test_looking_at_the_page_is_being_there_and_no_activity(in_line):
    row, browser = in_line
    with clock.moved(timedelta(minutes=10)):
        poll(browser)
        row.refresh_from_db()
        assert farm_lifecycle.is_watched(row)
    assert clock.now() - row.activity_at < timedelta(minutes=1)


def test_a_held_slot_is_shown_with_its_end_and_one_button_starts_the_terminal(in_line):
    row, browser = in_line
    with clock.moved(timedelta(minutes=5)):
        heard()
        Host.objects.update(slots=1)
        run()
        text = poll(browser)
        assert "A slot is held for you until" in text
        assert "accept-slot" in text
        browser.post(f"/terminal/{row.pk}/accept/")
    row.refresh_from_db()
    assert row.status == Status.REQUESTED


def test_nobody_accepts_for_another(in_line, customer):
    row, _ = in_line
    other = Client()
    other.force_login(User.objects.create_user("bob@example.com"))
    assert other.post(f"/terminal/{row.pk}/accept/").status_code == 404


def test_after_the_slot_went_on_the_page_says_so_and_one_button_joins_again(in_line):
    row, browser = in_line
    with clock.moved(timedelta(minutes=5)):
        heard()
        Host.objects.update(slots=1)
        run()
    with clock.moved(timedelta(minutes=70)):
        run()
        text = browser.get("/terminal/").content.decode()
        assert "went to the next in line" in text
        browser.post("/terminal/start-again/")
    assert Instance.objects.filter(customer=row.customer).count() == 2


def test_who_waited_and_was_there_is_mailed_when_it_starts(in_line, mailoutbox):
    row, browser = in_line
    with clock.moved(timedelta(minutes=5)):
        heard()
        Host.objects.update(slots=1)
        poll(browser)
        run()
        lifecycle.notice_news()
        lifecycle.send_due()
    assert mailoutbox[-1].subject == "A slot came free: your terminal is ready"
    assert Notice.objects.filter(customer_id=row.customer_id).count() == 1
