"""Leases, by the portal: who is granted none, what a grant promises, and that no fence ends before its leases do."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from nacl.signing import SigningKey, VerifyKey

from farm import clock, errors, fencing, leases, orders
from farm.agent import protocol
from farm.agent.lease import Lease, Moment
from farm.models import Host, HostEvent, Watch
from tests.factories import HOST_SIGNING_KEY, HostFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def a_host(**changes):
    return HostFactory.create(**({"said_policy": "fenced", "survey_sent_at": clock.now()} | changes))


def ask(host, key=HOST_SIGNING_KEY, **changes):
    facts = {"nonce": "n", "boot_id": "b", "sent_at": clock.now().timestamp(), "stop_seconds": 20.0, "host": host.name}
    return protocol.sign(protocol.LeaseRequest(**(facts | changes)), key)


def granted(*envelopes):
    """The grants that come of it, opened with the portal's public key."""
    key = VerifyKey(bytes(orders.signing_key().verify_key))
    letters = leases.grant(envelopes).letters
    return [protocol.LeaseGrant.parse(protocol.opened(letter.envelope, [key])) for letter in letters]


def fence(host):
    host.refresh_from_db()
    return fencing.fence_ends(host.fenced_until, stop_seconds=host.stop_seconds, drift=0.0)


# --- who gets none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"policy": "static"},
        {"state": "retired"},
        {"lost_at": clock.now()},
        {"lost_at": clock.now(), "state": "draining"},
    ],
)
def test_a_host_that_may_have_none_is_granted_none(change):
    host = a_host(**change)
    assert granted(ask(host)) == []
    host.refresh_from_db()
    assert (host.fenced_until, host.asked_at) == (None, None)


@pytest.mark.parametrize("change", [{"policy": "static"}, {"state": "retired"}, {"lost_at": clock.now()}])
def test_nor_is_one_that_became_so_after_its_request_was_looked_at(change, monkeypatch):
    host = a_host()
    opened_all = orders.opened_all

    def and_then(envelopes):
        yield from opened_all(envelopes)
        Host.objects.update(**change)

    monkeypatch.setattr(orders, "opened_all", and_then)
    assert granted(ask(host)) == []
    host.refresh_from_db()
    assert host.fenced_until is None


def test_a_forged_request_is_granted_nothing_and_stands_in_the_hosts_journal_once(caplog):
    host, other = a_host(), a_host()
    forged = [ask(host, SigningKey.generate(), nonce=str(number)) for number in range(30)]
    assert [grant.host for grant in granted(*forged, ask(other))] == [other.name]
    assert caplog.messages == ["forged message"], "a flood of them costs no more than one"
    granted(*forged)
    assert HostEvent.objects.filter(host=host, what="forged").count() == 1
    with clock.moved(orders.NOTED_EVERY + SECOND):
        granted(*forged)
    assert HostEvent.objects.filter(host=host, what="forged").count() == 2


@pytest.mark.parametrize("envelope", [None, 7, "x", [], {}, {"body": "{", "signature": "x"}, {"body": '{"host":"x"}'}])
def test_what_is_no_request_at_all_is_noted_and_stops_no_other(envelope):
    host = a_host()
    assert [grant.host for grant in granted(envelope, ask(host))] == [host.name]
    assert HostEvent.objects.filter(host=None, what="forged").count() == 1


def malformed(host, **said):
    """Signed by the host's own key, and such as no agent of ours makes."""
    request = protocol.LeaseRequest.parse(ask(host)["body"])
    for name, value in said.items():
        object.__setattr__(request, name, value)
    return protocol.sign(request, HOST_SIGNING_KEY)


@pytest.mark.parametrize(
    "said",
    [
        {"stop_seconds": 10**400},
        {"sent_at": 10**400},
        {"boot_id": 5},
        {"boot_id": ["x"]},
        {"boot_id": "\0"},
        {"nonce": "n" * 100},
    ],
    ids=lambda said: f"{said}"[:40],
)
def test_a_host_that_signs_nonsense_is_noted_as_forged_and_costs_no_other_its_lease(said):
    good, bad = a_host(), a_host()
    assert [grant.host for grant in granted(ask(good), malformed(bad, **said))] == [good.name]
    assert HostEvent.objects.filter(host=bad, what="forged").count() == 1


