"""Ways round the fence: what a host still has on its disk, what was said before, and what a backup lacks."""

from __future__ import annotations

from datetime import timedelta

import pytest

from farm import clock, errors, fencing, leases, lifecycle, vault
from farm.agent import protocol
from farm.agent.protocol import Process
from farm.models import Host, Orphan
from tests.factories import HOST_SIGNING_KEY, AnsweringHost, HostFactory, instance
from tests.farm.test_failover import DRIFT, LEASE, SUSPECT, leased, look, lose, request_of
from tests.farm.test_living import fresh, go_live

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _rules(settings):
    settings.LEASE_SECONDS, settings.DRIFT_SECONDS, settings.SURVEY_FRESH_SECONDS = LEASE, DRIFT, SUSPECT
    with clock.moved(timedelta()):
        yield


@pytest.fixture
def dark():
    return AnsweringHost(leased(HostFactory.create(slots=30)))


@pytest.fixture
def others(dark):
    return [AnsweringHost(leased(HostFactory.create())) for _ in range(3)]


def live_line(host, row, number, **changes):
    """A live terminal that the portal knows nothing of, on the account of ``row``, waiting for a lease."""
    facts = {"instance": number, "folder": f"user_1-{number}", "kind": "live", "process": Process.STOPPED}
    mine = {"server": row.account.server, "login": row.account.login}
    return host.line(row, **(facts | mine | changes))


def heard(host, *lines):
    host.survey(*lines, policy="fenced")


# --- a lost host that returns with more than the portal knows of ------------------------------------------------------


def test_a_lost_host_is_not_taken_back_while_it_has_a_live_terminal_that_no_row_accounts_for(dark, others):
    """Taken back it would be granted a lease, and start that again: on an account that runs elsewhere by now."""
    live = go_live(dark, dark.obey(instance()))
    lose(dark)
    forgotten = live_line(dark, live, 999)
    heard(dark, dark.line(fresh(live), process=Process.STOPPED), forgotten)
    lifecycle.sweep()
    dark.obey(fresh(live))
    heard(dark, forgotten)
    look()
    dark.host.refresh_from_db()
    assert dark.host.lost_at is not None
    assert leases.grant([request_of(dark)]).letters == []
    lifecycle.destroy_orphan(Orphan.objects.get().pk, who="staff:1")
    heard(dark)
    look()
    dark.host.refresh_from_db()
    assert dark.host.lost_at is None


def test_a_live_terminal_that_no_row_accounts_for_on_a_lost_host_keeps_its_account_from_nobody(dark, others):
    live = go_live(dark, dark.obey(instance()))
    other = others[0]
    heard(other, live_line(other, live, 999, process=Process.RUNNING))
    assert vault.is_haunted(fresh(live))
    lose(other)
    assert Host.objects.get(pk=other.host.pk).lost_at is not None
    assert not vault.is_haunted(fresh(live))


def test_a_demo_on_a_lost_host_stops_for_no_lease_and_keeps_its_account(dark, others):
    live = go_live(dark, dark.obey(instance()))
    other = others[0]
    heard(other, live_line(other, live, 999, process=Process.RUNNING, kind="press pass"))
    lose(other)
    assert Host.objects.get(pk=other.host.pk).lost_at is not None
    assert vault.is_haunted(fresh(live))


def test_what_stood_on_a_host_that_is_retired_stands_nowhere(dark, others):
    live = go_live(dark, dark.obey(instance()))
    other = others[0]
    heard(other, live_line(other, live, 999, process=Process.RUNNING, kind="press pass"))
    lose(other)
    assert Host.objects.get(pk=other.host.pk).lost_at is not None
    lifecycle.retire(other.host.pk, who="staff:1")
    assert not vault.is_haunted(fresh(live))
    assert not Orphan.objects.filter(gone_at__isnull=True).exists()


# --- played again -----------------------------------------------------------------------------------------------------


def said(host, sent, *lines, **changes):
    """An envelope that the host signed at ``sent``, as whoever reads the broker may have kept it."""
    facts = {"host": host.host.name, "sent_at": sent.timestamp(), "nonce": "n", "boot_id": "boot", "agent": "1"}
    facts |= {"master_ok": True, "instances": list(lines), "policy": "fenced", "since_boot": sent.timestamp()}
    return protocol.sign(protocol.Survey(**(facts | changes)), HOST_SIGNING_KEY)


