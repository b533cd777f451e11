"""A host falls silent: nothing moves before it surely may, and then everything comes up elsewhere, once."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from datetime import timedelta

import pytest

from farm import clock, errors, keepsakes, leases, lifecycle, ports
from farm.agent import protocol
from farm.agent.protocol import Connection, Process, Refusal, Verb
from farm.lifecycle import failing_over, moving
from farm.models import Host, HostEvent, Instance, Port, Seat, Ticket, Transition, Watch
from farm.states import Goal, Kind, Status
from tests.factories import HOST_SIGNING_KEY, AnsweringHost, HostFactory, fill_vault, instance
from tests.farm import invariants
from tests.farm.test_living import account, fresh, go_live, hold, paid, proof, to_start

pytestmark = pytest.mark.django_db

LEASE, STOP, DRIFT, SUSPECT, MOVE = 120, 30, 15, 30, 60
FENCE = LEASE + STOP + DRIFT


@pytest.fixture(autouse=True)
def _rules(settings):
    settings.LEASE_SECONDS, settings.DRIFT_SECONDS = LEASE, DRIFT
    settings.SURVEY_FRESH_SECONDS, settings.MOVE_SECONDS = SUSPECT, MOVE


@pytest.fixture
def dark():
    """The host that is going to fall silent; it was granted a lease just now. The one with the most room."""
    return AnsweringHost(leased(HostFactory.create(slots=30)))


@pytest.fixture
def others(dark):
    return [AnsweringHost(leased(HostFactory.create())) for _ in range(3)]


@pytest.fixture
def demo(dark):
    return dark.obey(instance())


@pytest.fixture
def live(dark, demo, others):
    return go_live(dark, demo)


def leased(host):
    host.policy = host.said_policy = Host.Policy.FENCED
    host.fenced_until, host.stop_seconds = clock.now() + timedelta(seconds=LEASE), STOP
    host.save()
    return host


def later(seconds):
    return clock.moved(timedelta(seconds=seconds))


def look(*silent):
    """One look of a portal that has been watching all the time; all other hosts spoke just now."""
    now = clock.now()
    Host.objects.exclude(pk__in=[host.host.pk for host in silent]).update(surveyed_at=now)
    Watch.objects.update_or_create(
        pk=1,
        defaults={
            "looked_at": now - timedelta(seconds=5),
            "looked_boot": clock.boot(),
            "looked_since_boot": clock.since_boot() - 5,
        },
    )
    lifecycle.watch_hosts()


def lose(host):
    """What becomes of the farm when ``host`` has been silent until its fence has passed."""
    clock.move(timedelta(seconds=FENCE + 1))
    look(host)


@pytest.fixture(autouse=True)
def _time():
    with clock.moved(timedelta()):
        yield


def successor(row):
    return Instance.objects.filter(customer_id=row.customer_id).exclude(pk=row.pk).order_by("-pk").first()


def bring_up(row):
    """Do what is due for ``row`` on whichever host it is."""
    row = fresh(row)
    host = AnsweringHost(row.host)
    while (order := host.claim(row)) is not None:
        login = {"login": order.login, "server": order.server} if order.login else {}
        beat = proof()["heartbeat"] | login
        host.answer(order, **(proof(heartbeat=beat) if order.verb is Verb.START and order.login else {}))
    return fresh(row)


# --- when nothing moves -----------------------------------------------------------------------------------------------


def test_a_host_that_is_only_silent_keeps_what_runs_an_account(dark, live):
    with later(SUSPECT + 1):
        look(dark)
        assert (fresh(live).status, Instance.objects.count()) == (Status.RUNNING, 2)


def test_one_second_before_its_fence_has_passed_a_host_is_not_given_up_and_one_after_it_is(dark, live):
    dark.host.refresh_from_db()
    at = dark.host.fenced_until - clock.now() + timedelta(seconds=STOP + DRIFT)
    with clock.moved(at - timedelta(seconds=1)):
        look(dark)
        assert fresh(live).status == Status.RUNNING
    with clock.moved(at + timedelta(seconds=1)):
        look(dark)
        assert fresh(live).status == Status.LOST


def test_with_the_brake_on_nothing_moves(dark, live, demo):
    lifecycle.pull_brake("a test", who="staff:1")
    waiting = instance()
    lose(dark)
    assert (fresh(live).status, fresh(waiting).status) == (Status.RUNNING, Status.REQUESTED)
    dark.host.refresh_from_db()
    assert dark.host.lost_at is None


@pytest.mark.parametrize(
    "changes",
    [{"policy": "static"}, {"said_policy": "static"}, {"said_policy": ""}, {"fenced_until": None}],
    ids=["static", "says it is static", "never said", "never leased"],
)
def test_a_host_without_a_fence_is_never_given_up_by_itself(dark, live, changes):
    Host.objects.filter(pk=dark.host.pk).update(**changes)
    with later(24 * 3600):
        look(dark)
        assert fresh(live).status == Status.RUNNING


def test_a_host_whose_leases_are_held_is_not_given_up_before_they_end(dark, live):
    Host.objects.filter(pk=dark.host.pk).update(fenced_until=clock.now() + timedelta(hours=2))
    with later(3600):
        look(dark)
        assert fresh(live).status == Status.RUNNING


@pytest.mark.parametrize(
    "meanwhile", [{"surveyed_at": 0}, {"fenced_until": 0}, {"fenced_until": LEASE}, {"policy": "static"}]
)
def test_a_host_that_speaks_or_is_leased_between_the_look_and_the_loss_is_not_lost(dark, live, meanwhile):
    with later(FENCE + 1):
        read = Host.objects.get(pk=dark.host.pk)
        moved = {k: clock.now() + timedelta(seconds=v) if isinstance(v, int) else v for k, v in meanwhile.items()}
        Host.objects.filter(pk=read.pk).update(**moved)
        assert not failing_over.give_up(read, why="silent", who="watch")
        assert fresh(live).status == Status.RUNNING
        assert not HostEvent.objects.filter(what="lost").exists()


def test_a_host_that_is_given_up_is_granted_no_lease(dark, live):
    lose(dark)
    assert leases.grant([request_of(dark)]).letters == []


def request_of(host, *, boot_id="boot"):
    request = protocol.LeaseRequest(
        host=host.host.name, nonce="n", boot_id=boot_id, sent_at=clock.now().timestamp(), stop_seconds=STOP
    )
    return protocol.sign(request, HOST_SIGNING_KEY)


def test_only_its_end_is_ordered_of_a_host_that_is_given_up(dark, live):
    with later(FENCE + 1):
        assert failing_over.give_up(Host.objects.get(pk=dark.host.pk), why="silent", who="watch")
        for status in (Status.REQUESTED, Status.CLONING, Status.INJECTING, Status.STARTING, Status.STOPPING):
            Instance.objects.filter(pk=live.pk).update(status=status, next_at=clock.now(), claimed_until=None)
            assert lifecycle.claim(live.pk) is None
        Instance.objects.filter(pk=live.pk).update(status=Status.DESTROYING)
        assert dark.claim(fresh(live)).verb is Verb.DESTROY


# --- before the fence -------------------------------------------------------------------------------------------------


def test_what_never_ran_moves_as_soon_as_its_host_is_suspect(dark, others):
    row = instance()
    dark.claim(row)
    with later(SUSPECT - 1):
        look(dark)
        assert fresh(row).status == Status.CLONING
    with later(SUSPECT):
        look(dark)
        new = successor(row)
        assert (fresh(row).status, new.status, new.replaces_id) == (Status.LOST, Status.REQUESTED, row.pk)
        assert new.host_id != dark.host.pk
        assert bring_up(new).status == Status.RUNNING
        invariants.check()


def test_a_live_one_that_never_ran_takes_its_seat_along_and_still_has_to_prove_itself(dark, demo, others):
    row = paid(demo)
    dark.claim(fresh(row))
    Host.objects.filter(pk=dark.host.pk).update(slots=2)
    with later(SUSPECT):
        look(dark)
        new = successor(row)
        assert (Seat.objects.get(login=7_000_001).instance_id, new.replaces_id, new.proven_at) == (
            new.pk,
            demo.pk,
            None,
        )
        assert bring_up(new).proven_at is not None
        assert fresh(demo).goal == Goal.DESTROYED
        invariants.check()


@pytest.mark.parametrize("was", [Status.INJECTING, Status.STARTING])
def test_what_failed_and_is_tried_again_may_have_run_and_stays_until_the_fence(dark, demo, others, was):
    row = paid(demo)
    Transition.objects.create(instance=row, was=Status.CLONING, became=was, why="test", who="test")
    assert fresh(row).status == Status.REQUESTED
    with later(FENCE - 1):
        look(dark)
        assert fresh(row).status == Status.REQUESTED
    with later(FENCE + 1):
        look(dark)
        assert fresh(row).status == Status.LOST


def test_a_terminal_without_account_moves_after_a_minute_and_not_before(dark, demo, others):
    for seconds, status in ((MOVE - 1, Status.RUNNING), (MOVE, Status.LOST)):
        with later(seconds):
            look(dark)
            assert fresh(demo).status == status
    assert successor(demo).status == Status.REQUESTED


def test_a_demo_on_an_account_of_the_vault_waits_for_the_fence(dark, others):
    fill_vault(2)
    row = dark.obey(instance())
    with later(MOVE):
        look(dark)
        assert fresh(row).status == Status.RUNNING
    lose(dark)
    assert fresh(row).status == Status.LOST


def test_what_was_to_go_anyway_is_not_brought_up_elsewhere(dark, demo, others):
    lifecycle.end(demo.pk, why="left", who="customer:1")
    with later(MOVE):
        look(dark)
        assert (fresh(demo).status, Instance.objects.count()) == (Status.DESTROYING, 1)


def test_a_hold_stays_and_finds_another_slot_when_it_is_paid(dark, demo, others):
    row = hold(demo)
    lose(dark)
    assert fresh(row).status == Status.WAITING
    lifecycle.activate(row.pk, who="payment")
    assert (fresh(row).status, fresh(row).host_id != dark.host.pk) == (Status.REQUESTED, True)
    invariants.check()


def test_a_paid_one_that_waits_for_its_old_one_to_stop_takes_a_slot_elsewhere(dark, others):
    old = live_on(others[0], 7_000_001)
    row = paid(old)
    assert (fresh(row).status, fresh(row).host_id) == (Status.WAITING, dark.host.pk)
    with later(SUSPECT):
        look(dark)
        assert fresh(row).host_id not in {None, dark.host.pk}
        others[0].answer(others[0].claim(fresh(old)))
        assert fresh(row).status == Status.REQUESTED
        invariants.check()


@contextmanager
def only(host):
    """Nothing is placed on another one."""
    Host.objects.exclude(pk=host.host.pk).update(state=Host.State.DRAINING)
    yield
    Host.objects.update(state=Host.State.ONLINE)


def live_on(host, login):
    with only(host):
        return go_live(host, host.obey(instance()), login=login)


# --- a live one -------------------------------------------------------------------------------------------------------


def test_a_live_one_comes_up_elsewhere_on_the_same_account_sealed_to_the_other_host(dark, live):
    lose(dark)
    new = successor(live)
    assert (fresh(live).status, fresh(live).goal) == (Status.LOST, Goal.DESTROYED)
    assert (new.replaces_id, new.account_id, new.status) == (live.pk, live.account_id, Status.REQUESTED)
    assert Seat.objects.get(login=7_000_001).instance_id == new.pk
    host = AnsweringHost(new.host)
    host.answer(host.claim(new))
    order = host.claim(fresh(new))
    assert (order.verb, order.host, bool(order.sealed)) == (Verb.INJECT, new.host.name, True)
    host.answer(order)
    assert bring_up(new).status == Status.RUNNING
    invariants.check()
    assert lifecycle.current(live.customer_id) == new


def test_it_need_not_prove_again_what_it_has_proven(dark, live):
    lose(dark)
    new = successor(live)
    host = AnsweringHost(new.host)
    host.answer(to_start(host, new), connection=Connection.REFUSED, refusal=Refusal.SERVER_UNREACHABLE)
    assert (fresh(new).status, fresh(new).connection, fresh(new).goal) == (
        Status.RUNNING,
        Connection.REFUSED,
        Goal.RUNNING,
    )


def test_one_that_was_not_yet_proven_goes_on_towards_its_proof(dark, others):
    with only(others[0]):
        demo = others[0].obey(instance())
    row = paid(demo)
    to_start(dark, row)
    lose(dark)
    new = successor(row)
    assert (fresh(row).status, new.replaces_id, new.proven_at) == (Status.LOST, demo.pk, None)
    assert (bring_up(new).status, fresh(demo).goal) == (Status.RUNNING, Goal.DESTROYED)
    invariants.check()


def test_without_a_slot_it_stands_first_in_line_with_its_seat_and_is_served_first(dark, live, others):
    Host.objects.exclude(pk=dark.host.pk).update(slots=0)
    Host.objects.filter(pk=dark.host.pk).update(slots=1)
    waits = instance()
    lose(dark)
    new = successor(live)
    assert (new.status, lifecycle.waiting_position(new)) == (Status.WAITING, 1)
    assert Seat.objects.get(login=7_000_001).instance_id == new.pk
    Host.objects.filter(pk=others[0].host.pk).update(slots=1)
    lifecycle.admit()
    assert (fresh(new).status, fresh(waits).status) == (Status.REQUESTED, Status.WAITING)
    invariants.check()


def test_one_that_was_stopped_for_want_of_payment_is_not_brought_up_and_can_be_resumed(dark, live):
    lifecycle.stop(live.pk, why="not paid", who="payment")
    dark.obey(live)
    lose(dark)
    new = successor(live)
    assert (new.status, new.goal, lifecycle.admit()) == (Status.WAITING, Goal.STOPPED, 0)
    assert lifecycle.waiting_position(new) is None
    lifecycle.resume(new.pk, why="paid", who="payment")
    assert bring_up(new).status == Status.RUNNING
    invariants.check()


def test_one_in_line_after_a_loss_can_be_stopped_and_resumed(dark, live):
    Host.objects.exclude(pk=dark.host.pk).update(slots=0)
    lose(dark)
    new = successor(live)
    lifecycle.stop(new.pk, why="not paid", who="payment")
    Host.objects.exclude(pk=dark.host.pk).update(slots=5)
    assert lifecycle.admit() == 0
    lifecycle.resume(new.pk, why="paid", who="payment")
    assert fresh(new).status == Status.REQUESTED


def test_one_whose_end_was_wanted_is_lost_and_its_seat_is_free(dark, live):
    lifecycle.end(live.pk, why="left", who="customer:1")
    lose(dark)
    assert (fresh(live).status, Instance.objects.count()) == (Status.LOST, 2)
    assert Seat.objects.get(login=7_000_001).instance_id is None


def move(old, password="Other-1aA"):
    """The same account under another password: a new clone that waits for the old one to stop."""
    return lifecycle.go_on(
        customer_id=old.customer_id, account=account(old.customer, password=password), replaces=old, who="customer:1"
    )


def test_one_that_was_stopped_for_its_successor_hands_over_to_that(dark, live):
    new = move(live)
    assert (fresh(new).status, fresh(live).status) == (Status.WAITING, Status.STOPPING)
    lose(dark)
    assert Instance.objects.count() == 3
    assert bring_up(new).status == Status.RUNNING
    assert fresh(new).proven_at is not None
    invariants.check()


def test_a_successor_whose_broker_says_no_does_not_end_the_account_of_one_that_was_lost(dark, live):
    new = move(live)
    lose(dark)
    host = AnsweringHost(fresh(new).host)
    host.answer(to_start(host, new), connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS)
    assert (fresh(new).status, fresh(new).connection) == (Status.RUNNING, Connection.REFUSED)


def test_a_successor_on_another_account_replaces_the_one_that_came_up_for_the_lost(dark, live, others):
    other = lifecycle.go_on(
        customer_id=live.customer_id, account=account(live.customer, login=7_000_002), replaces=live, who="customer:1"
    )
    lose(dark)
    new = Instance.objects.get(replaces=live)
    assert new.account_id == live.account_id
    heir = Instance.objects.filter(account_id=other.account_id).order_by("-pk").first()
    assert heir.replaces_id == new.pk
    assert bring_up(new).status == Status.RUNNING
    assert bring_up(heir).proven_at is not None
    assert bring_up(new).status == Status.DESTROYED
    assert lifecycle.current(live.customer_id).pk == heir.pk
    invariants.check()


def test_one_that_was_stopped_for_a_refused_one_comes_up_when_the_seat_is_free(dark, live, others):
    Host.objects.filter(pk=dark.host.pk).update(slots=2)
    new = move(live)
    dark.answer(dark.claim(fresh(live)))
    host = AnsweringHost(fresh(new).host)
    assert host.host != dark.host
    host.answer(to_start(host, new), connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS)
    assert (fresh(new).status, fresh(live).goal) == (Status.DESTROYING, Goal.STOPPED)
    lose(dark)
    anew = Instance.objects.get(replaces=live, goal=Goal.RUNNING)
    assert (anew.status, anew.account_id) == (Status.WAITING, live.account_id)
    assert invariants.stuck() == []
    assert bring_up(new).status == Status.DESTROYED
    assert bring_up(anew).status == Status.RUNNING
    invariants.check()


def test_an_old_one_is_not_started_again_while_another_successor_is_on_its_way(dark, others):
    """The old one stands stopped elsewhere; what was to replace it is lost, and another one is on its way."""
    live = live_on(others[0], 7_000_009)
    row = lifecycle.go_on(
        customer_id=live.customer_id,
        account=account(live.customer, login=7_000_009, password="Other-1aA"),
        replaces=live,
        who="test",
    )
    assert fresh(row).host_id == dark.host.pk
    others[0].answer(others[0].claim(fresh(live)))
    to_start(dark, row)
    lose(dark)
    new = successor(row)
    dark.survey()
    lifecycle.sweep()
    assert dark.obey(fresh(row)).status == Status.DESTROYED
    assert (fresh(live).status, Seat.objects.get(login=7_000_009).instance_id) == (Status.STOPPED, new.pk)
    assert bring_up(new).proven_at is not None
    invariants.check()


def test_one_that_makes_way_is_not_started_again_for_one_of_two_that_want_its_place(dark, live):
    first, second = move(live, "First-1aA"), move(live, "Second-1aA")
    lifecycle.end(first.pk, why="left", who="customer:1")
    assert (fresh(live).status, fresh(live).goal) == (Status.STOPPING, Goal.STOPPED)
    dark.answer(dark.claim(fresh(live)))
    assert fresh(second).status == Status.REQUESTED
    invariants.check()


def test_the_end_of_a_lost_one_does_not_start_what_is_stopped_for_want_of_payment(dark, others):
    live = live_on(others[0], 7_000_009)
    row = lifecycle.go_on(
        customer_id=live.customer_id,
        account=account(live.customer, login=7_000_009, password="Other-1aA"),
        replaces=live,
        who="test",
    )
    others[0].answer(others[0].claim(fresh(live)))
    to_start(dark, row)
    lose(dark)
    new = successor(row)
    lifecycle.end(new.pk, why="not paid", who="payment")
    bring_up(new)
    lifecycle.stop(live.pk, why="not paid", who="payment")
    others[0].obey(live)
    assert (fresh(live).status, fresh(new).status) == (Status.STOPPED, Status.DESTROYED)
    back(dark)
    assert dark.obey(fresh(row)).status == Status.DESTROYED
    assert (fresh(live).status, fresh(live).goal) == (Status.STOPPED, Goal.STOPPED)


# --- a Press Pass -----------------------------------------------------------------------------------------------------


def test_a_press_pass_goes_on_with_what_is_left_of_its_days(dark, others, settings):
    row = dark.obey(instance())
    lose(dark)
    new = successor(row)
    assert new.ends_at == fresh(row).first_running_at + timedelta(days=settings.PRESS_PASS_DAYS)
    assert new.warn_end_at is not None
    assert bring_up(new).status == Status.RUNNING
    invariants.check()


def test_it_gets_another_demo_account_and_the_old_one_stays_behind_until_it_is_gone(dark, others):
    fill_vault(2)
    row = dark.obey(instance())
    lose(dark)
    new = successor(row)
    assert new.account_id not in {None, row.account_id}
    assert Seat.objects.get(vault_account=row.account).instance_id == row.pk
    dark.survey()
    lifecycle.sweep()
    assert dark.obey(fresh(row)).status == Status.DESTROYED
    assert Seat.objects.get(vault_account=row.account).instance_id is None
    invariants.check()


def test_without_a_slot_it_stands_first_in_line_and_is_started_though_nobody_looks(dark, demo, others):
    Host.objects.exclude(pk=dark.host.pk).update(slots=0)
    lose(dark)
    new = successor(demo)
    assert lifecycle.waiting_position(new) == 1
    with later(3600):
        Host.objects.filter(pk=others[0].host.pk).update(slots=1, surveyed_at=clock.now())
        lifecycle.admit()
        assert fresh(new).status == Status.REQUESTED


def test_a_demo_that_is_being_upgraded_is_replaced_by_the_same_live_one_in_the_end(dark, demo, others):
    Host.objects.filter(pk=dark.host.pk).update(slots=1)
    row = paid(demo)
    assert fresh(row).host_id != dark.host.pk
    lose(dark)
    new = Instance.objects.get(replaces=demo)
    assert fresh(row).replaces_id == new.pk
    assert lifecycle.current(demo.customer_id).pk == row.pk
    bring_up(new)
    assert bring_up(row).proven_at is not None
    assert bring_up(new).status == Status.DESTROYED
    assert lifecycle.current(demo.customer_id).pk == row.pk
    invariants.check()


# --- the order of it, and whoever is killed in between ----------------------------------------------------------------


def test_live_ones_come_first_and_those_with_open_positions_first_of_all(dark, others):
    demo = dark.obey(instance())
    none, unknown, some = (go_live(dark, dark.obey(instance()), login=7_000_010 + n) for n in range(3))
    for row, facts in ((none, {"positions": 0}), (unknown, {}), (some, {"positions": 2})):
        Instance.objects.filter(pk=row.pk).update(facts=facts)
    lose(dark)
    lost = Transition.objects.filter(became=Status.LOST).order_by("pk").values_list("instance_id", flat=True)
    assert list(lost)[:4] == [some.pk, unknown.pk, none.pk, demo.pk]


def test_whoever_is_killed_after_the_host_is_lost_is_followed_by_the_next_look(dark, live):
    with later(FENCE + 1):
        assert failing_over.give_up(Host.objects.get(pk=dark.host.pk), why="silent", who="watch")
        assert fresh(live).status == Status.RUNNING
        look(dark)
        assert (fresh(live).status, successor(live).status) == (Status.LOST, Status.REQUESTED)
        invariants.check()


def test_whoever_is_killed_half_way_is_followed_by_the_next_look(dark, live, others, monkeypatch):
    rows = [live, *(go_live(dark, dark.obey(instance()), login=7_000_020 + n) for n in range(2))]
    fail_over, done = failing_over.fail_over, []

    def killed(pk, **how):
        done.append(pk)
        if len(done) == 2:
            raise KeyboardInterrupt
        return fail_over(pk, **how)

    monkeypatch.setattr(failing_over, "fail_over", killed)
    clock.move(timedelta(seconds=FENCE + 1))
    with pytest.raises(KeyboardInterrupt):
        look(dark)
    monkeypatch.undo()
    assert [fresh(row).status for row in rows].count(Status.LOST) == 1
    look(dark)
    assert {fresh(row).status for row in rows} == {Status.LOST}
    assert Instance.objects.filter(kind=Kind.LIVE, goal=Goal.RUNNING).count() == 3
    invariants.check()


def test_a_look_that_comes_again_changes_nothing(dark, live, demo, others):
    lose(dark)
    before = Instance.objects.count()
    clock.move(timedelta(seconds=5))
    look(dark)
    assert (Instance.objects.count(), HostEvent.objects.filter(what="lost").count()) == (before, 1)


def test_one_that_cannot_be_moved_keeps_no_other_waiting(dark, live, others, monkeypatch, caplog):
    other = go_live(dark, dark.obey(instance()), login=7_000_030)
    move = moving.move
    monkeypatch.setattr(
        moving, "move", lambda row, *args, **how: 1 / 0 if row.pk == live.pk else move(row, *args, **how)
    )
    lose(dark)
    assert (fresh(live).status, fresh(other).status) == (Status.RUNNING, Status.LOST)
    assert "could not be failed over" in caplog.text


# --- it returns -------------------------------------------------------------------------------------------------------


def back(host, *lines):
    """The host speaks again; its survey tells what it still has."""
    host.survey(*lines)
    lifecycle.sweep()


def test_a_host_that_returns_destroys_what_it_had_and_resumes_nothing(dark, live, demo, others):
    lose(dark)
    new = successor(live)
    back(dark, dark.line(fresh(live), process=Process.STOPPED))
    order = dark.claim(fresh(live))
    assert (order.verb, fresh(live).goal) == (Verb.DESTROY, Goal.DESTROYED)
    dark.answer(order)
    assert fresh(live).status == Status.DESTROYED
    assert Seat.objects.get(login=7_000_001).instance_id == new.pk
    assert fresh(new).account_id == live.account_id
    invariants.check()


def test_a_host_that_shows_a_lost_one_running_does_not_bring_its_row_back(dark, live):
    lose(dark)
    dark.survey(dark.line(fresh(live), **proof()))
    assert fresh(live).status == Status.LOST


def test_it_is_given_work_again_when_all_it_had_is_destroyed_and_not_before(dark, live, others):
    other = go_live(dark, dark.obey(instance()), login=7_000_040)
    lose(dark)
    Host.objects.exclude(pk=dark.host.pk).update(slots=0)
    back(dark)
    dark.obey(fresh(live))
    look()
    dark.host.refresh_from_db()
    assert dark.host.lost_at is not None
    assert (instance().status, leases.grant([request_of(dark)]).letters) == (Status.WAITING, [])
    for row in Instance.objects.filter(host=dark.host, status=Status.DESTROYING):
        dark.obey(row)
    look()
    dark.host.refresh_from_db()
    assert (fresh(other).status, dark.host.lost_at, dark.host.lost_why) == (Status.DESTROYED, None, "")
    assert len(leases.grant([request_of(dark)]).letters) == 1
    assert lifecycle.admit() > 0
    events = list(HostEvent.objects.filter(host=dark.host).order_by("pk").values_list("what", flat=True))
    assert events == ["silent", "lost", "back", "back"]


def test_one_that_returns_half_way_and_goes_again_destroys_the_rest_when_it_is_back(dark, live, others):
    other = go_live(dark, dark.obey(instance()), login=7_000_041)
    lose(dark)
    back(dark)
    dark.obey(fresh(live))
    with later(FENCE + 1):
        look(dark)
        assert fresh(other).status == Status.DESTROYING
        assert Transition.objects.filter(instance=other, became=Status.LOST).count() == 1
    with later(FENCE + 60):
        back(dark)
        dark.obey(fresh(other))
        assert fresh(other).status == Status.DESTROYED
        invariants.check()


def test_a_host_that_was_only_suspect_destroys_what_moved_away_meanwhile(dark, others):
    row = instance()
    dark.claim(row)
    with later(SUSPECT):
        look(dark)
        back(dark, dark.line(fresh(row), process=Process.STOPPED))
        assert dark.obey(fresh(row)).status == Status.DESTROYED
        dark.host.refresh_from_db()
        assert dark.host.lost_at is None


def test_a_late_answer_to_an_order_from_before_the_loss_changes_nothing(dark, live):
    lifecycle.restart(live.pk, who="customer:1")
    order = dark.claim(fresh(live))
    lose(dark)
    assert not dark.answer(order)
    assert fresh(live).status == Status.LOST


def test_the_end_of_a_lost_one_brings_no_keepsake_over_its_successors(dark, live):
    lose(dark)
    new = bring_up(successor(live))
    assert new.status == Status.RUNNING
    back(dark)
    assert dark.claim(fresh(live)).keepsake == ""


def test_nor_does_that_of_a_lost_press_pass(dark, demo, others):
    lose(dark)
    assert bring_up(successor(demo)).status == Status.RUNNING
    back(dark)
    assert dark.claim(fresh(demo)).keepsake == ""


def test_while_its_successor_has_not_run_the_lost_ones_keepsake_is_worth_having(dark, live):
    Host.objects.exclude(pk=dark.host.pk).update(slots=0)
    lose(dark)
    back(dark)
    assert dark.claim(fresh(live)).keepsake


def test_the_newest_keepsake_goes_to_the_clone_that_comes_up(dark, live):
    keepsakes.accept(_token(keepsakes.issue(live, Ticket.Direction.PUT)), EMPTY_ZIP, digest=EMPTY_DIGEST)
    lose(dark)
    new = successor(live)
    assert AnsweringHost(new.host).claim(new).keepsake


EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
EMPTY_DIGEST = hashlib.sha256(EMPTY_ZIP).hexdigest()


def _token(address):
    return address.rstrip("/").rsplit("/", 1)[1]


# --- staff ------------------------------------------------------------------------------------------------------------


def test_staff_give_up_no_host_that_speaks(dark, live):
    with pytest.raises(errors.StillHeard):
        lifecycle.give_up_host(dark.host.pk, who="staff:1")
    assert fresh(live).status == Status.RUNNING


def test_staff_give_up_no_fenced_host_whose_lease_may_still_run(dark, live):
    with later(FENCE - 10), pytest.raises(errors.FenceStands):
        lifecycle.give_up_host(dark.host.pk, who="staff:1")
    assert fresh(live).status == Status.RUNNING


def test_staff_give_up_no_retired_host(dark):
    Host.objects.filter(pk=dark.host.pk).update(state=Host.State.RETIRED)
    with later(3600), pytest.raises(errors.Refused):
        lifecycle.give_up_host(dark.host.pk, who="staff:1")


@pytest.mark.parametrize("changes", [{"policy": "static", "said_policy": "static"}, {"fenced_until": None}, {}])
def test_a_host_that_staff_know_is_off_is_given_up_also_under_the_brake_and_twice_is_once(dark, live, others, changes):
    Host.objects.filter(pk=dark.host.pk).update(**changes)
    lifecycle.pull_brake("a test", who="staff:1")
    clock.move(timedelta(seconds=FENCE + 1))
    Host.objects.exclude(pk=dark.host.pk).update(surveyed_at=clock.now())
    for _ in range(2):
        lifecycle.give_up_host(dark.host.pk, who="staff:1")
    assert (fresh(live).status, successor(live).status) == (Status.LOST, Status.REQUESTED)
    event = HostEvent.objects.get(host=dark.host, what="lost")
    assert event.who == "staff:1"


def test_a_host_that_holds_terminals_is_not_retired(dark, live):
    with pytest.raises(errors.Refused):
        lifecycle.retire(dark.host.pk, who="staff:1")


def test_a_lost_host_that_speaks_is_not_retired(dark, live):
    lose(dark)
    dark.survey()
    with pytest.raises(errors.Refused):
        lifecycle.retire(dark.host.pk, who="staff:1")


def test_a_lost_host_is_not_retired_before_everything_came_up_elsewhere(dark, live):
    with later(FENCE + 1):
        failing_over.give_up(Host.objects.get(pk=dark.host.pk), why="silent", who="watch")
        with pytest.raises(errors.Refused):
            lifecycle.retire(dark.host.pk, who="staff:1")


def test_a_lost_host_that_is_retired_ends_its_rows_and_frees_its_slots_and_accounts(dark, live, others):
    fill_vault(1)
    demo = dark.obey(instance())
    lose(dark)
    lifecycle.retire(dark.host.pk, who="staff:1")
    assert {fresh(row).status for row in (live, demo)} == {Status.DESTROYED}
    assert not Port.objects.filter(host=dark.host, instance__isnull=False).exists()
    assert not Seat.objects.filter(instance=demo).exists()
    assert Seat.objects.get(login=7_000_001).instance_id == successor(live).pk
    dark.host.refresh_from_db()
    assert (dark.host.state, dark.host.taken) == (Host.State.RETIRED, 0)
    invariants.check()


def test_a_host_is_not_retired_while_a_slot_is_held_there(dark, live, others):
    """One that waits for the old one's stop holds no terminal yet."""
    Host.objects.exclude(pk=dark.host.pk).update(slots=90)
    new = lifecycle.go_on(customer_id=live.customer_id, account=live.account, replaces=fresh(live), who="staff:1")
    assert (new.status, new.host_id != dark.host.pk) == (Status.WAITING, True)
    with pytest.raises(errors.Refused, match="is held for somebody"):
        lifecycle.retire(new.host_id, who="staff:1")


def test_no_slot_is_taken_on_a_host_that_was_retired_meanwhile(dark, others):
    row = instance()
    host = Host.objects.exclude(pk=row.host_id).first()
    Host.objects.filter(pk=host.pk).update(state=Host.State.RETIRED)
    with pytest.raises(errors.NoFreePort):
        ports.reserve(host, row)


def test_an_empty_host_is_retired(dark):
    lifecycle.retire(dark.host.pk, who="staff:1")
    dark.host.refresh_from_db()
    assert dark.host.state == Host.State.RETIRED