def test_a_survey_is_not_taken_for_a_request():
    host = a_host()
    survey = protocol.Survey(host=host.name, sent_at=1.0, nonce="n", boot_id="b", agent="1", master_ok=True)
    assert granted(protocol.sign(survey, HOST_SIGNING_KEY)) == []


@pytest.mark.parametrize("off", [-5 * HOUR, timedelta(), 5 * HOUR])
def test_a_request_that_is_played_again_later_puts_off_no_fence_whatever_the_hosts_clock_says(off):
    host = a_host(survey_sent_at=clock.now() + off)
    request = ask(host, sent_at=(clock.now() + off).timestamp())
    assert len(granted(request)) == 1
    before = fence(host)
    with clock.moved(timedelta(seconds=130)):
        assert granted(request) == []
    assert fence(host) == before


def test_a_host_that_was_never_heard_gets_its_first():
    assert len(granted(ask(a_host(surveyed_at=None, survey_sent_at=None), sent_at=1.0))) == 1


def test_without_the_signing_key_nothing_is_committed(settings):
    settings.ORDER_SIGNING_KEY = ""
    host = a_host()
    with pytest.raises(errors.KeysMissing):
        leases.grant([ask(host)])
    host.refresh_from_db()
    assert host.fenced_until is None


# --- what is granted --------------------------------------------------------------------------------------------------


def test_a_lease_is_in_the_row_before_anybody_can_send_it_and_promises_no_more(settings):
    host = a_host()
    before = clock.now()
    [grant] = granted(ask(host, nonce="mine", boot_id="boot"))
    host.refresh_from_db()
    assert (grant.host, grant.nonce, grant.boot_id) == (host.name, "mine", "boot")
    assert grant.seconds == settings.LEASE_SECONDS
    assert before + timedelta(seconds=grant.seconds) <= host.fenced_until
    assert host.asked_at == host.fenced_until - timedelta(seconds=grant.seconds)
    assert host.stop_seconds == 20.0


@pytest.mark.django_db(transaction=True)
def test_a_lease_whose_commit_fails_is_not_handed_out(monkeypatch):
    host = a_host()

    def no_commit():
        raise DatabaseError("the database went away")

    monkeypatch.setattr(connection, "commit", no_commit)
    with pytest.raises(DatabaseError):
        leases.grant([ask(host)])
    monkeypatch.undo()
    host.refresh_from_db()
    assert host.fenced_until is None


@pytest.mark.django_db(transaction=True)
def test_it_refuses_to_run_within_a_transaction_that_might_still_be_undone():
    with pytest.raises(RuntimeError), transaction.atomic():
        leases.grant([ask(a_host())])


def test_of_several_requests_of_a_host_the_newest_is_answered():
    host, now = a_host(), clock.now().timestamp()
    found = granted(*(ask(host, nonce=nonce, sent_at=now + at) for nonce, at in (("1", 0.0), ("3", 2.0), ("2", 1.0))))
    assert [grant.nonce for grant in found] == ["3"]


def test_a_draining_host_goes_on_having_leases():
    assert len(granted(ask(a_host(state="draining")))) == 1


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (0, 90), (90, 0)])
def test_a_lease_is_reckoned_from_the_later_clock_and_failover_from_the_earlier(ours, theirs, monkeypatch):
    now = clock.now()
    monkeypatch.setattr(leases, "clocks", lambda: (now + ours * SECOND, now + theirs * SECOND))
    host = a_host()
    [grant] = granted(ask(host))
    host.refresh_from_db()
    assert host.fenced_until == now + max(ours, theirs) * SECOND + timedelta(seconds=grant.seconds)
    assert leases.earlier_now() == now + min(ours, theirs) * SECOND


def test_the_databases_clock_moves_with_ours_in_tests():
    with clock.moved(timedelta(days=3)):
        ours, theirs = leases.clocks()
        assert abs(ours - theirs) < 60 * SECOND


