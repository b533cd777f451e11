"""What pages tell of a silent host is what the watch over the hosts will do: by the same rules, to the second."""

from __future__ import annotations

from datetime import timedelta

import pytest

from farm import clock, fencing, leases, silence
from farm.models import Host, Instance, Transition, Watch
from farm.states import Status
from tests.factories import AnsweringHost, HostFactory, fill_vault, instance

pytestmark = pytest.mark.django_db

LEASE, STOP, DRIFT, SUSPECT, MOVE = 120, 30, 15, 30, 60


@pytest.fixture(autouse=True)
def _rules(settings):
    settings.LEASE_SECONDS, settings.DRIFT_SECONDS = LEASE, DRIFT
    settings.SURVEY_FRESH_SECONDS, settings.MOVE_SECONDS = SUSPECT, MOVE
    with clock.moved(timedelta()):
        yield


@pytest.fixture
def host(db):
    until = clock.now() + timedelta(seconds=LEASE)
    made = HostFactory.create(policy="fenced", said_policy="fenced", fenced_until=until, stop_seconds=STOP)
    return AnsweringHost(made)


def seen(row):
    return Instance.objects.select_related("host").get(pk=row.pk)


def dark(seconds=40):
    clock.move(timedelta(seconds=seconds))


def heard(row):
    return seen(row).host.surveyed_at


def test_of_a_host_that_speaks_there_is_nothing_to_foresee(host):
    row = host.obey(instance())
    dark(29)
    assert silence.outlook(seen(row)) is None


def test_of_one_in_line_there_is_nothing_to_foresee(db):
    assert silence.outlook(seen(instance())) is None


def test_one_with_a_seat_comes_up_elsewhere_when_its_host_may_be_given_up_and_not_a_second_before(host):
    fill_vault(1)
    row = host.obey(instance())
    dark()
    at = silence.outlook(seen(row)).elsewhere_at
    facts = leases.facts(seen(row).host)
    assert at == facts.fenced_until + timedelta(seconds=STOP + DRIFT)
    assert not fencing.is_lost(facts, at - timedelta(seconds=1), leases.rules())
    assert fencing.is_lost(facts, at, leases.rules())


@pytest.mark.parametrize("fields", [{"policy": "static"}, {"said_policy": "static"}, {"fenced_until": None}])
def test_what_nothing_fences_waits_for_a_person(host, fields):
    fill_vault(1)
    row = host.obey(instance())
    Host.objects.update(**fields)
    dark(4000)
    assert silence.outlook(seen(row)).elsewhere_at is None
    assert not fencing.is_lost(leases.facts(seen(row).host), clock.now(), leases.rules())


def test_one_without_a_seat_goes_after_a_minute_and_one_that_never_ran_as_soon_as_its_host_is_suspect(host):
    ran, never = host.obey(instance()), instance()
    dark()
    assert silence.outlook(seen(ran)).elsewhere_at == heard(ran) + timedelta(seconds=MOVE)
    assert silence.outlook(seen(never)).elsewhere_at == heard(never) + timedelta(seconds=SUSPECT)


def test_one_that_is_tried_again_may_have_run(host):
    row = instance()
    Transition.objects.create(instance=row, was="cloning", became=Status.STARTING, why="test", who="test")
    dark()
    assert silence.outlook(seen(row)).elsewhere_at == heard(row) + timedelta(seconds=MOVE)


def test_the_brake_is_said_with_its_reason(host):
    row = host.obey(instance())
    dark()
    assert silence.outlook(seen(row)).brake == ""
    Watch.objects.create(pk=1, brake_why="the portal was not watching")
    assert silence.outlook(seen(row)).brake == "the portal was not watching"
