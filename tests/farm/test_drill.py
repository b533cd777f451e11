"""A failover is rehearsed on canaries: refused where it would show nothing or disturb, measured, and cleaned up."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from farm import clock, errors, lifecycle
from farm.drill_admin import trend
from farm.lifecycle import drilling
from farm.models import Drill, Host, Instance, Transition, Watch
from farm.states import Goal, Status
from presspass import lifecycle as customers
from presspass.models import Notice, User
from tests.factories import AnsweringHost, HostFactory, fill_vault, instance
from tests.farm import invariants

pytestmark = pytest.mark.django_db

LEASE, STOP, DRIFT, SUSPECT, WATCH = 120, 30, 15, 30, 5


@pytest.fixture(autouse=True)
def _rules(settings):
    settings.LEASE_SECONDS, settings.DRIFT_SECONDS = LEASE, DRIFT
    settings.SURVEY_FRESH_SECONDS, settings.WATCH_SECONDS = SUSPECT, WATCH
    with clock.moved(timedelta()):
        yield


def leased(**fields):
    until = clock.now() + timedelta(seconds=LEASE)
    fields = {"policy": "fenced", "said_policy": "fenced", "fenced_until": until, "stop_seconds": STOP, **fields}
    return AnsweringHost(HostFactory.create(**fields))


@pytest.fixture
def watched(db):
    return Watch.objects.create(pk=1, looked_at=clock.now())


@pytest.fixture
def alpha(watched):
    """The one with the most room."""
    return leased(name="alpha", slots=30)


@pytest.fixture
def beta(alpha):
    return leased(name="beta")


class Farm:
    """What goes on while a drill waits: time passes, hosts speak, are granted leases, and do what they are told."""

    def __init__(self, *hosts, takes=1.0):
        self.hosts = {one.host.pk: one for one in hosts}
        self.takes = takes
        self.does = []

    def pause(self, seconds):
        clock.move(timedelta(seconds=seconds))
        Watch.objects.update(looked_at=clock.now())
        Host.objects.update(surveyed_at=clock.now(), fenced_until=clock.now() + timedelta(seconds=LEASE))
        for what in self.does:
            what()
        rows = Instance.objects.filter(host__in=self.hosts).exclude(status__in=[Status.LOST, Status.DESTROYED])
        for row in rows:
            if clock.now() - row.status_since >= timedelta(seconds=self.takes) or row.goal == Goal.DESTROYED:
                self.hosts[row.host_id].obey(row)


@pytest.fixture
def farm(alpha, beta):
    return Farm(alpha, beta)


def canaries():
    return Instance.objects.filter(customer__email=lifecycle.CANARY_EMAIL)


def rehearse(farm, **options):
    return lifecycle.rehearse("alpha", **{"instances": 2, "pause": farm.pause, **options})


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"lost_at": clock.now()}, "is lost"),
        ({"state": "draining"}, "is draining"),
        ({"state": "retired"}, "is retired"),
        ({"surveyed_at": clock.now() - timedelta(hours=1)}, "is silent"),
        ({"master_ok": False}, "is silent, or its master is not fit"),
        ({"policy": "static"}, "is not fenced"),
        ({"said_policy": "static"}, "is not fenced"),
        ({"fenced_until": None}, "holds no lease"),
        ({"fenced_until": clock.now() - timedelta(hours=1)}, "holds no lease"),
        ({"slots": 1}, "has no 2 free slots"),
    ],
)
def test_a_host_on_which_it_would_show_nothing_is_refused(alpha, farm, fields, why):
    Host.objects.filter(pk=alpha.host.pk).update(**fields)
    with pytest.raises(errors.Refused, match=why):
        rehearse(farm)
    assert not Drill.objects.exists()
    assert not canaries().exists()


def test_nothing_is_rehearsed_while_the_brake_is_on(farm):
    Watch.objects.update(brake_why="3 of 4 hosts went silent")
    with pytest.raises(errors.Refused, match="The brake is on: 3 of 4 hosts went silent"):
        rehearse(farm)


@pytest.mark.parametrize("looked_at", [None, clock.now() - timedelta(minutes=2)])
def test_nothing_is_rehearsed_while_nobody_looks_after_the_hosts(farm, looked_at):
    Watch.objects.update(looked_at=looked_at)
    with pytest.raises(errors.Refused, match="Nobody looks after the hosts"):
        rehearse(farm)


def test_nothing_is_rehearsed_where_there_is_nowhere_to_come_up(alpha, beta, farm):
    Host.objects.filter(pk=beta.host.pk).update(slots=1)
    with pytest.raises(errors.Refused, match="No other hosts have 2 free slots"):
        rehearse(farm)


def test_an_unknown_host_and_a_silly_number_are_refused(farm):
    with pytest.raises(errors.Refused, match="There is no host gamma"):
        lifecycle.rehearse("gamma", instances=2, pause=farm.pause)
    for number in (0, 6):
        with pytest.raises(errors.Refused, match="1 to 5 canaries"):
            rehearse(farm, instances=number)


def test_two_drills_at_once_are_refused_and_one_that_was_killed_is_not_waited_for_for_ever(alpha, farm):
    Drill.objects.create(host=alpha.host, trouble=drilling.UNDER_WAY)
    with pytest.raises(errors.Refused, match="Another drill is under way"):
        rehearse(farm)
    farm.pause(3600)
    assert rehearse(farm).trouble == ""


def test_without_the_word_rehearse_the_command_does_nothing(alpha):
    with pytest.raises(CommandError, match="Say --rehearse"):
        call_command("drill_failover", "alpha")


# --- the drill --------------------------------------------------------------------------------------------------------


def test_it_waits_out_silence_and_fence_and_measures_until_the_last_canary_runs_elsewhere(alpha, beta, farm):
    heard = []
    farm.does.append(lambda: heard.append(clock.now()))
    drill = rehearse(farm)
    assert drill.trouble == ""
    assert SUSPECT <= drill.detect_seconds < SUSPECT + WATCH + 1
    whole = drill.detect_seconds + drill.fence_seconds
    assert LEASE + STOP + DRIFT - 1 <= whole <= LEASE + STOP + DRIFT + WATCH + 1
    assert 0 < drill.restore_seconds < 30
    came = canaries().filter(replaces__isnull=False)
    assert {row.host_id for row in came} == {beta.host.pk}
    assert {row.replaces.host_id for row in came} == {alpha.host.pk}
    assert len(came) == 2


def test_a_slower_host_takes_longer_to_restore(farm):
    quick = rehearse(farm).restore_seconds
    farm.takes = 10.0
    farm.pause(20)
    slow = rehearse(farm).restore_seconds
    assert slow > quick + 5


def test_it_is_never_shorter_than_the_lease_in_force(alpha, farm):
    Host.objects.filter(pk=alpha.host.pk).update(stop_seconds=100)
    drill = rehearse(farm)
    assert drill.detect_seconds + drill.fence_seconds >= LEASE + 100 + DRIFT - 1


def test_afterwards_nothing_of_it_is_left_once_the_hosts_were_swept(farm):
    rehearse(farm)
    assert not canaries().exclude(goal=Goal.DESTROYED).exists()
    lifecycle.sweep()
    farm.pause(1)
    assert not canaries().exclude(status=Status.DESTROYED).exists()
    assert not Host.objects.exclude(taken=0).exists()
    invariants.check()


def test_other_terminals_on_the_host_are_left_alone(alpha, farm):
    fill_vault(1)
    row = alpha.obey(instance())
    lines = Transition.objects.filter(instance=row).count()
    rehearse(farm)
    row.refresh_from_db()
    assert (row.status, row.host_id) == (Status.RUNNING, alpha.host.pk)
    assert Transition.objects.filter(instance=row).count() == lines
    assert Host.objects.get(pk=alpha.host.pk).lost_at is None


def test_it_takes_no_demo_account_and_writes_no_mail(farm, mailoutbox):
    fill_vault(3)
    rehearse(farm)
    assert not canaries().filter(account__isnull=False).exists()
    customers.notice_news()
    clock.move(timedelta(minutes=2))
    customers.send_due()
    assert not Notice.objects.exists()
    assert mailoutbox == []


def test_nobody_can_sign_in_as_the_canary(farm):
    rehearse(farm)
    owner = User.objects.get(email=lifecycle.CANARY_EMAIL)
    assert not owner.is_active
    assert not owner.check_password("!")
    Client().post("/sign-in/", {"email": lifecycle.CANARY_EMAIL})
    assert not Notice.objects.exists()


# --- what goes wrong midway -------------------------------------------------------------------------------------------


def test_canaries_that_do_not_run_are_its_trouble_and_are_cleaned_up(alpha, farm):
    farm.takes = 1e9
    drill = rehearse(farm)
    assert drill.trouble.startswith("Not all canaries ran within 180 s: one is")
    assert drill.restore_seconds is None
    assert not canaries().exclude(goal=Goal.DESTROYED).exists()


@pytest.mark.parametrize(
    ("happens", "trouble"),
    [
        (lambda: Watch.objects.update_or_create(pk=1, defaults={"brake_why": "x"}), "The brake went on meanwhile."),
        (lambda: Host.objects.filter(name="alpha").update(state="draining"), "alpha was given up or taken out of use"),
    ],
)
def test_it_gives_way_to_what_is_in_earnest(farm, happens, trouble):
    farm.does.append(lambda: canaries().filter(status=Status.RUNNING).count() == 2 and happens())
    drill = rehearse(farm)
    assert drill.trouble.startswith(trouble)
    assert not Transition.objects.filter(became=Status.LOST).exists()
    assert not canaries().exclude(goal=Goal.DESTROYED).exists()


def test_one_that_is_broken_off_says_so_and_cleans_up(farm):
    def stop():
        raise KeyboardInterrupt

    farm.does.append(lambda: canaries().filter(status=Status.RUNNING).exists() and stop())
    with pytest.raises(KeyboardInterrupt):
        rehearse(farm)
    assert Drill.objects.get().trouble == "broken off"
    assert not canaries().exclude(goal=Goal.DESTROYED).exists()


def test_no_customers_terminal_is_ever_taken_for_a_canary(alpha):
    row = alpha.obey(instance())
    assert not drilling._is_canary(row)
    with pytest.raises(errors.Refused):
        drilling._failed_over(row)
    row.refresh_from_db()
    assert row.status == Status.RUNNING


# --- what is shown of it ----------------------------------------------------------------------------------------------


def test_the_command_prints_one_line_that_tells_waited_from_measured(farm, monkeypatch):
    monkeypatch.setattr("time.sleep", farm.pause)
    out = StringIO()
    call_command("drill_failover", "alpha", "--rehearse", "--instances", "1", stdout=out)
    said = json.loads(out.getvalue())
    assert (said["host"], said["instances"], said["trouble"]) == ("alpha", 1, "")
    assert set(said["waited_out"]) == {"detect", "fence"}
    assert set(said["measured"]) == {"restore"}


def test_the_command_fails_where_the_drill_did(farm, monkeypatch):
    monkeypatch.setattr("time.sleep", farm.pause)
    farm.takes = 1e9
    out = StringIO()
    with pytest.raises(CommandError, match="Not all canaries ran"):
        call_command("drill_failover", "alpha", "--rehearse", stdout=out)
    assert json.loads(out.getvalue())["measured"]["restore"] is None


def test_drills_are_listed_in_the_admin_and_drawn_as_a_trend(alpha, db):
    for seconds in (2.0, 4.0):
        Drill.objects.create(
            host=alpha.host, instances=2, detect_seconds=30, fence_seconds=135.5, restore_seconds=seconds
        )
    Drill.objects.create(host=alpha.host, instances=2, trouble="broken off")
    browser = Client()
    browser.force_login(User.objects.create_user("s@example.org", "a-long-password", is_staff=True, is_superuser=True))
    page = browser.get("/admin/farm/drill/").content.decode()
    assert "135.5 s" in page
    assert "broken off" in page
    picture = trend(alpha.host)
    assert picture.count("<rect") == 6
    assert "restore: 4.0 s" in picture
    assert "<td>4.0 s</td>" in picture
    assert trend(HostFactory.create()) == ""
