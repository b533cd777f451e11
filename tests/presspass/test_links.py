"""Sign-in links: used once, for a while, by whoever reads the mailbox; and what they do to earlier sessions."""

from __future__ import annotations

import threading
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import sesame.utils
import time_machine
from django.db import connection
from django.test import Client

from farm import clock
from presspass import checks, lifecycle
from presspass.errors import BadLink
from presspass.lifecycle import links
from presspass.models import User
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db

LINK, TERMINAL = "/sign-in/link/", "/terminal/"


def token(customer):
    return parse_qs(urlsplit(links.url(User.objects.get(pk=customer.pk))).query)["token"][0]


def use(browser, word):
    return browser.post(LINK, {"token": word})


def refused(page):
    return page.status_code == 403 and "That link no longer works" in page.content.decode()


@pytest.mark.parametrize("word", ["", "x", "a" * 10_000, "\x00", "ünï", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "../../x"])
def test_what_is_no_link_is_refused(client, word):
    assert refused(client.get(LINK, {"token": word}))
    assert refused(use(client, word))


def test_a_link_is_refused_after_its_time(client, customer, settings):
    word = token(customer)
    with time_machine.travel(clock.now() + timedelta(seconds=settings.LINK_SECONDS + 1)):
        assert refused(use(client, word))


def test_a_link_is_refused_the_second_time(customer):
    word = token(customer)
    assert use(Client(), word).headers["Location"] == TERMINAL
    assert refused(use(Client(), word))
    assert refused(Client().get(LINK, {"token": word}))


def test_a_link_from_before_another_sign_in_is_refused(client, customer):
    older, newer = token(customer), token(customer)
    use(Client(), newer)
    assert refused(use(client, older))


def test_a_link_is_refused_once_the_address_is_another(client, customer):
    word = token(customer)
    User.objects.filter(pk=customer.pk).update(email="eve@example.com")
    assert refused(use(client, word))


@pytest.mark.parametrize("changes", [{"is_active": False}, {"is_staff": True}, {"is_superuser": True}])
def test_a_link_is_refused_for_staff_and_closed_accounts(client, customer, changes):
    word = token(customer)
    User.objects.filter(pk=customer.pk).update(**changes)
    assert refused(use(client, word))


def test_a_token_made_for_another_purpose_is_refused(client, customer):
    for scope in ("", "other"):
        assert refused(use(client, sesame.utils.get_token(customer, scope=scope)))


def test_a_link_for_a_customer_who_is_gone_is_refused(client):
    gone = UserFactory.create(email="gone@example.com")
    word = token(gone)
    gone.delete()
    assert refused(use(client, word))


def test_opening_the_link_uses_nothing_up_because_mail_scanners_open_links(client, customer):
    word = token(customer)
    for _ in range(3):
        page = client.get(LINK, {"token": word})
        assert page.status_code == 200
        assert "ann@example.com" in page.content.decode()
    assert "_auth_user_id" not in client.session
    assert use(client, word).headers["Location"] == TERMINAL
    assert client.get(TERMINAL).status_code == 200


def test_the_page_sends_its_address_nowhere_and_is_not_kept(client, customer):
    page = client.get(LINK, {"token": token(customer)})
    assert page.headers["Referrer-Policy"] == "strict-origin"
    assert "no-store" in page.headers["Cache-Control"]


def test_the_button_passes_the_check_for_forged_posts(customer):
    browser = Client(enforce_csrf_checks=True)
    page = browser.get(LINK, {"token": token(customer)})
    form = {"token": page.context["token"], "csrfmiddlewaretoken": str(page.context["csrf_token"])}
    assert browser.post(LINK, form).headers["Location"] == TERMINAL


def test_the_first_use_confirms_the_address_and_ends_the_session_of_whoever_typed_it(host):
    thief = Client()
    thief.post("/", {"email": "ann@example.com"})
    assert thief.get(TERMINAL).status_code == 200
    ann = User.objects.get(email="ann@example.com")
    owner = Client()
    use(owner, token(ann))
    assert thief.get(TERMINAL).status_code == 302, "the session from before the first use must be over"
    assert owner.get(TERMINAL).status_code == 200
    ann.refresh_from_db()
    assert ann.verified


def test_later_uses_leave_other_devices_signed_in(customer, signed_in):
    use(Client(), token(customer))
    assert signed_in.get(TERMINAL).status_code == 200


def test_an_hour_later_on_another_device_a_newly_asked_link_leads_back(host):
    Client().post("/", {"email": "ann@example.com"})
    ann = User.objects.get()
    with time_machine.travel(clock.now() + timedelta(hours=1)):
        phone = Client()
        use(phone, token(ann))
        assert f"{ann.instances.get().folder}" in phone.get(TERMINAL).content.decode()


@pytest.mark.django_db(transaction=True)
def test_of_many_that_press_at_once_one_gets_in():
    customer = UserFactory.create(email="ann@example.com")
    word, results, barrier = token(customer), [], threading.Barrier(6)

    def press():
        barrier.wait()
        try:
            lifecycle.use(word)
            results.append("in")
        except BadLink:
            results.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=press) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["in"] + ["refused"] * 5


def test_two_that_read_the_same_row_cannot_both_use_it(customer, monkeypatch):
    """The race in slow motion: both looked before either used."""
    word = token(customer)
    looked = lifecycle.look_at(word)
    lifecycle.use(word)
    monkeypatch.setattr(links, "look_at", lambda _: looked)
    with pytest.raises(BadLink):
        lifecycle.use(word)


def test_a_settings_mistake_that_makes_links_work_again_and_again_is_an_error(settings):
    assert checks.links_work_once(None) == []
    settings.SESAME_ONE_TIME = False
    assert [found.id for found in checks.links_work_once(None)] == ["presspass.E002"]


def test_a_limit_that_cannot_be_read_is_an_error(settings):
    assert checks.limits_are_readable(None) == []
    settings.LIMIT_LINKS = "often"
    assert [found.id for found in checks.limits_are_readable(None)] == ["presspass.E001"]