def test_as_many_statements_for_thirty_hosts_as_for_one(django_assert_max_num_queries):
    hosts = [a_host() for _ in range(30)]
    for number in (1, 30):
        with django_assert_max_num_queries(7):
            assert len(granted(*(ask(host) for host in hosts[:number]))) == number


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_host_whose_row_is_held_keeps_no_other_from_its_lease_and_is_answered_in_the_next_round():
    held, free = a_host(), a_host()
    taken, done = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            list(Host.objects.select_for_update().filter(pk=held.pk))
            taken.set()
            done.wait(10)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(10)
    first = leases.grant([ask(held), ask(free)])
    done.set()
    thread.join()
    assert [letter.queue for letter in first.letters] == [f"lease.{free.name}"]
    assert [letter.queue for letter in leases.grant(first.busy).letters] == [f"lease.{held.name}"]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_who_gives_a_host_up_while_it_is_granted_a_lease_finds_another_fence_than_it_read():
    host = a_host(fenced_until=clock.now() - HOUR)
    read = host.fenced_until
    given_up = []
    update = Host.objects.bulk_update
    threads = []

    def give_up():
        given_up.append(Host.objects.filter(pk=host.pk, lost_at=None, fenced_until=read).update(lost_at=clock.now()))
        connection.close()

    class Meanwhile:
        """Within the transaction of the grant, after its row was locked, before it is written."""

        def __call__(self, *args):
            threads.append(threading.Thread(target=give_up))
            threads[0].start()
            return update(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(Host.objects), "bulk_update", lambda self, *args: Meanwhile()(*args))
        assert len(granted(ask(host))) == 1
    threads[0].join()
    host.refresh_from_db()
    assert (given_up, host.lost_at) == ([0], None)


# --- fences only grow -------------------------------------------------------------------------------------------------


def test_a_host_that_says_it_stops_faster_now_shortens_no_fence_of_a_lease_granted_before():
    host = a_host()
    granted(ask(host, stop_seconds=90.0))
    before = fence(host)
    with clock.moved(5 * SECOND):
        granted(ask(host, stop_seconds=1.0))
        assert fence(host) == before
    with clock.moved(100 * SECOND):
        granted(ask(host, stop_seconds=1.0))
        assert host.stop_seconds < 90
        assert fence(host) >= before
    host.refresh_from_db()
    assert host.stop_seconds == 1.0, "the slow lease is long over by then"


def test_a_host_that_says_it_stops_slower_now_is_believed_at_once():
    host = a_host()
    granted(ask(host, stop_seconds=1.0))
    granted(ask(host, stop_seconds=90.0))
    host.refresh_from_db()
    assert host.stop_seconds == 90.0


def test_a_shorter_lease_after_a_long_one_ends_no_fence_earlier():
    host = a_host()
    leases.hold([host], span=2 * HOUR, who="staff:a")
    [long] = granted(ask(host))
    before, until = fence(host), host.fenced_until
    leases.end_hold([host], who="staff:a")
    [short] = granted(ask(host))
    assert (round(long.seconds, -1), short.seconds) == (7200, 120)
    assert (fence(host), host.fenced_until) == (before, until)


# --- the inequality, from both sides ----------------------------------------------------------------------------------

RATE = fencing.CLOCK_RATE


class FakeHost:
    """What a host knows of time: two clocks that drift, one of them hours off."""

    def __init__(self, rate, wall):
        self.rate, self.wall = rate, wall

    def at(self, seconds):
        passed = seconds * (1 + self.rate)
        return Moment(boot_id="b", since_boot=9e5 + passed, wall=self.wall + passed)


