"""recycle_idle at the edges of time: never before, at most one run after, and never what is paid for or going live."""

from __future__ import annotations

import io
import json
import threading
from datetime import timedelta

import pytest
from django.core.mail import EmailMultiAlternatives
from django.core.management import call_command
from django.db import connection, transaction

from farm import clock
from farm import lifecycle as farm_lifecycle
from farm.lifecycle import moving
from farm.models import Instance, Transition
from farm.states import Goal, Kind, Status
from presspass import idleness, lifecycle
from presspass.models import Notice, Plan, Run, Subscription, User
from tests.factories import AnsweringHost, HostFactory, UserFactory, fill_vault, instance
from tests.recycling.conftest import DAY, heard, run

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
DAYS = timedelta(days=1)


def kinds():
    return sorted(Notice.objects.values_list("kind", flat=True))


# --- 24 hours ---------------------------------------------------------------------------------------------------------


def test_a_second_before_24_h_it_stays(running):
    running(quiet=DAY - SECOND)
    assert run().recycled == []


def test_a_second_after_24_h_it_goes(running):
    row = running(quiet=DAY + SECOND)
    assert run().recycled == [row.pk]


def test_a_heartbeat_every_second_and_nothing_else_is_idle(answering):
    row = answering.obey(instance())
    Instance.objects.filter(pk=row.pk).update(connection="no account", activity_at=clock.now())
    with clock.moved(DAY - 60 * SECOND):
        for _ in range(120):
            clock.move(SECOND)
            beat = {"at": clock.now().timestamp(), "positions": 0, "orders": 0, "balance": 0.0}
            answering.survey(answering.line(row, connection="no account", heartbeat=beat))
        row.refresh_from_db()
        assert clock.now() - row.heartbeat_at < timedelta(seconds=30)
        assert run().recycled == [row.pk]


def test_an_open_position_and_nothing_else_is_not_idle(answering):
    fill_vault(1)
    row = answering.obey(instance())
    Instance.objects.filter(pk=row.pk).update(activity_at=clock.now())
    with clock.moved(DAY + 60 * SECOND):
        beat = {"at": clock.now().timestamp(), "positions": 1, "orders": 0, "balance": 0.0}
        answering.survey(answering.line(row, heartbeat=beat))
        assert run().recycled == []


def test_activity_that_arrives_while_it_is_being_recycled_keeps_it(running, monkeypatch):
    row = running(quiet=DAY + SECOND)
    real = farm_lifecycle.recycle

    def too_late(ids, **words):
        farm_lifecycle.touch(row.customer_id)
        return real(ids, **words)

    monkeypatch.setattr(farm_lifecycle, "recycle", too_late)
    assert run().recycled == []
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_a_clock_that_goes_back_recycles_and_warns_nobody(running):
    running(quiet=timedelta(hours=17))
    with clock.moved(-timedelta(days=3)):
        found = run()
    assert (found.recycled, found.warned, found.ended) == ([], [], [])


def test_a_clock_that_went_back_does_not_undo_what_was_told(running):
    running(quiet=timedelta(hours=19))
    run()
    with clock.moved(-timedelta(hours=1)):
        run()
    run()
    assert kinds() == ["idle warning"]


# --- never ------------------------------------------------------------------------------------------------------------


def successor_of(row, **changes):
    return Instance.objects.create(
        customer=row.customer, kind=Kind.LIVE, status=Status.WAITING, folder="next", replaces=row, **changes
    )


def test_what_is_going_live_stays(running):
    row = running(quiet=2 * DAY, ends_at=clock.now() - SECOND)
    successor_of(row)
    found = run()
    assert (found.recycled, found.ended) == ([], [])
    assert found.spared == {"going live": 1}


def test_an_upgrade_that_starts_in_the_same_second_wins(running, monkeypatch):
    row = running(quiet=2 * DAY)
    real = farm_lifecycle.recycle

    def beaten(ids, **words):
        successor_of(row)
        return real(ids, **words)

    monkeypatch.setattr(farm_lifecycle, "recycle", beaten)
    assert run().recycled == []


