"""An address is typed on the first page."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.core import mail
from django.db import connection
from django.test import Client

from farm import clock
from farm import lifecycle as farm_lifecycle
from farm.models import Instance
from presspass import lifecycle
from presspass.models import Notice, User
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db

FIRST, SIGN_IN, SENT, TERMINAL = "/", "/sign-in/", "/sign-in/sent/", "/terminal/"


def sign_up(client, email="ann@example.com", to=FIRST, **more):
    return client.post(to, {"email": email, **more})


def nothing_done():
    return not User.objects.exists() and not Instance.objects.exists() and not Notice.objects.exists()


@pytest.mark.parametrize("to", [FIRST, SIGN_IN])
@pytest.mark.parametrize(
    "email", ["", "nonsense", "a" * 300 + "@example.com", "\u0430nn@example.com", "a@b.c\nBcc: d@e.f"]
)
def test_a_bad_address_gets_a_message_at_the_field_and_nothing_is_done(client, to, email):
    page = sign_up(client, email, to=to)
    assert page.status_code == 200
    assert 'class="invalid-feedback"' in page.content.decode()
    assert nothing_done()


def test_a_disposable_mailbox_is_refused(client):
    assert "vanishes" in sign_up(client, "ann@mailinator.com").content.decode()
    assert nothing_done()


def test_unless_the_setting_takes_them(client, settings, host):
    settings.REFUSE_DISPOSABLE = False
    assert sign_up(client, "ann@mailinator.com").headers["Location"] == TERMINAL


@pytest.mark.parametrize("to", [FIRST, SIGN_IN])
def test_a_program_that_fills_in_the_trap_gets_an_answer_and_nothing_else(client, customer, to):
    answer = sign_up(client, customer.email, to=to, website="http://spam.example")
    assert answer.headers["Location"] == SENT
    assert client.get(SENT).status_code == 200
    assert not Notice.objects.exists()
    assert not Instance.objects.exists()


@pytest.mark.parametrize("to", [FIRST, SIGN_IN, "/sign-out/", "/terminal/start-again/", "/sign-in/link/"])
def test_a_post_without_token_is_refused_in_our_look(to):
    page = Client(enforce_csrf_checks=True).post(to, {"email": "ann@example.com"})
    assert page.status_code == 403
    assert "That page had grown old" in page.content.decode()
    assert nothing_done()


def test_a_new_address_is_signed_in_at_once_and_its_terminal_is_on_its_way(client, host):
    answer = sign_up(client, " Ann@Example.com ")
    assert answer.headers["Location"] == TERMINAL
    user = User.objects.get(email="ann@example.com")
    assert not user.verified
    assert client.session["_auth_user_id"] == str(user.pk)
    assert [row.status for row in user.instances.all()] == ["requested"]
    assert not mail.outbox


def test_without_a_free_slot_it_waits_in_line_instead_of_failing(client):
    assert sign_up(client).headers["Location"] == TERMINAL
    assert "You are number 1 in line for a slot." in client.get(TERMINAL).content.decode()


def test_if_the_farm_cannot_write_the_instance_there_is_no_user_either(client, monkeypatch):
    def broken(**kwargs):
        raise RuntimeError("no disk")

    monkeypatch.setattr(farm_lifecycle, "request", broken)
    with pytest.raises(RuntimeError):
        sign_up(client)
    assert nothing_done()


def test_a_known_address_gets_a_link_by_mail_and_no_session(client, customer):
    answer = sign_up(client, "ANN@example.com")
    assert answer.headers["Location"] == SENT
    assert "_auth_user_id" not in client.session
    assert Notice.objects.get().customer == customer
    assert "ann@example.com" in client.get(SENT).content.decode()


def test_asking_again_is_answered_the_same(client, customer):
    first = sign_up(client)
    assert sign_up(client).headers["Location"] == first.headers["Location"]


def test_the_way_back_answers_the_same_for_known_and_unknown_addresses(client, customer):
    known, unknown = (sign_up(Client(), email, to=SIGN_IN) for email in ("ann@example.com", "eve@example.com"))
    assert (known.status_code, known.headers["Location"]) == (unknown.status_code, unknown.headers["Location"])
    assert [notice.customer for notice in Notice.objects.all()] == [customer]


@pytest.mark.parametrize("changes", [{"is_staff": True}, {"is_superuser": True}, {"is_active": False}])
def test_staff_and_closed_accounts_get_no_link_and_nobody_can_tell(client, changes):
    UserFactory.create(email="ann@example.com", **changes)
    assert sign_up(client).headers["Location"] == SENT
    assert not Notice.objects.exists()


def test_who_is_signed_in_already_is_led_to_the_terminal(signed_in):
    for to in (FIRST, SIGN_IN):
        assert signed_in.get(to).headers["Location"] == TERMINAL
        assert sign_up(signed_in, "eve@example.com", to=to).headers["Location"] == TERMINAL
    assert User.objects.count() == 1


def test_signing_out_takes_a_post(signed_in):
    assert signed_in.get("/sign-out/").status_code == 405
    assert signed_in.post("/sign-out/").headers["Location"] == FIRST
    assert signed_in.get(TERMINAL).status_code == 302


def with_token(browser):
    """A browser that has the first page open, and what its form would send."""
    page = browser.get(FIRST)
    return {"csrfmiddlewaretoken": str(page.context["csrf_token"]), "email": "ann@example.com"}


def test_a_double_click_is_one_sign_up_and_both_answers_lead_to_the_terminal(host):
    browser = Client(enforce_csrf_checks=True)
    form = with_token(browser)
    before = browser.cookies["csrftoken"].value
    assert browser.post(FIRST, form).headers["Location"] == TERMINAL
    browser.cookies.clear()
    browser.cookies["csrftoken"] = before  # the second click left before the first one's answer came
    assert browser.post(FIRST, form).headers["Location"] == TERMINAL
    assert User.objects.count() == Instance.objects.count() == 1
    assert not Notice.objects.exists()


def test_another_browser_that_types_the_same_address_is_not_let_in(host):
    sign_up(Client(), "ann@example.com")
    other = Client(enforce_csrf_checks=True)
    assert other.post(FIRST, with_token(other)).headers["Location"] == SENT
    assert "_auth_user_id" not in other.session


def test_the_same_browser_is_not_let_in_by_the_address_later(host):
    browser = Client(enforce_csrf_checks=True)
    form = with_token(browser)
    before = browser.cookies["csrftoken"].value
    browser.post(FIRST, form)
    browser.cookies.clear()
    browser.cookies["csrftoken"] = before
    with clock.moved(timedelta(minutes=2)):
        assert browser.post(FIRST, form).headers["Location"] == SENT


def test_signing_in_gives_the_browser_another_mark(host):
    browser = Client(enforce_csrf_checks=True)
    form = with_token(browser)
    before = browser.cookies["csrftoken"].value
    browser.post(FIRST, form)
    assert browser.cookies["csrftoken"].value != before


@pytest.mark.django_db(transaction=True)
def test_many_at_once_with_one_address_make_one_user_and_one_instance(transactional_db):
    results, barrier = [], threading.Barrier(6)

    def join(number):
        barrier.wait()
        try:
            results.append(lifecycle.join("ann@example.com", mark=f"browser {number}").signs_in)
        finally:
            connection.close()

    threads = [threading.Thread(target=join, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 5 + [True]
    assert User.objects.count() == Instance.objects.count() == 1


def test_one_line_asks_only_so_often(client, settings):
    settings.LIMIT_SIGNUPS = "2/h"
    answers = [sign_up(Client(), f"trader{number}@example.com") for number in range(3)]
    assert [answer.status_code for answer in answers] == [302, 302, 429]
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 3600
    assert "That was asked too often" in answers[2].content.decode()
    assert User.objects.count() == 2


def test_the_whole_64_of_an_ipv6_line_is_one(settings):
    settings.LIMIT_SIGNUPS = "1/h"
    lines = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
    answers = [Client(REMOTE_ADDR=line).post(FIRST, {"email": f"t{n}@example.com"}) for n, line in enumerate(lines)]
    assert [answer.status_code for answer in answers] == [302, 429, 302]


def test_one_mailbox_is_mailed_only_so_often_from_wherever(settings, customer):
    settings.LIMIT_LINKS = "2/h"
    answers = [
        Client(REMOTE_ADDR=f"192.0.2.{number}").post(SIGN_IN, {"email": f"ann{tag}@example.com"})
        for number, tag in enumerate(["", "+a", ""])
    ]
    assert [answer.status_code for answer in answers] == [302, 302, 429]
    assert Notice.objects.count() == 1


def test_all_mail_together_has_a_limit(client, settings, customer):
    settings.LIMIT_MAILS = "0/h"
    assert sign_up(client, to=SIGN_IN).status_code == 429
    assert not Notice.objects.exists()


def test_a_form_with_a_mistake_costs_nothing(client, settings):
    settings.LIMIT_SIGNUPS = "1/h"
    for _ in range(3):
        assert sign_up(client, "nonsense").status_code == 200
    assert sign_up(client).status_code == 302


def test_the_zone_that_the_browser_names_is_kept_and_another_word_is_not(client, host):
    client.cookies["zone"] = "Europe/Berlin"
    sign_up(client)
    assert User.objects.get().time_zone == "Europe/Berlin"
    client.cookies["zone"] = "../../etc/passwd"
    client.get(TERMINAL)
    assert User.objects.get().time_zone == "Europe/Berlin"
