"""Guessing the password of staff: refused by line and by login, whoever is meant."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from farm import clock
from presspass.models import User

pytestmark = pytest.mark.django_db
PAGE, PASSWORD = "/admin/login/", "a long password"


@pytest.fixture(autouse=True)
def twice_an_hour(settings):
    settings.LIMIT_STAFF = "2/h"


@pytest.fixture
def boss():
    return User.objects.create_superuser("boss@example.com", PASSWORD)


def tries(password, *, line="192.0.2.1", login="boss@example.com"):
    form = {"username": login, "password": password, "next": "/admin/"}
    return Client(REMOTE_ADDR=line).post(PAGE, form)


def test_after_too_many_tries_the_right_password_is_refused_too_and_the_page_says_until_when(boss):
    assert [tries("wrong").status_code for _ in range(3)] == [200, 200, 429]
    answer = tries(PASSWORD)
    assert answer.status_code == 429
    assert 0 < int(answer["Retry-After"]) <= 3600


def test_one_login_is_guarded_from_many_lines(boss):
    lines = [f"192.0.2.{number}" for number in range(1, 4)]
    assert [tries("wrong", line=line).status_code for line in lines] == [200, 200, 429]
    assert tries("wrong", line="192.0.2.9", login="BOSS@example.com ").status_code == 429


def test_one_line_is_guarded_from_many_logins(boss):
    logins = [f"nobody-{number}@example.com" for number in range(3)]
    assert [tries("wrong", login=login).status_code for login in logins] == [200, 200, 429]


def test_another_login_from_another_line_gets_in(boss):
    for _ in range(3):
        tries("wrong", login="nobody@example.com")
    assert tries(PASSWORD, line="198.51.100.1").headers["Location"] == "/admin/"


def test_looking_at_the_page_counts_nothing(boss):
    for _ in range(5):
        assert Client(REMOTE_ADDR="192.0.2.1").get(PAGE).status_code == 200
    assert tries(PASSWORD).status_code == 302


def test_an_hour_later_it_is_forgotten(boss):
    for _ in range(3):
        tries("wrong")
    with clock.moved(timedelta(hours=1)):
        assert tries(PASSWORD).status_code == 302
