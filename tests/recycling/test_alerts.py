"""What staff are told of the farm: each cause once, together in one mail per look, gone when it is over, and a link."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.mail import EmailMessage
from django.test import Client

from farm import clock, trouble
from farm.lifecycle import moving
from farm.models import Host, HostEvent, Instance, Orphan, Watch
from farm.states import Goal, Kind, Reason, Status
from presspass import glance
from presspass.lifecycle import runs
from presspass.models import Alert, User
from tests.factories import HostFactory, UserFactory, instance
from tests.recycling.conftest import heard, run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _told(settings):
    settings.ALERT_EMAILS = ["staff@example.org"]
    settings.LEASE_SECONDS, settings.DRIFT_SECONDS, settings.MOVE_SECONDS = 120, 15, 60
    with clock.moved(timedelta()):
        yield


@pytest.fixture
def host(db):
    """One that speaks, is fenced and looked after; recycle_idle ran."""
    made = HostFactory.create(name="alpha", policy="fenced", said_policy="fenced", stop_seconds=30)
    well()
    return made


def well():
    """All of it was just seen to run."""
    run()
    Host.objects.update(fenced_until=clock.now() + timedelta(seconds=120))


def by(**time):
    clock.move(timedelta(**time))


def change(host, **fields):
    Host.objects.filter(pk=host.pk).update(**fields)


def line_of(count, *, hours_ago):
    at = clock.now() - timedelta(hours=hours_ago)
    rows = []
    for _ in range(count):
        customer = UserFactory.create()
        rows.append(Instance.objects.create(customer=customer, kind=Kind.PRESS_PASS, status="waiting", folder="f"))
    Instance.objects.filter(pk__in=[row.pk for row in rows]).update(created_at=at)
    return rows


def test_of_a_farm_that_is_well_nothing_is_told(host, mailoutbox):
    assert runs.watch() == []
    assert mailoutbox == []


def test_of_a_farm_without_hosts_nothing_is_told(db):
    run()
    assert trouble.every() == []


# --- hosts ------------------------------------------------------------------------------------------------------------


def test_a_silence_of_less_than_a_minute_is_not_told(host):
    by(seconds=59)
    Watch.objects.update(looked_at=clock.now(), leases_seen_at=clock.now())
    assert runs.watch() == []


def test_a_silent_host_is_told_with_what_it_holds_and_when_it_is_given_up(host, mailoutbox):
    instance()
    by(seconds=61)
    Watch.objects.update(looked_at=clock.now(), leases_seen_at=clock.now())
    host.refresh_from_db()
    assert runs.watch() == [f"host silent {host.pk}"]
    (mail,) = mailoutbox
    assert mail.subject == f"Host alpha is silent since {host.surveyed_at:%Y-%m-%d %H:%M:%S UTC}."
    assert "It holds 0 live terminals and 1 Press Pass." in mail.body
    until = host.fenced_until + timedelta(seconds=45)
    assert f"It is given up at {until:%Y-%m-%d %H:%M:%S UTC} if it stays silent." in mail.body
    assert "/admin/farm/host/?name=alpha" in mail.body
    assert runs.watch() == []
    heard()
    assert runs.watch() == []
    assert not Alert.objects.exists()


@pytest.mark.parametrize("fields", [{"policy": "static", "said_policy": "static"}, {"fenced_until": None}])
def test_of_a_silent_host_without_a_fence_no_time_is_promised(host, fields):
    change(host, **fields)
    by(seconds=61)
    (said,) = [one for one in trouble.every() if one.cause == f"host silent {host.pk}"]
    assert "never given up by itself" in said.more


def test_many_hosts_at_once_are_one_mail(host, mailoutbox):
    more = [HostFactory.create() for _ in range(3)]
    by(seconds=61)
    Watch.objects.update(looked_at=clock.now(), leases_seen_at=clock.now())
    assert set(runs.watch()) == {f"host silent {one.pk}" for one in (host, *more)}
    (mail,) = mailoutbox
    assert mail.subject.endswith("(and 3 more)")
    assert mail.body.count("is silent since") == 4
    assert Alert.objects.filter(told_at__isnull=False).count() == 4


def test_a_lost_host_is_told_in_place_of_a_silent_one(host, mailoutbox):
    by(seconds=61)
    Watch.objects.update(looked_at=clock.now(), leases_seen_at=clock.now())
    runs.watch()
    change(host, lost_at=clock.now(), lost_why="silent, and its fence has passed")
    assert runs.watch() == [f"host lost {host.pk}"]
    assert "silent, and its fence has passed" in mailoutbox[-1].body
    assert [alert.cause for alert in Alert.objects.all()] == [f"host lost {host.pk}"]


def test_a_retired_host_is_nobodys_trouble(host):
    change(host, lost_at=clock.now(), state=Host.State.RETIRED)
    by(hours=1)
    run()
    assert trouble.every() == []


@pytest.mark.parametrize(
    ("here", "there", "means"), [("fenced", "static", "without a lease"), ("static", "fenced", "they stop")]
)
def test_two_policies_are_told_with_what_that_means(host, here, there, means):
    change(host, policy=here, said_policy=there)
    assert runs.watch() == []  # it is just being changed, one side first
    by(seconds=61)
    well()
    assert runs.watch() == [f"policy of host {host.pk}"]
    assert means in next(one.more for one in trouble.every())


def test_a_host_that_has_not_said_its_policy_yet_is_no_trouble(host):
    change(host, said_policy="")
    assert trouble.every() == []


def test_a_watchdog_that_does_not_tick_is_told(host):
    change(host, watchdog_ok=False)
    runs.watch()
    by(seconds=61)
    well()
    assert runs.watch() == [f"watchdog of host {host.pk}"]


def waits_for_a_lease(host):
    change(host, load={"lease_left": None})
    row = instance(kind=Kind.LIVE)
    Instance.objects.filter(pk=row.pk).update(host=host, status=Status.STARTING, kind=Kind.LIVE)
    return row


def test_a_host_that_speaks_and_stays_without_a_lease_is_told_with_what_cannot_run(host, mailoutbox):
    waits_for_a_lease(host)
    assert runs.watch() == []  # one that was started anew has to wait for minutes
    by(seconds=301)
    well()
    assert runs.watch() == [f"lease of host {host.pk}"]
    assert mailoutbox[-1].subject == "Host alpha is heard, without a lease: its 1 live terminal cannot run."


@pytest.mark.parametrize("holds", ["a lease", "no live terminal", "a live one that is to be stopped"])
def test_without_a_lease_nobody_is_troubled_where_it_is_not_missed(host, holds):
    row = waits_for_a_lease(host)
    if holds == "a lease":
        change(host, load={"lease_left": 90.0})
    elif holds == "no live terminal":
        Instance.objects.filter(pk=row.pk).update(kind=Kind.PRESS_PASS)
    else:
        Instance.objects.filter(pk=row.pk).update(goal=Goal.STOPPED)
    assert trouble.every() == []


def test_terminals_that_run_though_they_are_stopped_are_told_after_a_minute(host, mailoutbox):
    change(host, load={"unwanted": {"12": clock.now().timestamp(), "9": clock.now().timestamp()}})
    by(seconds=59)
    well()
    assert runs.watch() == []
    by(seconds=2)
    assert runs.watch() == [f"unwanted on host {host.pk}"]
    assert mailoutbox[-1].subject == "Host alpha runs 2 terminals that should be stopped: 9, 12."
    assert f"/admin/farm/instance/?host__id__exact={host.pk}" in mailoutbox[-1].body


def test_a_host_that_is_to_wait_for_its_lease_is_told_with_why(host):
    waits_for_a_lease(host)
    change(host, lease_boot="before", boot_id="now", fenced_until=clock.now() + timedelta(hours=2))
    (said,) = trouble.every()
    assert (
        said.more
        == "None is granted now: it was started anew, and has to wait until the lease of before is surely over."
    )


def test_what_fails_again_and_again_for_want_of_its_hosts_disk_is_told(host, settings):
    """It never stands before staff by itself, because it is tried again until that is mended."""
    row = instance()
    for _ in range(settings.RETRY_ATTEMPTS):
        assert trouble.every() == []
        moving.fail(row, Reason.DISK_FULL, "no space left", who="test")
        moving.move(row, Status.REQUESTED, why="trying again", who="sweep")
    assert runs.watch() == ["terminals keep failing"]
    moving.fail(row, Reason.DISK_FULL, "no space left", who="test")
    assert [one.cause for one in trouble.every()] == ["terminals keep failing"]


def test_an_empty_pool_is_told_when_it_stays_so(host, mailoutbox):
    change(host, load={"pool": {"size": 4, "ready": 1}})
    assert runs.watch() == []
    by(minutes=9)
    well()
    assert runs.watch() == []
    by(minutes=2)
    well()
    assert runs.watch() == [f"pool of host {host.pk}"]
    assert "1 of 4 clones in reserve" in mailoutbox[-1].subject


def test_a_pool_that_was_refilled_meanwhile_is_not_told(host):
    change(host, load={"pool": {"size": 4, "ready": 1}})
    runs.watch()
    by(minutes=5)
    well()
    change(host, load={"pool": {"size": 4, "ready": 4}})
    runs.watch()
    change(host, load={"pool": {"size": 4, "ready": 0}})
    by(minutes=6)
    well()
    assert runs.watch() == []


@pytest.mark.parametrize(
    "load", [{}, [], {"pool": None}, {"pool": {"size": "4"}}, {"pool": {"size": 0, "ready": 0}},
             {"pool": {"size": 4, "ready": 2}}]
)  # fmt: skip
def test_what_a_host_says_of_its_pool_breaks_nothing(host, load):
    change(host, load=load)
    assert trouble.every() == []


# --- the portal's own -------------------------------------------------------------------------------------------------


def test_the_brake_is_told_with_its_reason(host, mailoutbox):
    Watch.objects.update(brake_why="3 of 4 hosts went silent at about the same time", brake_since=clock.now())
    assert runs.watch() == ["brake on"]
    assert "3 of 4 hosts went silent" in mailoutbox[-1].subject
    assert "lets go by itself" in mailoutbox[-1].body
    Watch.objects.update(brake_by_hand=True)
    assert "only a person lets it go" in next(one.more for one in trouble.every())
    Watch.objects.update(brake_why="")
    assert runs.watch() == []


def test_leases_that_nobody_keeps_are_told_while_terminals_still_run(host, mailoutbox):
    by(seconds=39)
    heard_but_no_leases()
    assert runs.watch() == []
    by(seconds=2)
    heard_but_no_leases()
    assert runs.watch() == ["keep_leases not run"]
    assert "manage.py keep_leases" in mailoutbox[-1].body


def heard_but_no_leases():
    Host.objects.update(surveyed_at=clock.now())
    Watch.objects.update(looked_at=clock.now())


def test_a_farm_of_static_hosts_needs_no_leases(host):
    change(host, policy="static", said_policy="static")
    by(minutes=5)
    heard_but_no_leases()
    assert trouble.every() == []


def test_hosts_that_nobody_looks_after_are_told(host, settings):
    by(seconds=61)
    Host.objects.update(surveyed_at=clock.now())
    Watch.objects.update(leases_seen_at=clock.now())
    assert runs.watch() == ["watch_hosts not run"]


def test_a_watch_that_never_began_is_told(host):
    Watch.objects.all().delete()
    assert [one.cause for one in trouble.every()] == ["watch_hosts not run", "keep_leases not run"]


# --- messages, instances ----------------------------------------------------------------------------------------------


def test_a_forged_message_is_told_per_host(host, mailoutbox):
    HostEvent.objects.create(host=host, what="forged", why="a report on instance 7, which is not on it", who="portal")
    HostEvent.objects.create(host=None, what="forged", why="signed by nobody", who="portal")
    HostEvent.objects.create(host=host, what="silent", who="watch")
    assert set(runs.watch()) == {f"forged message {host.pk}", "forged message"}
    assert "which is not on it" in mailoutbox[-1].body
    by(minutes=61)
    well()
    assert trouble.every() == []


def test_more_forged_ones_are_told_again_but_not_more_often_than_hourly(host, mailoutbox):
    for _ in range(7):
        HostEvent.objects.create(host=host, what="forged", who="portal")
        runs.watch()
        by(minutes=10)
        well()
    assert len(mailoutbox) == 2


def test_failed_ones_are_one_cause_that_is_told_again_when_more_join(host, mailoutbox):
    rows = [instance(), instance()]
    fail(rows[0])
    assert runs.watch() == ["terminals failed"]
    assert mailoutbox[-1].subject == "1 terminal failed, and is not tried again by itself; 0 of them live."
    by(minutes=61)
    well()
    assert runs.watch() == []  # no more of them
    fail(rows[1])
    assert runs.watch() == ["terminals failed"]
    assert mailoutbox[-1].subject.startswith("2 terminals failed, and are not tried again by themselves")


def fail(row):
    Instance.objects.filter(pk=row.pk).update(status=Status.FAILED, next_at=None, status_since=clock.now())


def test_one_that_is_tried_again_by_itself_needs_nobody(host):
    Instance.objects.filter(pk=instance().pk).update(status=Status.FAILED, next_at=clock.now())
    assert trouble.every() == []


def test_orphans_are_told_until_they_are_gone(host):
    row = Orphan.objects.create(host=host, folder="user_9")
    assert runs.watch() == ["orphans"]
    Orphan.objects.filter(pk=row.pk).update(gone_at=clock.now())
    assert runs.watch() == []


# --- the line ---------------------------------------------------------------------------------------------------------


def test_a_line_that_does_not_grow_is_not_told(host):
    line_of(3, hours_ago=2)
    assert trouble.every() == []


def test_a_line_that_grew_and_whose_first_waits_for_long_is_told(host, mailoutbox):
    line_of(2, hours_ago=2)
    line_of(1, hours_ago=0.2)
    assert runs.watch() == ["waiting list grows"]
    assert mailoutbox[-1].subject == "3 stand in line for a slot; an hour ago 2 did."
    assert "Nobody came to run meanwhile." in mailoutbox[-1].body


def test_a_line_that_has_just_begun_is_not_told(host):
    line_of(5, hours_ago=0.2)
    assert trouble.every() == []


def test_a_line_that_is_served_as_fast_as_it_grows_is_not_told(host):
    line_of(2, hours_ago=2)
    line_of(1, hours_ago=0.2)
    served = line_of(1, hours_ago=2)[0]
    Instance.objects.filter(pk=served.pk).update(
        status=Status.RUNNING, host=host, first_running_at=clock.now() - timedelta(minutes=20)
    )
    assert trouble.every() == []


# --- the front page ---------------------------------------------------------------------------------------------------


@pytest.fixture
def staff(db):
    user = User.objects.create_user("staff@example.org", "a-long-password", is_staff=True, is_superuser=True)
    browser = Client()
    browser.force_login(user)
    return browser


def all_troubles(host):
    """Every cause that there is, at once."""
    silent, lost = HostFactory.create(), HostFactory.create(lost_at=clock.now())
    change(silent, surveyed_at=clock.now() - timedelta(hours=1))
    change(lost, surveyed_at=clock.now() - timedelta(hours=1))
    HostFactory.create(policy="fenced", said_policy="static")
    HostFactory.create(watchdog_ok=False)
    change(host, load={"pool": {"size": 4, "ready": 1}})
    HostEvent.objects.create(host=host, what="forged", who="portal")
    HostEvent.objects.create(host=None, what="forged", who="portal")
    Watch.objects.update(brake_why="by hand", looked_at=None, leases_seen_at=None)
    fail(instance())
    Orphan.objects.create(host=host, folder="user_9")
    line_of(1, hours_ago=2)
    line_of(2, hours_ago=0.2)


def test_every_cause_stands_on_the_front_page_with_a_link_that_leads_somewhere(host, staff):
    all_troubles(host)
    found = trouble.every()
    assert len({one.cause.rstrip("0123456789") for one in found}) == len(found) == 13
    Alert.objects.bulk_create(
        Alert(cause=one.cause, text=one.title, since=clock.now() - timedelta(hours=1)) for one in found
    )
    text = " ".join(staff.get("/admin/").content.decode().split())
    for one in found:
        assert one.title in text
        assert staff.get(runs.listed(one)).status_code == 200, one.cause
        assert one.title.endswith(".")
        assert one.more.endswith(".")
        assert len(one.cause) <= 60


def test_of_very_many_causes_the_front_page_shows_the_first_and_how_many_more(host, staff):
    for _ in range(glance.MOST_NEEDS + 4):
        HostFactory.create(lost_at=clock.now())
    text = staff.get("/admin/").content.decode()
    assert "4 more." in text
    assert text.count("was given up at") == glance.MOST_NEEDS


def test_a_mail_server_that_is_down_swallows_none_of_them(host, monkeypatch):
    all_troubles(host)
    monkeypatch.setattr(EmailMessage, "send", lambda self: 1 / 0)
    assert runs.watch() == []
    monkeypatch.undo()
    assert len(runs.watch()) == 10  # all but the three that must last for a while


def test_more_hosts_and_terminals_are_no_more_queries(host, django_assert_max_num_queries):
    def queries():
        with django_assert_max_num_queries(20) as counted:
            trouble.every()
        return len(counted)

    change(host, surveyed_at=clock.now() - timedelta(hours=1))
    before = queries()
    for _ in range(5):
        silent = HostFactory.create()
        instance()
        change(silent, surveyed_at=clock.now() - timedelta(hours=1))
    assert queries() == before
