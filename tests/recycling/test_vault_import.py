"""Staff put demo accounts into the vault: each line is reported first, and no password is shown or kept in clear."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from farm import intake, vault
from farm.intake import What
from farm.models import BrokerAccount, Seat
from presspass.models import User
from tests.factories import fill_vault, instance

pytestmark = pytest.mark.django_db
CANARY = "Canary-4711-xY"
HEAD = "server,login,password,expires_at\n"
URL = "/admin/farm/brokeraccount/import/"


def read(text):
    return intake.read((HEAD + text).encode())


@pytest.fixture
def staff():
    user = User.objects.create_user("staff@example.com", "a-long-password", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=["add_brokeraccount", "view_brokeraccount"]))
    browser = Client()
    browser.force_login(user)
    return browser


def upload(browser, text):
    return browser.post(URL, {"file": SimpleUploadedFile("a.csv", text.encode())})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("Demo,1,pw,", What.NEW),
        ("Demo,1,pw", What.NEW),
        ('"Demo, Inc",1,"p,w",2099-01-01', What.NEW),
        ("Demo,1,pw,2020-01-01", What.EXPIRED),
        ("Demo,5000001,pw,", What.NEW),
        ("MetaQuotes-Demo,5000001,pw,", What.KNOWN),
        ("METAQUOTES-demo,5000001,pw,", What.KNOWN),
        ("Demo,,pw,", What.MALFORMED),
        ("Demo,x,pw,", What.MALFORMED),
        ("Demo,-1,pw,", What.MALFORMED),
        ("Demo,0,pw,", What.MALFORMED),
        ("Demo,99999999999999999999,pw,", What.MALFORMED),
        ("Demo,00000000000000000001" + "9" * 100 + ",pw,", What.MALFORMED),
        ("Demo,1,,", What.MALFORMED),
        (",1,pw,", What.MALFORMED),
        ("Demo,1,pw,someday", What.MALFORMED),
        ("Demo,1,pw,2026-13-45", What.MALFORMED),
        ("Demo,1,pw,,more", What.MALFORMED),
        ("Demo", What.MALFORMED),
    ],
)
def test_what_a_line_would_do(line, what):
    fill_vault(1)
    assert [one.what for one in read(line)] == [what]


def test_a_line_that_comes_twice_is_taken_once():
    assert [one.what for one in read("Demo,1,a,\ndemo,1,b,\n")] == [What.NEW, What.TWICE]


def test_lines_are_numbered_as_an_editor_numbers_them():
    assert [one.number for one in read("Demo,1,a,\n\n\nDemo,x,b,\n")] == [2, 5]


def test_a_file_whose_lines_end_as_old_macs_ended_them_is_read():
    assert [one.what for one in intake.read(b"server,login,password\rDemo,1,a\r")] == [What.NEW]


@pytest.mark.parametrize("raw", [b"", b"a,b\n1,2", b"\xff\xfe\x00", b"x" * (intake.MOST_BYTES + 1), b"x" * 200_000])
def test_what_is_no_such_file_is_refused(raw):
    with pytest.raises(intake.Unreadable):
        intake.read(raw)


def test_a_file_of_a_spreadsheet_with_its_mark_is_read():
    assert intake.read(b"\xef\xbb\xbfServer, Login ,password\nDemo,1,pw\n")[0].what is What.NEW


def test_looking_over_takes_nothing_in(staff):
    page = upload(staff, HEAD + f"Demo,1,{CANARY},\n")
    assert b"Take in 1 new" in page.content
    assert BrokerAccount.objects.count() == 0


def test_confirmed_it_is_taken_in_and_can_be_given_to_a_terminal(staff, settings):
    upload(staff, HEAD + f"Demo,1,{CANARY},2099-12-31\n")
    keys, settings.FIELD_KEYS = settings.FIELD_KEYS, []  # as in the web, which has no key that opens anything
    page = staff.post(URL, {"confirmed": "yes"}, follow=True)
    settings.FIELD_KEYS = keys
    assert b"1 demo accounts taken in" in page.content
    account = BrokerAccount.objects.get()
    assert (account.server, account.login, account.owner) == ("Demo", 1, None)
    assert vault.password_of(account) == CANARY
    assert Seat.objects.get().vault_account == account
    from_vault = vault.take_demo(instance(), now=account.created_at)
    assert from_vault == account


def test_confirming_twice_takes_in_once(staff):
    upload(staff, HEAD + "Demo,1,pw,\n")
    for _ in range(2):
        staff.post(URL, {"confirmed": "yes"})
    assert BrokerAccount.objects.count() == 1


def test_no_password_is_shown_or_kept_in_clear(staff):
    lines = f"Demo,1,{CANARY},\nDemo,x,{CANARY},\n{CANARY},2,,\nDemo,3,{CANARY},nonsense\n"
    page = upload(staff, HEAD + lines.replace(f"{CANARY},2", "Demo,2"))
    assert CANARY.encode() not in page.content
    assert all(CANARY not in str(session.get_decoded()) for session in Session.objects.all())
    assert CANARY not in repr(read(f"Demo,1,{CANARY},"))
    staff.post(URL, {"confirmed": "yes"})
    assert CANARY not in repr(list(BrokerAccount.objects.values()))


def test_without_the_right_there_is_no_page(db):
    user = User.objects.create_user("helper@example.com", "a-long-password", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_brokeraccount"))
    browser = Client()
    browser.force_login(user)
    assert browser.get(URL).status_code == 403
    assert b"Import demo accounts" not in browser.get(reverse("admin:farm_brokeraccount_changelist")).content


def test_the_list_leads_to_it(staff):
    assert URL.encode() in staff.get(reverse("admin:farm_brokeraccount_changelist")).content


def test_no_file_is_said(staff):
    assert b"Choose a file" in staff.post(URL).content
