"""The front page of the admin: counted, linked, readable as text; and staff are told when something needs them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.core.mail import EmailMessage
from django.test import Client

from farm import clock
from farm.models import BrokerAccount, Host, Instance
from farm.states import Status
from presspass.lifecycle import runs
from presspass.models import Alert, Run, User
from tests.factories import HostFactory, fill_vault, instance
from tests.recycling.conftest import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(db):
    user = User.objects.create_user("staff@example.org", "a-long-password", is_staff=True, is_superuser=True)
    browser = Client()
    browser.force_login(user)
    return browser


def front(browser):
    page = browser.get("/admin/")
    assert page.status_code == 200
    return " ".join(page.content.decode().split())


def test_an_empty_farm_has_a_front_page(staff):
    text = front(staff)
    assert "0 of 0 used on 0 hosts" in text
    assert "recycle_idle has never run" in text


def test_terminals_are_counted_by_state_and_lead_to_their_lists(staff, running):
    running(), running()
    text = front(staff)
    assert '<a href="/admin/farm/instance/?status__exact=running"><b>2</b> running</a>' in text
    assert staff.get("/admin/farm/instance/?status__exact=running").status_code == 200


def test_slots_are_bars_with_their_numbers_as_text(staff, running):
    running()
    assert 'max="20" value="1"' in front(staff)
    assert "1 of 20" in front(staff)


def test_a_silent_host_is_named_first_and_needs_a_person(staff, running):
    running()
    HostFactory.create(name="aaa")
    Host.objects.exclude(name="aaa").update(surveyed_at=clock.now() - timedelta(hours=1))
    text = front(staff)
    assert "is silent since" in text
    assert text.index(", silent") < text.index(">aaa<")


def test_what_failed_for_good_needs_a_person(staff, running):
    row = running()
    Instance.objects.filter(pk=row.pk).update(status=Status.FAILED, next_at=None)
    assert "1 terminal failed, and is not tried again by itself" in front(staff)
    Instance.objects.filter(pk=row.pk).update(next_at=clock.now())
    assert "terminal failed" not in front(staff)


def test_every_link_leads_somewhere(staff, running):
    row = running()
    fill_vault(1)
    Instance.objects.filter(pk=row.pk).update(connection="refused")
    instance()
    text = front(staff)
    inside = text[text.index('class="glance"') : text.index("Hour by hour")]
    links = {part.partition('"')[0].replace("&amp;", "&") for part in inside.split('href="')[1:]}
    assert len(links) >= 6
    for link in links:
        assert staff.get(link).status_code == 200, link


def test_sign_ups_and_times_are_readable_without_the_picture(staff, running):
    running()
    text = front(staff)
    assert "<title>" in text[text.index("<svg") :]
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    assert table.count("<tr>") == 24
    assert table.rstrip().endswith("</tr>")
    assert "<td>2</td><td>1</td>" in table or "<td>1</td><td>1</td>" in table


def test_no_inline_style_or_script(staff, running):
    running()
    text = front(staff)
    inside = text[text.index('class="glance"') : text.index("Hour by hour")]
    assert "style=" not in inside
    assert "<script" not in inside


def test_more_terminals_are_no_more_queries(staff, running, django_assert_max_num_queries):
    def queries():
        with django_assert_max_num_queries(60) as counted:
            front(staff)
        return len(counted)

    running()
    queries()
    before = queries()
    for _ in range(6):
        running()
    for _ in range(6):
        HostFactory.create()
    assert queries() == before


def test_staff_who_may_not_see_terminals_see_no_glance(db):
    user = User.objects.create_user("helper@example.org", "a-long-password", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_user"))
    browser = Client()
    browser.force_login(user)
    assert 'class="glance"' not in front(browser)


def test_the_pages_of_an_app_have_none(staff):
    assert b'class="glance"' not in staff.get("/admin/farm/").content


# --- told by mail -----------------------------------------------------------------------------------------------------


@pytest.fixture
def told(settings):
    settings.ALERT_EMAILS = ["staff@example.org"]


def test_that_it_has_not_run_is_told_once(told, mailoutbox, settings):
    run()
    assert runs.watch() == []
    with clock.moved(timedelta(seconds=settings.RECYCLE_LATE_SECONDS + 5)):
        assert runs.watch() == ["recycle_idle late"]
        assert runs.watch() == []
    assert len(mailoutbox) == 1
    assert "recycle_idle has not come to its end since" in mailoutbox[0].subject


def test_a_run_that_began_and_never_ended_counts_as_none(told, settings):
    run()
    with clock.moved(timedelta(seconds=settings.RECYCLE_LATE_SECONDS + 5)):
        runs.begin("recycle_idle")
        assert runs.watch() == ["recycle_idle late"]


def test_that_it_never_ran_is_told(told):
    assert runs.watch() == ["recycle_idle late"]


def test_it_is_told_again_when_it_happens_again(told, mailoutbox, settings):
    runs.watch()
    run()
    assert runs.watch() == []
    assert not Alert.objects.exists()
    with clock.moved(timedelta(seconds=settings.RECYCLE_LATE_SECONDS + 5)):
        runs.watch()
    assert len(mailoutbox) == 2


def test_a_mail_server_that_is_down_does_not_swallow_the_alert(told, mailoutbox, monkeypatch):
    monkeypatch.setattr(EmailMessage, "send", lambda self: 1 / 0)
    assert runs.watch() == []
    monkeypatch.undo()
    assert runs.watch() == ["recycle_idle late"]


def test_without_anybody_to_tell_it_still_stands_in_the_admin(db, staff, settings):
    settings.ALERT_EMAILS = []
    assert runs.watch() == []
    assert Alert.objects.get().told_at is None
    assert "recycle_idle has never run" in front(staff)


def test_a_vault_that_runs_low_is_told_and_stands_on_the_front_page(told, staff, settings):
    run()
    settings.VAULT_LOW = 3
    assert runs.watch() == []  # nothing was ever in it: this farm gives none
    fill_vault(3)
    assert runs.watch() == []
    BrokerAccount.objects.filter(login=5_000_001).update(retired_at=clock.now())
    assert runs.watch() == ["vault low"]
    assert "The vault holds 2 free demo accounts; fewer than 3." in front(staff)


def test_the_last_run_is_named(staff):
    run()
    assert f"last came to its end {Run.objects.get().finished_at:%Y-%m-%d %H:%M:%S} UTC" in front(staff)