@pytest.mark.parametrize("boot", ["boot", "one before"])
@pytest.mark.parametrize("ahead", [0, 3600])
def test_old_surveys_played_again_make_no_dead_host_speak(dark, others, ahead, boot):
    now = clock.now() + timedelta(seconds=ahead)
    kept = [said(dark, now - timedelta(seconds=before), boot_id=boot) for before in (9000, 5400)]
    lifecycle.record_survey(said(dark, now))
    died = Host.objects.get(pk=dark.host.pk).surveyed_at
    for _ in range(3):
        clock.move(timedelta(seconds=20))
        for envelope in kept:
            lifecycle.record_survey(envelope)
    assert Host.objects.get(pk=dark.host.pk).surveyed_at == died


def test_a_host_is_heard_that_booted_anew_and_one_whose_clock_was_right_only_then(dark):
    lifecycle.record_survey(said(dark, clock.now() + timedelta(hours=1)))
    lifecycle.record_survey(said(dark, clock.now(), boot_id="next", since_boot=1.0))
    lifecycle.record_survey(said(dark, clock.now() + timedelta(seconds=9), boot_id="third", since_boot=1.0))
    assert Host.objects.get(pk=dark.host.pk).boot_id == "third"


def test_an_old_survey_played_again_hides_nothing_that_no_row_accounts_for(dark, others):
    live = go_live(dark, dark.obey(instance()))
    other = others[0]
    kept = said(other, clock.now() - timedelta(hours=1))
    lifecycle.record_survey(said(other, clock.now(), live_line(other, live, 999, process=Process.RUNNING)))
    lifecycle.record_survey(kept)
    assert vault.is_haunted(fresh(live))


# --- a backup ---------------------------------------------------------------------------------------------------------


def test_a_hold_that_the_backup_knows_of_is_reckoned_with_though_nobody_says_so(dark):
    """The leases that were granted under it may all be from after the backup."""
    until = leases.hold([dark.host], span=timedelta(hours=2), who="staff:1")
    lifecycle.after_restore(leases_were_held=False, who="staff:1")
    assert Host.objects.get(pk=dark.host.pk).fenced_until >= until


# --- from static to fenced --------------------------------------------------------------------------------------------


def test_a_host_that_was_static_is_not_given_up_for_a_lease_of_before_that(dark, others):
    """What it started as static may run on until it was granted one: only then its watchdog was there to look."""
    go_live(dark, dark.obey(instance()))
    clock.move(timedelta(days=1))
    dark.survey(policy="static")
    clock.move(timedelta(days=1))
    dark.survey(policy="fenced")
    clock.move(timedelta(seconds=SUSPECT + 1))
    look(dark)
    dark.host.refresh_from_db()
    assert (dark.host.lost_at, fencing.is_lost(leases.facts(dark.host), clock.now(), leases.rules())) == (None, False)


# --- one that no row accounts for, and what staff do ------------------------------------------------------------------


def test_a_host_is_not_retired_while_something_may_run_there_that_no_row_accounts_for(dark, others):
    """Its lease runs on, and forgotten here the account would be free to start elsewhere."""
    live = go_live(dark, dark.obey(instance()))
    other = others[0]
    heard(other, live_line(other, live, 999, process=Process.RUNNING))
    with pytest.raises(errors.Refused, match="see to its orphans first"):
        lifecycle.retire(other.host.pk, who="staff:1")
    assert vault.is_haunted(fresh(live))
    heard(other)
    lifecycle.retire(other.host.pk, who="staff:1")
    assert not vault.is_haunted(fresh(live))


def test_after_a_restore_the_brake_is_not_released_while_an_account_may_run_twice(dark, others):
    """The host that the restored row names would start its old clone with the first lease, without an order."""
    live = go_live(dark, dark.obey(instance()))
    clock.move(timedelta(hours=1))
    lifecycle.after_restore(leases_were_held=False, who="staff:1")
    clock.move(timedelta(seconds=400))
    heard(others[0], live_line(others[0], live, 999, process=Process.RUNNING))
    heard(dark, dark.line(fresh(live), process=Process.STOPPED))
    with pytest.raises(errors.Refused, match="user_1-999"):
        lifecycle.release_brake(who="staff:1")
    assert leases.grant([request_of(dark)]).letters == []
    assert "database was restored" in leases.why_no_lease(Host.objects.get(pk=dark.host.pk))
    heard(others[0])
    lifecycle.release_brake(who="staff:1")
    assert len(leases.grant([request_of(dark)]).letters) == 1


def test_a_keeper_whose_clock_is_ahead_grants_another_boot_nothing_before_the_fence_of_the_first(dark, monkeypatch):
    leases.grant([request_of(dark)])
    now = clock.now()
    monkeypatch.setattr(leases, "clocks", lambda: (now + timedelta(minutes=10), now))
    assert leases.grant([request_of(dark, boot_id="another")]).letters == []
    assert len(leases.grant([request_of(dark)]).letters) == 1
