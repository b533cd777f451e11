"""Staff and payments: what they see, what they may do, and what they are asked first."""

from __future__ import annotations

import io

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from farm import vault
from farm.models import BrokerAccount, RefusedLogin
from farm.states import Goal, Status
from presspass.models import Checkout, Refund
from tests.billing.shop import LOGIN, PASSWORD
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db

SUBSCRIPTIONS = reverse("admin:presspass_subscription_changelist")
INSTANCES = reverse("admin:farm_instance_changelist")


def staff(*codenames):
    user = UserFactory.create(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    browser = Client()
    browser.force_login(user)
    return browser


def act(browser, page, action, row, **more):
    return browser.post(page, {"action": action, "_selected_action": [row.pk], **more}, follow=True)


def test_who_paid_and_has_no_terminal_stands_before_staff_after_some_days(shop):
    shop.refuse(shop.buy())
    browser = staff("view_subscription")
    assert "ann@example.com" not in browser.get(SUBSCRIPTIONS + "?unsolved=yes").content.decode()
    shop.later(days=3, minutes=1)
    assert "ann@example.com" in browser.get(SUBSCRIPTIONS + "?unsolved=yes").content.decode()


def test_who_has_a_working_terminal_does_not(shop):
    shop.go_live()
    shop.later(days=4)
    browser = staff("view_subscription")
    assert "ann@example.com" not in browser.get(SUBSCRIPTIONS + "?unsolved=yes").content.decode()


def test_staff_without_the_right_refund_nothing(shop):
    shop.buy()
    browser = staff("view_subscription")
    act(browser, SUBSCRIPTIONS, "refund_selected", shop.subscription(), confirmed="yes")
    assert not Refund.objects.exists()


def test_a_refund_is_asked_about_first_and_given_once(shop):
    shop.refuse(shop.buy())
    browser = staff("view_subscription", "refund_payment")
    page = act(browser, SUBSCRIPTIONS, "refund_selected", shop.subscription())
    assert "3900 US cents" in page.content.decode()
    assert not Refund.objects.exists()
    for _ in range(2):
        act(browser, SUBSCRIPTIONS, "refund_selected", shop.subscription(), confirmed="yes")
        shop.work()
    assert len(shop.paper.list("refunds")) == 1
    assert shop.subscription().ended_at is not None


def test_a_payment_that_is_not_what_was_agreed_is_given_back_from_its_row(shop):
    shop.fill()
    Checkout.objects.update(cents=1)
    shop.pay()
    shop.hear()
    browser = staff("view_checkout", "refund_payment")
    act(browser, reverse("admin:presspass_checkout_changelist"), "refund_selected", shop.checkout(), confirmed="yes")
    shop.work()
    assert (len(shop.paper.list("refunds")), shop.checkout().status) == (1, "refunded")


@pytest.mark.parametrize("typed", ["", "7000002", str(LOGIN) + "0"])
def test_a_live_terminal_is_not_destroyed_without_its_login_and_its_open_positions_are_shown(shop, typed):
    row = shop.go_live()
    row.facts = {"positions": 3}
    row.save()
    page = act(staff("view_instance", "delete_instance"), INSTANCES, "end_live_selected", row, typed=typed)
    assert "<strong>3</strong>" in page.content.decode()
    row.refresh_from_db()
    assert row.goal == Goal.RUNNING


def test_a_live_terminal_is_destroyed_by_staff_who_type_its_login(shop):
    row = shop.go_live()
    act(staff("view_instance"), INSTANCES, "end_live_selected", row, typed=str(LOGIN))
    row.refresh_from_db()
    assert row.goal == Goal.RUNNING
    act(staff("view_instance", "delete_instance"), INSTANCES, "end_live_selected", row, typed=str(LOGIN))
    shop.settle()
    row.refresh_from_db()
    assert row.status == Status.DESTROYED


def test_a_refusal_that_staff_clear_may_be_tried_again(shop):
    shop.refuse(shop.buy())
    assert shop.fill().status_code == 422
    line = RefusedLogin.objects.get()
    browser = staff("view_refusedlogin", "delete_refusedlogin")
    browser.post(reverse("admin:farm_refusedlogin_delete", args=[line.pk]), {"post": "yes"})
    assert shop.fill().status_code == 302


@pytest.mark.parametrize("table", ["plan", "subscription", "checkout", "refund", "stripeevent"])
def test_every_table_opens_and_shows_no_password(shop, table):
    shop.refuse(shop.buy())
    browser = Client()
    browser.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    page = browser.get(reverse(f"admin:presspass_{table}_changelist"))
    assert page.status_code == 200
    assert PASSWORD not in page.content.decode()


def test_keys_are_rotated_also_over_what_the_web_closed_and_the_old_key_opens_nothing_then(shop, settings):
    shop.fill()
    account = BrokerAccount.objects.get(owner=shop.customer)
    assert account.password.startswith("sealed:")
    old, new = settings.FIELD_KEYS[0], Fernet.generate_key().decode()
    settings.FIELD_KEYS = [new, old]
    out = io.StringIO()
    call_command("rotate_field_keys", stdout=out)
    account.refresh_from_db()
    settings.FIELD_KEYS = [new]
    assert vault.password_of(account) == PASSWORD
    assert PASSWORD not in out.getvalue()
    settings.FIELD_KEYS = [old]
    with pytest.raises(CommandError, match="Nothing is lost"):
        call_command("rotate_field_keys")
