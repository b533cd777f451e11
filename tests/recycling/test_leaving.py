"""Customers' rights: all that is stored about me, and none of it; what must be kept is named."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.test import Client

from farm import clock, vault
from farm.models import BrokerAccount, Instance, Keepsake, Ticket
from farm.states import Goal, Status
from presspass import lifecycle
from presspass.lifecycle import leaving
from presspass.models import Attempt, Checkout, Notice, PastMailbox, Plan, Subscription, User
from tests.factories import fill_vault, instance

pytestmark = pytest.mark.django_db
CANARY = "Canary-4711-xY"


@pytest.fixture
def ann(answering):
    """A customer of whom a good deal is stored, signed in."""
    fill_vault(1)
    customer = User.objects.create_user("ann.canary@example.com", email_verified_at=clock.now(), time_zone="Asia/Tokyo")
    row = answering.obey(instance(customer))
    own = BrokerAccount.objects.create(
        server="Ann-Canary-Server", login=77123, password=vault.encrypted(CANARY), owner=customer
    )
    gone = Instance.objects.create(
        customer=customer, kind="live", status=Status.DESTROYED, goal=Goal.DESTROYED, folder="x", account=own,
        refusal_text="Ann-Canary-Server says no", facts={"balance": 77123.0},
    )  # fmt: skip
    Attempt.objects.create(instance=gone, server="Ann-Canary-Server", login=77123)
    Keepsake.objects.create(customer=customer, from_instance=row, data=b"PK77123", size=7, digest="d")
    Ticket.objects.create(token_hash="h", instance=row, direction="get", expires_at=clock.now())
    lifecycle.ask(customer)
    LogEntry.objects.create(
        user=customer, content_type=ContentType.objects.get_for_model(User), object_id=str(customer.pk),
        object_repr=customer.email, action_flag=2,
    )  # fmt: skip
    return customer, row


@pytest.fixture
def browser(ann):
    made = Client()
    made.force_login(ann[0])
    return made


def everything():
    """Every value of every row of every table."""
    found = []
    for model in apps.get_models():
        fields = [field.attname for field in model._meta.concrete_fields if not isinstance(field, models.BinaryField)]
        found += [repr(row) for row in model._default_manager.values(*fields)]
    return "\n".join(found)


def test_the_export_has_all_of_it_and_no_password(ann, browser):
    customer, row = ann
    page = browser.get("/account/export/")
    assert page["Content-Disposition"].startswith("attachment")
    assert CANARY.encode() not in page.content
    found = json.loads(page.content)
    assert found["account"]["email"] == customer.email
    assert next(one["id"] for one in found["terminals"]) == row.pk
    assert found["terminals"][0]["journal"][0]["why"] == "asked for"
    assert found["broker_accounts"][0]["login"] == 77123
    assert found["kept_of_your_terminals"][0]["bytes"] == 7
    assert found["mails"][0]["kind"] == "sign-in link"


def test_the_export_has_nothing_of_anybody_else(ann, browser):
    instance(User.objects.create_user("bob@example.com"))
    found = json.loads(browser.get("/account/export/").content)
    assert len(found["terminals"]) == 2
    assert "bob@" not in json.dumps(found)


@pytest.mark.parametrize("url", ["/account/", "/account/export/", "/account/delete/"])
def test_only_for_who_is_signed_in(ann, url):
    assert Client().get(url).status_code == 302


def test_an_address_that_is_not_confirmed_gets_neither(answering):
    customer = User.objects.create_user("x@example.com")
    made = Client()
    made.force_login(customer)
    assert made.get("/account/export/").status_code == 302
    made.post("/account/delete/")
    customer.refresh_from_db()
    assert customer.leaving_at is None


def test_looking_at_the_page_deletes_nothing_and_names_what_is_kept(ann, browser):
    text = browser.get("/account/delete/").content.decode()
    assert "Payments" in text
    assert "mailbox" in text
    ann[0].refresh_from_db()
    assert ann[0].leaving_at is None


def test_first_the_terminal_goes_and_then_the_data(ann, browser, answering):
    customer, row = ann
    assert b"is being deleted" in browser.post("/account/delete/").content
    row.refresh_from_db()
    assert row.goal == Goal.DESTROYED
    assert leaving.finish() == 0, "its terminal is still there"
    assert User.objects.filter(email=customer.email).exists()
    answering.obey(row)
    assert leaving.finish() == 1
    assert leaving.finish() == 0
    text = everything()
    for canary in ("canary", "Canary", "77123", "Asia/Tokyo"):
        assert canary not in text
    assert not Keepsake.objects.exists()
    assert not Notice.objects.exists()


def test_they_are_signed_out_everywhere_at_once(ann, browser):
    other = Client()
    other.force_login(ann[0])
    browser.post("/account/delete/")
    for one in (browser, other):
        assert one.get("/terminal/").status_code == 302


def test_no_link_signs_in_who_leaves(ann, browser, mailoutbox):
    browser.post("/account/delete/")
    assert not lifecycle.ask(User.objects.get(pk=ann[0].pk))
    lifecycle.send_due()
    assert mailoutbox == []


def test_who_comes_again_is_new_and_gets_what_was_left_of_the_days(ann, browser, answering):
    customer, row = ann
    browser.post("/account/delete/")
    row.refresh_from_db()
    answering.obey(row)
    leaving.finish()
    again = lifecycle.join("ann.canary+2@example.com", mark="m")
    assert again.signs_in
    assert again.customer.pk != customer.pk
    newest = Instance.objects.latest("pk")
    assert newest.ends_at == row.first_running_at + timedelta(days=7) == PastMailbox.objects.get().pass_ends_at


def test_what_is_paid_for_must_be_cancelled_first(ann, browser):
    plan = Plan.objects.first() or Plan.objects.create(key="x", name="X", cents=100)
    Subscription.objects.create(
        customer=ann[0], plan=plan, cents=100, stripe_customer="c", stripe_subscription="s", status="active",
        period_end=clock.now(),
    )  # fmt: skip
    page = browser.post("/account/delete/", follow=True)
    assert b"cancel it first" in page.content
    assert Instance.objects.get(pk=ann[1].pk).goal == Goal.RUNNING


def test_payments_are_kept(ann, browser, answering):
    plan = Plan.objects.first() or Plan.objects.create(key="x", name="X", cents=100)
    gone = Instance.objects.get(folder="x")
    Checkout.objects.create(
        customer=ann[0], plan=plan, cents=3900, instance=gone, status="refunded", expires_at=clock.now()
    )
    browser.post("/account/delete/")
    ann[1].refresh_from_db()
    answering.obey(ann[1])
    assert leaving.finish() == 1
    assert Checkout.objects.get().cents == 3900


def test_one_that_fails_stops_nobody(ann, browser, answering, monkeypatch, caplog):
    browser.post("/account/delete/")
    ann[1].refresh_from_db()
    answering.obey(ann[1])
    bob = User.objects.create_user("bob@example.com", email_verified_at=clock.now())
    leaving.ask(bob)
    real = leaving._delete
    monkeypatch.setattr(leaving, "_delete", lambda who: 1 / 0 if who.pk == ann[0].pk else real(who))
    assert leaving.finish() == 1
    assert "could not be deleted" in caplog.text
