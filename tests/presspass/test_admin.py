"""Users and notices in the admin: what staff may not do comes first."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from farm import clock
from presspass import lifecycle
from presspass.models import Notice, User
from tests.factories import UserFactory, instance

pytestmark = pytest.mark.django_db

USERS, NOTICES = "/admin/presspass/user/", "/admin/presspass/notice/"


@pytest.fixture
def boss():
    browser = Client()
    browser.force_login(User.objects.create_superuser("boss@example.com", "a long password"))
    return browser


@pytest.fixture
def clerk():
    """Staff who may change users, and no more."""
    user = User.objects.create_user("clerk@example.com", "a long password", is_staff=True)
    names = ["view_user", "change_user", "delete_user", "view_notice"]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    browser = Client()
    browser.force_login(user)
    return browser


def test_a_customer_gets_no_admin(signed_in):
    assert signed_in.get(USERS).status_code == 302


def test_a_user_with_an_instance_cannot_be_deleted(boss, customer):
    instance(customer)
    assert boss.get(f"{USERS}{customer.pk}/delete/").status_code == 403
    assert boss.post(f"{USERS}{customer.pk}/delete/", {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=customer.pk).exists()


def test_nor_in_bulk(boss, customer):
    instance(customer)
    boss.post(USERS, {"action": "delete_selected", "_selected_action": [customer.pk], "post": "yes"})
    assert User.objects.filter(pk=customer.pk).exists()


def test_notices_are_read_only(boss, customer):
    lifecycle.ask(customer)
    notice = Notice.objects.get()
    assert boss.get(f"{NOTICES}{notice.pk}/change/").status_code == 200
    assert boss.post(f"{NOTICES}{notice.pk}/change/", {"kind": "x"}).status_code == 403
    assert boss.get(f"{NOTICES}add/").status_code == 403
    assert boss.post(f"{NOTICES}{notice.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_clerk_makes_nobody_staff(clerk, customer):
    answer = clerk.post(
        f"{USERS}{customer.pk}/change/",
        {"email": customer.email, "is_active": "on", "is_staff": "on", "is_superuser": "on"},
    )
    assert answer.status_code == 302
    customer.refresh_from_db()
    assert not customer.is_staff
    assert not customer.is_superuser


def test_a_clerk_changes_no_staff(clerk):
    boss = User.objects.create_superuser("boss@example.com", "a long password")
    assert clerk.post(f"{USERS}{boss.pk}/change/", {"email": "eve@example.com"}).status_code == 403
    assert clerk.post(f"{USERS}{boss.pk}/password/", {"password1": "x" * 20, "password2": "x" * 20}).status_code == 403


@pytest.mark.parametrize("email", ["nonsense", "\u0430nn@example.com", "ann@example.com\nBcc: eve@example.com"])
def test_a_bad_address_is_told_at_its_field(boss, customer, email):
    page = boss.post(f"{USERS}{customer.pk}/change/", {"email": email, "is_active": "on"})
    assert page.status_code == 200
    assert page.context["adminform"].form.errors["email"]


def test_an_address_that_is_taken_in_another_case_is_told_at_its_field(boss, customer):
    page = boss.post(f"{USERS}add/", {"email": "ANN@Example.com", "usable_password": "false"})
    assert page.status_code == 200
    assert User.objects.filter(email__iexact="ann@example.com").count() == 1


def test_an_address_is_normalised_and_a_new_one_is_not_confirmed(boss, customer):
    answer = boss.post(f"{USERS}{customer.pk}/change/", {"email": "Eve@Example.com", "is_active": "on"})
    assert answer.status_code == 302
    customer.refresh_from_db()
    assert (customer.email, customer.verified) == ("eve@example.com", False)


def test_users_are_found_by_part_of_their_address(boss, customer):
    UserFactory.create(email="someone@example.org")
    page = boss.get(USERS, {"q": "ann@"}).content.decode()
    assert "ann@example.com" in page
    assert "someone@example.org" not in page


def test_users_are_sifted_by_whether_the_address_is_confirmed(boss, customer):
    UserFactory.create(email="someone@example.org", email_verified_at=None)
    User.objects.filter(pk=customer.pk).update(email_verified_at=clock.now())
    assert "someone@example.org" not in boss.get(USERS, {"verified": "yes"}).content.decode()
    assert "ann@example.com" not in boss.get(USERS, {"verified": "no"}).content.decode()


def test_staff_are_made_with_a_password(boss):
    words = {
        "email": "new@example.com",
        "usable_password": "true",
        "password1": "a long password 9",
        "password2": "a long password 9",
    }
    assert boss.post(f"{USERS}add/", words).status_code == 302
    assert User.objects.get(email="new@example.com").check_password("a long password 9")