def test_what_is_paid_for_stays(running):
    row = running(quiet=2 * DAY, ends_at=clock.now() - SECOND)
    plan = Plan.objects.first() or Plan.objects.create(key="x", name="X", cents=100)
    Subscription.objects.create(
        customer=row.customer, plan=plan, cents=100, stripe_customer="c", stripe_subscription="s",
        status="active", period_end=clock.now() + DAYS,
    )  # fmt: skip
    found = run()
    assert (found.recycled, found.ended, found.spared) == ([], [], {"paid for": 1})


def test_a_live_one_stays_whatever_its_row_says(running):
    running(quiet=9 * DAYS, kind=Kind.LIVE, ends_at=clock.now() - DAYS, warn_end_at=clock.now() - DAYS)
    found = run()
    assert (found.recycled, found.ended, found.warned) == ([], [], [])


# --- 7 days -----------------------------------------------------------------------------------------------------------


def test_the_end_is_7_days_after_the_first_start(running):
    row = running()
    run()
    row.refresh_from_db()
    assert row.ends_at - row.first_running_at == timedelta(days=7)
    assert row.warn_end_at - row.first_running_at == timedelta(days=5)


def test_a_press_pass_ends_at_7_days_and_not_before(running):
    row = running()
    run()
    left = Instance.objects.get().ends_at - clock.now()
    with clock.moved(left - SECOND):
        Instance.objects.update(activity_at=clock.now())
        assert run().ended == []
    with clock.moved(left + SECOND):
        Instance.objects.update(activity_at=clock.now())
        assert run().ended == [row.pk]
    line = Transition.objects.filter(instance=row).latest("pk")
    assert (line.became, line.why, line.who) == (Status.DESTROYING, "its days are over", "press_pass_end")


def test_it_is_told_2_days_and_1_day_before_and_no_third_time(running):
    running()
    run()
    for hours in range(4 * 24, 7 * 24, 5):
        with clock.moved(timedelta(hours=hours)):
            Instance.objects.update(activity_at=clock.now())
            run()
    assert kinds() == ["end warning", "end warning"]
    before = [round((Instance.objects.get().ends_at - made).total_seconds() / 3600) for made in
              Notice.objects.order_by("pk").values_list("created_at", flat=True)]  # fmt: skip
    assert 43 <= before[0] <= 48
    assert 19 <= before[1] <= 24


def test_after_a_long_silence_one_warning_is_enough(running):
    running(ends_at=clock.now() + timedelta(hours=3), warn_end_at=clock.now() - timedelta(hours=45))
    run()
    run()
    assert kinds() == ["end warning"]


def test_days_that_end_inside_the_24_h_are_what_is_told(running):
    """7 days are over two hours before 24 h without activity would be: the date of the latter would be false."""
    now = clock.now()
    row = running(quiet=timedelta(hours=19), ends_at=now + timedelta(hours=3), warn_end_at=now - SECOND)
    run()
    assert kinds() == ["end warning"]
    with clock.moved(timedelta(hours=3, seconds=1)):
        found = run()
    assert (found.ended, found.recycled) == ([row.pk], [])


@pytest.mark.parametrize("status", [Status.FAILED, Status.STARTING, Status.LOST, Status.STOPPED])
def test_days_that_are_over_end_it_whatever_it_is_doing(running, status):
    row = running(status=status, ends_at=clock.now() - SECOND, attempts=5)
    assert run().ended == [row.pk]
    row.refresh_from_db()
    assert (row.goal, row.attempts) == (Goal.DESTROYED, 0)


def test_one_in_line_whose_days_are_over_leaves_it(db):
    row = instance()
    Instance.objects.filter(pk=row.pk).update(ends_at=clock.now() - SECOND)
    assert run().ended == [row.pk]
    row.refresh_from_db()
    assert row.status == Status.DESTROYED


def test_a_second_terminal_ends_when_the_first_would_have(answering, customer):
    first = answering.obey(instance(customer))
    farm_lifecycle.end(first.pk, why="test", who="test")
    answering.obey(first)
    with clock.moved(timedelta(days=3)):
        heard()
        second = lifecycle.start_again(customer)
    first.refresh_from_db()
    assert second.ends_at - first.first_running_at == timedelta(days=7)
    assert second.warn_end_at == second.ends_at - timedelta(days=2)


def test_renewed_it_goes_on_for_so_many_days_more(running, customer):
    row = running(customer=customer)
    run()
    row.refresh_from_db()
    lifecycle.renew(customer, days=3, who="staff:1")
    anew = Instance.objects.get().ends_at
    assert anew - row.ends_at == timedelta(days=3)
    assert User.objects.get(pk=customer.pk).pass_ends_at == anew


