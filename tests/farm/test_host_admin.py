"""Hosts and orphans in the admin: what staff are shown, and what they may have done, by permission and confirmed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from farm import clock, lifecycle
from farm.agent import protocol
from farm.host_admin import DEEDS
from farm.models import Drill, Host, HostEvent, Instance, Orphan, Port, Watch
from farm.states import Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance

pytestmark = pytest.mark.django_db

LIST = reverse("admin:farm_host_changelist")
ADD = reverse("admin:farm_host_add")
BRAKE = reverse("admin:farm_host_brake")
ORPHANS = reverse("admin:farm_orphan_changelist")
KEYS = {
    "verify_key": protocol.b64(bytes(SigningKey(b"v" * 32).verify_key)),
    "seal_key": protocol.b64(bytes(PrivateKey(b"p" * 32).public_key)),
}
NEW = {"name": "new-host", "policy": "fenced", "slots": "7", "port_first": "9100", "port_last": "9109", **KEYS}


@pytest.fixture
def answering():
    return AnsweringHost(HostFactory.create(name="alpha"))


def staff(*codenames):
    user = UserFactory.create(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_host", "view_orphan", *codenames]))
    client = Client()
    client.force_login(user)
    return client, user


@pytest.fixture
def root():
    user = UserFactory.create(is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client


def page(client, host):
    return client.get(reverse("admin:farm_host_change", args=[host.pk])).content.decode()


def deed(host, name):
    return reverse("admin:farm_host_deed", args=[host.pk, name])


def silent(host, **changes):
    Host.objects.filter(pk=host.pk).update(surveyed_at=clock.now() - timedelta(hours=1), **changes)
    host.refresh_from_db()


# --- deeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_neither_offered_to_nor_done_for_staff_without_its_permission(answering, name):
    client, _ = staff("change_host")
    assert deed(answering.host, name) not in page(client, answering.host)
    for ask in (client.get, client.post):
        assert ask(deed(answering.host, name)).status_code == 403
    assert Host.objects.get().state == Host.State.ONLINE


@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_asked_about_before_it_is_done(answering, root, name):
    asked = root.get(deed(answering.host, name))
    assert (asked.status_code, HostEvent.objects.count()) == (200, 0)
    assert DEEDS[name].says in asked.content.decode().replace("&#x27;", "'")


def test_a_deed_that_there_is_none_of_is_not_found(answering, root):
    assert root.post(deed(answering.host, "format")).status_code == 404


def test_a_drain_and_its_undoing_stand_in_the_journal_with_who_did_it(answering):
    client, user = staff("drain_host")
    client.post(deed(answering.host, "drain"), {"chosen": "on"})
    assert Host.objects.get().drain_forced
    assert "Left to drain: 0" in page(client, answering.host)
    client.post(deed(answering.host, "undo-drain"))
    assert Host.objects.get().state == Host.State.ONLINE
    assert list(HostEvent.objects.order_by("pk").values_list("what", "who")) == [
        ("draining", f"staff:{user.pk}"),
        ("in use again", f"staff:{user.pk}"),
    ]


def test_a_draining_host_says_what_keeps_what(answering, root):
    row = answering.obey(instance(kind="live"))
    root.post(deed(answering.host, "drain"))
    shown = page(root, answering.host)
    assert "live without an account" in shown
    assert reverse("admin:farm_instance_change", args=[row.pk]) in shown


def test_a_host_that_speaks_is_not_given_up_whatever_is_typed(answering, root):
    told = root.post(deed(answering.host, "give-up"), {"typed": "alpha"}, follow=True).content.decode()
    assert "was heard from" in told
    assert Host.objects.get().lost_at is None


def test_a_host_is_given_up_only_when_its_name_is_typed(answering, root):
    silent(answering.host, policy="static", said_policy="static")
    assert deed(answering.host, "give-up") in page(root, answering.host)
    told = root.post(deed(answering.host, "give-up"), {"typed": "alphx"}).content.decode()
    assert "That is not its name." in told
    assert Host.objects.get().lost_at is None
    root.post(deed(answering.host, "give-up"), {"typed": "alpha"})
    assert Host.objects.get().lost_at is not None


def test_a_fence_that_stands_is_stronger_than_what_staff_say(answering, root):
    silent(answering.host, policy="fenced", said_policy="fenced", fenced_until=clock.now() + timedelta(minutes=5))
    told = root.post(deed(answering.host, "give-up"), {"typed": "alpha"}, follow=True).content.decode()
    assert "Live terminals may run on alpha until" in told
    assert Host.objects.get().lost_at is None


def test_a_host_that_holds_something_is_not_retired(answering, root):
    answering.obey(instance())
    told = root.post(deed(answering.host, "retire"), follow=True).content.decode()
    assert "drain it first" in told
    assert Host.objects.get().state == Host.State.ONLINE


def test_an_empty_one_is(answering, root):
    root.post(deed(answering.host, "retire"))
    assert Host.objects.get().state == Host.State.RETIRED


def test_no_host_is_deleted(answering, root):
    assert root.post(reverse("admin:farm_host_delete", args=[answering.host.pk]), {"post": "yes"}).status_code == 403


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "● online"),
        ({"state": "draining"}, "◐ draining"),
        ({"surveyed_at": None}, "▲ suspect"),
        ({"lost_at": clock.now()}, "■ lost"),
        ({"state": "retired"}, "○ retired"),
    ],
)
def test_the_condition_is_a_word_and_a_shape(answering, root, changes, words):
    Host.objects.update(**changes)
    assert words in root.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": "static"}, "only by staff: it is static"),
        ({"said_policy": ""}, "only by staff: it was never heard"),
        ({"said_policy": "static"}, "only by staff: it says that it is static"),
        ({}, "only by staff: it was never granted a lease"),
        ({"fenced_until": clock.now()}, "if silent, from "),
        (
            {"fenced_until": clock.now(), "leases_held_until": clock.now() + timedelta(hours=2)},
            "its leases are held until",
        ),
        ({"lost_at": clock.now(), "lost_why": "silent for long"}, "silent for long"),
    ],
)
def test_it_says_from_when_a_host_may_be_failed_over_or_why_not(answering, root, changes, words):
    Host.objects.update(**{"said_policy": "fenced", **changes})
    assert words in page(root, answering.host)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"policy": protocol.Policy.STATIC}, "fenced here, but it says static: one side was changed alone"),
        ({"policy": protocol.Policy.FENCED, "watchdog_ok": False}, "does not tick"),
        ({"master_ok": False, "master_reason": "BITTEN_MASTER is empty"}, "unfit: BITTEN_MASTER is empty"),
        ({"pool": {"ready": 3, "size": 5}}, "3 of 5 clones"),
        ({"load": {"cpus": 4, "load_1m": 2.0, "disk_free": 2**31}}, "load 2.0 on 4 cores, 2.0 GiB of disk free"),
        ({"sent_at": clock.now().timestamp() - 300}, "behind: have its time service seen to"),
        ({"lease_left": 77.2}, "77 s were left"),
    ],
)
def test_what_a_survey_says_is_shown_in_words(answering, root, said, words):
    answering.survey(**said)
    assert words in page(root, answering.host)


def test_the_list_says_what_is_not_right_with_a_host(answering, root):
    answering.survey(policy=protocol.Policy.STATIC, master_ok=False, master_reason="empty", watchdog_ok=False,
                     sent_at=clock.now().timestamp() - 300)  # fmt: skip
    shown = root.get(LIST).content.decode()
    assert "master unfit: empty; fenced here, static there; its watchdog does not tick; clock 300 s behind" in shown


def test_a_clock_that_is_nearly_right_is_right(answering, root):
    answering.survey(sent_at=clock.now().timestamp() - 30)
    assert "time service" not in page(root, answering.host)


def test_what_was_cloned_from_another_master_is_listed(answering, root):
    old, new = (answering.obey(instance()) for _ in range(2))
    Instance.objects.filter(pk=old.pk).update(digest="old")
    Instance.objects.filter(pk=new.pk).update(digest="new")
    Host.objects.update(master_digest="new")
    shown = page(root, answering.host)
    assert "another master than it has now: 1" in shown
    assert reverse("admin:farm_instance_change", args=[old.pk]) in shown


def test_journal_orphans_and_drills_stand_on_its_page(answering, root):
    HostEvent.objects.create(host=answering.host, what="silent", why="last heard at noon", who="watch")
    Orphan.objects.create(host=answering.host, folder="user_8")
    Drill.objects.create(host=answering.host, instances=2, detect_seconds=30, fence_seconds=150, restore_seconds=20)
    shown = page(root, answering.host)
    assert "last heard at noon" in shown
    assert "user_8" in shown
    assert "Rehearsed failovers" in shown


def test_the_list_costs_the_same_for_one_host_as_for_many(answering, root, django_assert_max_num_queries):
    for _ in range(9):
        HostFactory.create()
    with django_assert_max_num_queries(8):
        root.get(LIST)


# --- enrolled ---------------------------------------------------------------------------------------------------------


def test_staff_without_the_permission_enrol_nobody():
    client, _ = staff("change_host")
    assert client.post(ADD, NEW).status_code == 403
    assert not Host.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [{"verify_key": "abc"}, {"seal_key": protocol.b64(b"x" * 31)}, {"name": "../up"}, {"port_last": "9099"},
     {"name": "alpha"}, {"policy": "none"}],
    ids=str,
)  # fmt: skip
def test_a_host_that_cannot_be_is_refused_with_the_reason(answering, root, wrong):
    told = root.post(ADD, NEW | wrong)
    assert (told.status_code, "errornote" in told.content.decode()) == (200, True)
    assert Host.objects.count() == 1


def test_an_enrolled_host_has_its_ports_and_its_page_says_what_goes_on_the_machine(root):
    told = root.post(ADD, NEW, follow=True).content.decode()
    host = Host.objects.get(name="new-host")
    assert (host.slots, host.policy, Port.objects.filter(host=host).count()) == (7, "fenced", 10)
    assert HostEvent.objects.get(host=host).what == "enrolled"
    assert "FARM_HOST=new-host" in page(root, host)
    assert "was added successfully" in told


def test_a_changed_policy_stands_in_the_journal_and_keys_cannot_be_changed_there(answering, root):
    root.post(reverse("admin:farm_host_change", args=[answering.host.pk]), {"policy": "static", "slots": "20", **KEYS})
    host = Host.objects.get()
    assert (host.policy, host.verify_key) == ("static", answering.host.verify_key)
    assert HostEvent.objects.get().what == "policy changed"


# --- the brake --------------------------------------------------------------------------------------------------------


def test_the_brake_is_not_for_staff_without_its_permission(answering):
    client, _ = staff("change_host")
    assert BRAKE not in client.get(LIST).content.decode()
    assert client.post(BRAKE, {"do": "pull", "why": "test"}).status_code == 403


def test_it_is_pulled_and_released_and_the_list_says_why_it_is_on(answering):
    client, user = staff("release_brake")
    client.post(BRAKE, {"do": "pull", "why": "the network is being rebuilt"})
    assert Watch.objects.get().brake_by_hand
    assert "the network is being rebuilt" in client.get(LIST).content.decode()
    silent(answering.host)
    asked = client.get(BRAKE).content.decode()
    assert "alpha" in asked
    assert "only a person lets it go" in asked
    client.post(BRAKE, {"do": "release"})
    assert Watch.objects.get().brake_why == ""
    assert set(HostEvent.objects.values_list("who", flat=True)) == {f"staff:{user.pk}"}


def test_a_brake_that_let_go_meanwhile_is_said(root):
    assert "The brake is not on." in root.post(BRAKE, {"do": "release"}, follow=True).content.decode()


# --- orphans ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def orphan(answering):
    seen = answering.line(
        Instance(pk=4711, folder="user_9", generation=2), server="Broker-Live", login=77, kind="live",
        heartbeat={"at": clock.now().timestamp(), "positions": 2, "orders": 0},
    )  # fmt: skip
    answering.survey(seen, strangers=["Copy of user_3"])
    return Orphan.objects.get(instance_number=4711)


def destroy(client, *orphans, confirmed=True):
    data = {"action": "destroy_selected", "_selected_action": [one.pk for one in orphans]}
    return client.post(ORPHANS, data | ({"confirmed": "yes"} if confirmed else {}), follow=True).content.decode()


def test_orphans_are_shown_with_age_and_what_they_seem_to_run(orphan, root):
    shown = root.get(ORPHANS).content.decode()
    assert "4711: live, 77 on broker-live, running" in shown
    assert "2 positions, 0 orders" in shown
    assert "not known: its host does not know it" in shown


def test_an_orphan_is_not_destroyed_by_staff_without_the_permission(orphan):
    client, _ = staff()
    destroy(client, orphan)
    assert not Orphan.objects.exclude(asked_by="").exists()


def test_it_is_asked_about_first_and_then_ordered_with_the_name_of_who_did(orphan):
    client, user = staff("delete_orphan")
    assert "2 positions, 0 orders" in destroy(client, orphan, confirmed=False)
    assert not Orphan.objects.exclude(asked_by="").exists()
    destroy(client, orphan)
    orphan.refresh_from_db()
    assert orphan.asked_by == f"staff:{user.pk}"
    assert lifecycle.claim_orphan(orphan.pk) is not None


def test_what_its_host_does_not_know_is_refused_and_the_others_are_done(orphan, root):
    stranger = Orphan.objects.get(instance_number=None)
    told = destroy(root, orphan, stranger)
    assert "its host does not know" in told.lower()
    assert "1 to be destroyed" in told


def test_a_status_is_not_changed_by_looking(orphan, root, answering):
    row = answering.obey(instance())
    root.get(reverse("admin:farm_orphan_change", args=[orphan.pk]))
    row.refresh_from_db()
    assert row.status == Status.RUNNING