@pytest.mark.parametrize("held", [None, 4 * HOUR])
@pytest.mark.parametrize("waited", [0.0, 3.0])
@pytest.mark.parametrize("off", [-7200.0, 0.0, 7200.0])
@pytest.mark.parametrize(("host_rate", "our_rate"), [(0.0, 0.0), (-RATE, RATE), (RATE, -RATE), (-RATE, -RATE)])
def test_while_a_live_terminal_may_run_nothing_comes_up_elsewhere_and_a_second_after_the_fence_it_may(
    host_rate, our_rate, off, waited, held, monkeypatch, settings
):
    """Instants are true seconds since the grant; the portal's clock and the host's each run as they do."""
    began = clock.now()

    def ours(seconds):
        return began + timedelta(seconds=seconds * (1 + our_rate))

    monkeypatch.setattr(leases, "clocks", lambda: (began, began))
    fake, stop = FakeHost(host_rate, began.timestamp() + off), 52.0
    surveyed = {"surveyed_at": began - 60 * SECOND, "survey_sent_at": datetime.fromtimestamp(fake.at(-60).wall, UTC)}
    host = a_host(leases_held_until=held and began + held, **surveyed)
    [grant] = granted(ask(host, sent_at=fake.at(-waited).wall, stop_seconds=stop))
    host.refresh_from_db()
    lease = Lease(nonce=grant.nonce, seconds=grant.seconds, sent=fake.at(-waited))
    facts, rules = leases.facts(host), leases.rules()
    assert lease.is_fresh(fake.at(0.0))
    end = grant.seconds + stop
    for instant in [*range(0, int(end) - 60, 37), *(end - 60 + step / 4 for step in range(400))]:
        if lease.left(fake.at(instant)) > -stop:
            assert not fencing.is_lost(facts, ours(instant), rules), f"a terminal may run {instant} s after the grant"
    passed = fencing.fence_ends(host.fenced_until, stop_seconds=stop, drift=settings.DRIFT_SECONDS)
    assert not fencing.is_lost(facts, passed - timedelta(microseconds=1), rules)
    assert fencing.is_lost(facts, passed, rules)
    assert fencing.is_lost(facts, passed + SECOND, rules)


def test_a_drift_that_does_not_cover_the_longest_lease_keeps_the_keeper_from_starting(settings):
    settings.DRIFT_SECONDS = 5
    with pytest.raises(CommandError, match="DRIFT_SECONDS"):
        call_command("keep_leases")


def test_a_keeper_without_the_key_says_so_in_one_sentence(settings):
    settings.ORDER_SIGNING_KEY = ""
    with pytest.raises(CommandError, match=r"^ORDER_SIGNING_KEY is not set[^\n]*\.$"):
        call_command("keep_leases")


# --- holding ----------------------------------------------------------------------------------------------------------


def hold_leases(*args):
    out = StringIO()
    call_command("hold_leases", *args, "--who", "ann", stdout=out, no_color=True)
    return out.getvalue()


@pytest.mark.parametrize("words", [["--for", "5h"], ["--for", "2h", "--host", "nobody"]])
def test_a_hold_that_is_too_long_or_of_no_host_is_refused(words):
    host = a_host()
    with pytest.raises(CommandError):
        hold_leases(*words)
    host.refresh_from_db()
    assert host.leases_held_until is None


@pytest.mark.parametrize("text", ["2", "0h", "-1h", "2d", "h", "1h30m", "inf"])
def test_a_span_that_is_none_is_refused(text):
    with pytest.raises(CommandError):
        hold_leases("--for", text)


def test_a_held_lease_lasts_until_then_whenever_it_is_asked_for(settings):
    host = a_host()
    hold_leases("--for", "2h")
    [first] = granted(ask(host))
    with clock.moved(HOUR):
        [later] = granted(ask(host))
    assert 7190 < first.seconds <= 7200
    assert 3590 < later.seconds <= 3600
    with clock.moved(2 * HOUR):
        assert [grant.seconds for grant in granted(ask(host))] == [settings.LEASE_SECONDS]


def test_no_lease_is_longer_than_what_drift_was_checked_for_whatever_became_of_our_clock(settings):
    host = a_host(leases_held_until=clock.now() + 40 * HOUR)
    [grant] = granted(ask(host))
    assert grant.seconds == settings.HOLD_LEASES_MOST_HOURS * 3600


def test_a_hold_says_from_when_each_host_can_be_failed_over_and_who_gets_none_and_why(settings):
    well = a_host(name="well")
    granted(ask(well))
    a_host(name="static", policy="static", said_policy="static")
    a_host(name="silent", surveyed_at=clock.now() - HOUR)
    a_host(name="new", surveyed_at=None)
    a_host(name="gone", state="retired")
    said = hold_leases("--for", "1h")
    well.refresh_from_db()
    assert f"well: leases held until {well.leases_held_until:%Y-%m-%d %H:%M:%S} UTC; it gets one within seconds" in said
    from_then = well.leases_held_until + timedelta(seconds=20 + settings.DRIFT_SECONDS)
    assert f"failed over from {from_then:%Y-%m-%d %H:%M:%S}" in said
    assert "static: it gets no lease now: its policy is static" in said
    assert "silent: it gets no long lease now: it was last heard" in said
    assert "new: it gets no long lease now: it was never heard" in said
    assert "gone" not in said
    assert "No keep_leases was seen at all" in said
    granted(ask(well))
    leases.show_life()
    said = hold_leases()
    assert "it has one" in said
    assert "No keep_leases" not in said


