"""The farm in the admin: what staff may see, find, ask for, and not do."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from farm import vault
from farm.agent.protocol import Outcome, Reason
from farm.models import BrokerAccount, Host, Instance, Port, Transition
from farm.states import Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, fill_vault, instance

pytestmark = pytest.mark.django_db

LIST = reverse("admin:farm_instance_changelist")


@pytest.fixture
def answering():
    return AnsweringHost(HostFactory.create())


def staff(*codenames):
    user = UserFactory.create(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_instance", *codenames]))
    client = Client()
    client.force_login(user)
    return client, user


@pytest.fixture
def root():
    user = UserFactory.create(is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client, user


def act(client, action, *rows, confirmed=True):
    data = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(LIST, data | ({"confirmed": "yes"} if confirmed else {}), follow=True)


def test_a_customer_is_not_let_in(client):
    client.force_login(UserFactory.create())
    assert client.get(LIST).status_code == 302


@pytest.mark.parametrize("action", ["retry_selected", "recycle_selected"])
def test_an_action_is_not_offered_to_staff_without_its_permission(answering, action):
    row = answering.obey(instance())
    client, _ = staff()
    assert action not in client.get(LIST).content.decode()
    act(client, action, row)
    row.refresh_from_db()
    assert row.status == Status.RUNNING


@pytest.mark.parametrize("model", [Instance, Host, Port, Transition])
def test_nothing_that_a_terminal_hangs_on_can_be_deleted(answering, root, model):
    answering.obey(instance())
    client, _ = root
    row = model.objects.first()
    url = reverse(f"admin:farm_{model._meta.model_name}_delete", args=[row.pk])
    assert client.post(url, {"post": "yes"}).status_code == 403
    assert model.objects.filter(pk=row.pk).exists()


def test_a_status_cannot_be_set_by_hand(answering, root):
    row = answering.obey(instance())
    client, _ = root
    url = reverse("admin:farm_instance_change", args=[row.pk])
    page = client.get(url).content.decode()
    assert 'name="status"' not in page
    client.post(url, {"status": "destroyed", "goal": "destroyed"})
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_recycling_asks_first_and_shows_what_it_would_destroy(answering, root):
    row = answering.obey(instance())
    page = act(root[0], "recycle_selected", row, confirmed=False).content.decode()
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    assert str(row.customer) in page
    assert 'name="confirmed"' in page


def test_a_confirmed_recycle_stands_in_the_journal_with_who_did_it(answering):
    row = answering.obey(instance())
    client, user = staff("recycle_instance")
    act(client, "recycle_selected", row)
    assert answering.obey(row).status == Status.DESTROYED
    line = row.transitions.get(became="destroying")
    assert (line.who, line.why) == (f"staff:{user.pk}", "recycled by staff")


def test_a_live_terminal_is_not_recycled(answering, root):
    row = answering.obey(instance(kind="live"))
    page = act(root[0], "recycle_selected", row).content.decode()
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    assert "Only a Press Pass" in page


def test_a_failed_terminal_is_tried_again(answering):
    row = instance()
    answering.answer(answering.claim(row), Outcome.REFUSED, Reason.STALE)
    client, _ = staff("retry_instance")
    act(client, "retry_selected", row)
    assert answering.obey(row).status == Status.RUNNING


def test_one_that_cannot_be_tried_again_does_not_stop_the_others(answering, root):
    fine = answering.obey(instance())
    failed = instance()
    answering.answer(answering.claim(failed), Outcome.REFUSED, Reason.STALE)
    page = act(root[0], "retry_selected", fine, failed).content.decode()
    assert "1 done" in page
    assert f"Instance {fine.pk}: Only a failed terminal" in page


@pytest.mark.parametrize("term", ["email", "folder", "port", "magic", "id"])
def test_an_instance_is_found_by(answering, root, term):
    for _ in range(3):
        answering.obey(instance())
    row = Instance.objects.order_by("pk")[1]
    terms = {"email": row.customer.email, "folder": row.folder, "port": row.port_number, "magic": row.magic,
             "id": row.pk}  # fmt: skip
    page = root[0].get(LIST, {"q": terms[term]}).context["cl"].result_list
    assert row in page
    assert len(page) < 3


@pytest.mark.parametrize("term", ["' OR 1=1", "9" * 30, "٣", "%", "  "])
def test_a_search_for_nonsense_is_an_empty_page_or_the_whole_list(root, term):
    assert root[0].get(LIST, {"q": term}).status_code == 200


def test_no_page_shows_a_password(answering, root):
    fill_vault()
    row = answering.obey(instance())
    for name in ("instance", "brokeraccount", "transition", "host", "port"):
        page = root[0].get(reverse(f"admin:farm_{name}_changelist")).content.decode()
        assert "Secret-" not in page
        assert row.account.password not in page
    url = reverse("admin:farm_brokeraccount_change", args=[row.account_id])
    assert row.account.password not in root[0].get(url).content.decode()


def account_url(account):
    return reverse("admin:farm_brokeraccount_change", args=[account.pk])


@pytest.fixture
def account(answering):
    fill_vault()
    return answering.obey(instance()).account


def test_staff_without_the_permission_cannot_replace_a_password(account):
    client, _ = staff("view_brokeraccount")
    assert "new_password" not in client.get(account_url(account)).content.decode()
    client.post(account_url(account), {"new_password": "Another-1aA"})
    assert vault.password_of(BrokerAccount.objects.get(pk=account.pk)) == vault.password_of(account)


@pytest.mark.parametrize("hostile", ["abc", "x" * 33, "line\nbreak", " 5pace-1aA", "naïve-1A", "a\x00bcd"])
def test_a_password_that_no_terminal_takes_is_refused_and_not_shown_again(account, root, hostile):
    page = root[0].post(account_url(account), {"new_password": hostile})
    assert (page.status_code, "errornote" in page.content.decode()) == (200, True)
    assert hostile not in page.content.decode()
    assert vault.password_of(BrokerAccount.objects.get(pk=account.pk)) == vault.password_of(account)


def test_staff_replace_a_password_and_nobody_reads_it(account, root, caplog):
    root[0].post(account_url(account), {"new_password": "Another-1aA"}, follow=True)
    stored = BrokerAccount.objects.get(pk=account.pk)
    assert vault.password_of(stored) == "Another-1aA"
    assert stored.fingerprint == vault.fingerprint(stored.server, stored.login, "Another-1aA")
    pages = [root[0].get(url).content.decode() for url in (account_url(account), reverse("admin:index"))]
    everything = "".join([*pages, caplog.text, str(LogEntry.objects.values()), stored.password])
    assert "Another-1aA" not in everything


def test_an_empty_field_changes_nothing(account, root):
    root[0].post(account_url(account), {"new_password": ""})
    assert BrokerAccount.objects.get(pk=account.pk).password == account.password


def test_the_list_costs_the_same_for_one_row_as_for_many(answering, root, django_assert_max_num_queries):
    for _ in range(10):
        answering.obey(instance())
    with django_assert_max_num_queries(12):
        root[0].get(LIST)


def test_the_form_of_a_host_does_not_write_the_slots_that_were_taken_while_it_was_open(answering, root, monkeypatch):
    host = answering.host
    clean = Host.clean

    def a_signup_comes(self):
        instance()
        clean(self)

    monkeypatch.setattr(Host, "clean", a_signup_comes)
    url = reverse("admin:farm_host_change", args=[host.pk])
    root[0].post(url, {"policy": "fenced", "slots": "30"})
    host.refresh_from_db()
    assert (host.slots, host.taken) == (30, 1)


@pytest.mark.parametrize("action", ["retry_selected", "recycle_selected"])
def test_an_action_is_never_taken_by_a_get(answering, root, action):
    row = answering.obey(instance())
    root[0].get(LIST, {"action": action, "_selected_action": row.pk, "confirmed": "yes"})
    row.refresh_from_db()
    assert row.status == Status.RUNNING