# --- told -------------------------------------------------------------------------------------------------------------


def test_it_is_told_six_hours_before_and_once(running):
    row = running(quiet=timedelta(hours=18) - SECOND)
    assert run().warned == []
    with clock.moved(2 * SECOND):
        found = run()
        assert found.warned == [{"instance": row.pk, "of": "idle", "at": (row.activity_at + DAY).isoformat()}]
        assert run().warned == []
    assert kinds() == ["idle warning"]


def test_it_is_told_again_when_it_falls_silent_again(running):
    row = running(quiet=timedelta(hours=19))
    run()
    farm_lifecycle.touch(row.customer_id)
    with clock.moved(timedelta(hours=19)):
        run()
    assert kinds() == ["idle warning", "idle warning"]


def test_an_open_position_needs_no_warning(running):
    running(quiet=timedelta(hours=19), facts={"positions": 1})
    assert run().warned == []


def test_a_host_that_is_silent_does_not_keep_its_customers_from_being_told(running):
    row = running(quiet=timedelta(hours=19))
    heard()
    with clock.moved(timedelta(minutes=10)):
        assert [one["instance"] for one in lifecycle.recycle_idle(older_than=DAY).warned] == [row.pk]


def test_a_mail_server_that_is_down_neither_stops_the_run_nor_loses_the_warning(running, monkeypatch):
    soon, idle = running(quiet=timedelta(hours=19)), running(quiet=DAY + SECOND)
    monkeypatch.setattr(EmailMultiAlternatives, "send", lambda self: 1 / 0)
    assert run().recycled == [idle.pk]
    assert lifecycle.send_due() == 0
    monkeypatch.undo()
    with clock.moved(timedelta(minutes=1)):
        assert lifecycle.send_due() == 1
    assert Notice.objects.get(kind="idle warning").customer_id == soon.customer_id


def test_a_warning_that_is_overtaken_is_not_sent(running, mailoutbox):
    row = running(quiet=timedelta(hours=19))
    run()
    farm_lifecycle.touch(row.customer_id)
    assert lifecycle.send_due() == 0
    assert mailoutbox == []
    assert Notice.objects.get().next_at is None


# --- the run itself ---------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_a_run_then_does_and_changes_nothing(running):
    now = clock.now()
    running(quiet=timedelta(hours=19))
    running(quiet=DAY + SECOND)
    running(ends_at=now - SECOND)
    running(ends_at=now + timedelta(hours=20), warn_end_at=now - SECOND)
    before = list(Instance.objects.order_by("pk").values())
    dry = run(dry_run=True)
    assert list(Instance.objects.order_by("pk").values()) == before
    assert Notice.objects.count() == Run.objects.count() == 0
    wet = run()
    assert dry.warned == wet.warned
    assert (dry.over, dry.idle) == (wet.ended, wet.recycled)


def test_a_dry_run_names_who_in_line_would_get_what_comes_free(answering):
    HostFactory._meta.model.objects.update(slots=0)
    present, away = instance(), instance()
    Instance.objects.filter(pk=away.pk).update(watched_at=clock.now() - timedelta(hours=1))
    HostFactory._meta.model.objects.update(slots=2)
    found = run(dry_run=True)
    assert found.served == [{"instance": present.pk, "held": False}, {"instance": away.pk, "held": True}]
    assert run().served_count == 2
    assert Instance.objects.get(pk=away.pk).held_until is not None


def test_the_words_of_a_dry_run_name_each_row(running):
    rows = [running(quiet=timedelta(hours=19)), running(quiet=DAY + SECOND), running(ends_at=clock.now() - SECOND)]
    heard()
    out = io.StringIO()
    call_command("recycle_idle", "--dry-run", stdout=out)
    for row in rows:
        assert str(row.pk) in out.getvalue()