def test_a_hold_and_its_end_stand_in_the_journal_of_those_they_are_for():
    one, other = a_host(), a_host()
    hold_leases("--for", "90m", "--host", one.name)
    hold_leases("--end")
    events = HostEvent.objects.order_by("pk").values_list("host", "what", "who")
    assert list(events) == [(one.pk, "leases held", "staff:ann"), (one.pk, "leases no longer held", "staff:ann")]
    other.refresh_from_db()
    assert other.leases_held_until is None


def test_a_host_that_runs_without_leases_is_given_up_by_no_fence():
    assert leases.given_up_from(a_host(policy="static", fenced_until=clock.now())) is None
    assert leases.given_up_from(a_host(said_policy="static", fenced_until=clock.now())) is None
    assert leases.given_up_from(a_host()) is None


# --- a sign of life ---------------------------------------------------------------------------------------------------


def test_a_keeper_shows_that_it_lives_and_touches_nothing_else_of_that_row():
    leases.show_life()
    Watch.objects.update(brake_why="ours")
    leases.show_life()
    watch = Watch.objects.get()
    assert (watch.pk, watch.brake_why) == (1, "ours")
    assert leases.keeper_seen_at() == watch.leases_seen_at


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_watcher_that_holds_the_row_keeps_no_keeper_waiting():
    leases.show_life()
    Watch.objects.update(leases_seen_at=None)
    taken, done = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            list(Watch.objects.select_for_update())
            taken.set()
            done.wait(10)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(10)
    leases.show_life()
    done.set()
    thread.join()
    assert leases.keeper_seen_at() is None


# --- another boot, another machine, a restored database --------------------------------------------------------------


def test_another_boot_gets_a_lease_only_when_what_ran_before_is_surely_gone():
    host = a_host(boot_id="first")
    assert len(granted(ask(host, boot_id="first"))) == 1
    assert granted(ask(host, boot_id="second")) == []
    host.refresh_from_db()
    ends = fencing.fence_ends(host.fenced_until, stop_seconds=host.stop_seconds, drift=20.0)
    with clock.moved(ends - clock.now() - timedelta(seconds=1)):
        assert granted(ask(host, boot_id="second")) == []
    with clock.moved(ends - clock.now()):
        assert [grant.boot_id for grant in granted(ask(host, boot_id="second"))] == ["second"]


def test_of_two_machines_with_one_name_and_keys_one_keeps_the_lease_and_the_other_gets_none():
    host = a_host()
    for minute in range(10):
        with clock.moved(timedelta(minutes=minute)):
            Host.objects.filter(pk=host.pk).update(surveyed_at=clock.now())
            assert len(granted(ask(host, boot_id="first"))) == 1
            assert granted(ask(host, boot_id="second")) == []


def test_why_a_host_that_was_started_anew_waits_is_said():
    host = a_host(boot_id="first", said_policy="fenced")
    granted(ask(host, boot_id="first"))
    Host.objects.filter(pk=host.pk).update(boot_id="second", surveyed_at=clock.now())
    host.refresh_from_db()
    assert "started anew" in leases.why_no_lease(host)


@pytest.mark.parametrize(
    ("left", "surveyed_ago", "gets"), [(100.0, 0, 1), (None, 0, 0), (0, 0, 0), (100.0, 120, 0), ("much", 0, 0)]
)
def test_after_a_restore_only_who_still_has_a_lease_is_granted_the_next(left, surveyed_ago, gets):
    now = clock.now()
    heard = now - timedelta(seconds=surveyed_ago)
    host = a_host(load={"lease_left": left}, surveyed_at=heard, survey_sent_at=heard)
    Watch.objects.update_or_create(pk=1, defaults={"restored_at": now - timedelta(seconds=60)})
    assert len(granted(ask(host))) == gets
    Watch.objects.filter(pk=1).update(restored_at=None)
    assert len(granted(ask(host))) == 1