def test_the_json_is_one_object_with_all_of_it(running):
    running(quiet=timedelta(hours=19))
    heard()
    out = io.StringIO()
    call_command("recycle_idle", "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert {"warned", "ended", "recycled", "spared", "withdrawn", "served", "failed"} <= found.keys()


def test_a_row_that_cannot_be_judged_stops_nothing(running, caplog):
    poison, good = running(quiet=DAY + SECOND), running(quiet=DAY + SECOND)
    Instance.objects.filter(pk=poison.pk).update(facts=["not", "facts"])
    found = run()
    assert (found.recycled, found.failed) == ([good.pk], [poison.pk])
    assert "could not be judged" in caplog.text


def test_a_row_that_cannot_be_taken_stops_nothing(running, monkeypatch, caplog):
    poison, good = running(quiet=DAY + SECOND), running(quiet=DAY + SECOND)
    real = moving.move_many

    def breaks(rows, to, **words):
        if any(row.pk == poison.pk for row in rows):
            raise RuntimeError("poison")
        return real(rows, to, **words)

    monkeypatch.setattr(moving, "move_many", breaks)
    found = run()
    assert (found.recycled, found.failed) == ([good.pk], [poison.pk])


def test_a_run_leaves_word_that_it_ran(running):
    running(quiet=DAY + SECOND)
    run()
    row = Run.objects.get(name="recycle_idle")
    assert row.started_at <= row.finished_at
    assert row.counts["recycled"] == 1


def test_one_ring_for_a_batch(running, monkeypatch, django_capture_on_commit_callbacks):
    for _ in range(5):
        running(quiet=DAY + SECOND)
    heard()
    rung = []
    monkeypatch.setattr("farm.doorbell.ring", lambda task, *args, **words: rung.append(task))
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.recycle_idle(older_than=DAY)
    assert rung.count("farm.sweep") == 1


def test_more_in_a_batch_is_no_more_queries(running, django_assert_max_num_queries):
    def queries(number):
        for _ in range(number):
            running(quiet=DAY + SECOND)
            running(quiet=timedelta(hours=19))
        heard()
        with django_assert_max_num_queries(1000) as counted:
            lifecycle.recycle_idle(older_than=DAY)
        return len(counted)

    HostFactory._meta.model.objects.update(slots=60)
    queries(1)
    assert queries(1) == queries(12)


@pytest.mark.django_db(transaction=True)
def test_two_runs_at_once_take_and_tell_each_row_once():
    answering = AnsweringHost(HostFactory.create(slots=40))
    rows = [answering.obey(instance()) for _ in range(12)]
    now = clock.now()
    Instance.objects.update(connection="no account", activity_at=now - DAY - SECOND)
    Instance.objects.filter(pk__in=[row.pk for row in rows[:6]]).update(activity_at=now - timedelta(hours=19))
    found, barrier = [], threading.Barrier(2)

    def one():
        barrier.wait()
        try:
            found.append(lifecycle.recycle_idle(older_than=DAY))
        finally:
            connection.close()

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pk for one in found for pk in one.recycled) == [row.pk for row in rows[6:]]
    assert sorted(told["instance"] for one in found for told in one.warned) == [row.pk for row in rows[:6]]
    assert Notice.objects.filter(kind="idle warning").count() == 6


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgres
def test_a_row_that_somebody_else_holds_is_left_to_them_and_not_waited_for():
    answering = AnsweringHost(HostFactory.create())
    rows = [answering.obey(instance(UserFactory.create())) for _ in range(2)]
    Instance.objects.update(connection="no account", activity_at=clock.now() - DAY - SECOND)
    locked, done = threading.Event(), threading.Event()

    def holds():
        try:
            with transaction.atomic():
                Instance.objects.select_for_update().get(pk=rows[0].pk)
                locked.set()
                done.wait(20)
        finally:
            connection.close()

    thread = threading.Thread(target=holds)
    thread.start()
    try:
        assert locked.wait(20)
        assert lifecycle.recycle_idle(older_than=DAY).recycled == [rows[1].pk]
    finally:
        done.set()
        thread.join()


def test_the_evidence_names_date_reason_and_what_speaks_against_it(running):
    row = running(quiet=timedelta(hours=30), facts={"positions": 1})
    said = idleness.evidence(idleness.known(row), now=clock.now(), idle_after=DAY, host_fresh=timedelta(seconds=30))
    assert f"{row.activity_at + DAY:%Y-%m-%d %H:%M:%S} UTC" in said
    assert f"the last activity was {row.activity_at:%Y-%m-%d %H:%M:%S} UTC" in said
    assert "open positions" in said
    assert "once in 60 s" in said
