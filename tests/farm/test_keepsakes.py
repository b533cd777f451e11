"""Keepsakes at the portal: tickets that are good once, a go-live that waits a little, a destroy that leaves one."""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.test import Client

from bitten_portal.logs import Line
from farm import clock, doorbell, errors, keepsakes, lifecycle, tasks, vault
from farm.agent import archive, courier, protocol
from farm.agent.errors import KeepsakeTrouble
from farm.agent.protocol import Outcome, Process, Reason, Verb
from farm.models import BrokerAccount, Instance, Keepsake, Ticket
from farm.states import Goal, Kind, Status
from tests.factories import AnsweringHost, HostFactory, UserFactory, instance

pytestmark = pytest.mark.django_db

EMPTY = b"PK\x05\x06" + bytes(18)
MADE = b"PK\x03\x04 what the customer made"
PUT, GET = Ticket.Direction.PUT, Ticket.Direction.GET
WAIT = 10.0


@pytest.fixture(autouse=True)
def _wait(settings):
    settings.KEEPSAKE_WAIT_SECONDS = WAIT


@pytest.fixture
def host():
    return HostFactory.create()


@pytest.fixture
def answering(host):
    return AnsweringHost(host)


@pytest.fixture
def demo(answering):
    return answering.obey(instance())


@pytest.fixture
def rung(monkeypatch, django_capture_on_commit_callbacks):
    """What was rung for, with what."""
    rings: list[tuple[object, ...]] = []
    monkeypatch.setattr(doorbell, "ring", lambda *args, **kwargs: rings.append(args) or True)
    return rings


def path(url):
    return urlsplit(url).path


def token(url):
    return path(url).split("/")[2]


def bring(url, data=MADE, digest=None, **more):
    headers = {"X-Keepsake-SHA256": digest or hashlib.sha256(data).hexdigest()}
    return Client().put(path(url), data, content_type="application/zip", headers=headers, **more)


def fetch(url):
    return Client().get(path(url))


def keep(row, data=MADE):
    assert bring(keepsakes.issue(row, PUT), data).status_code == 204
    return Keepsake.objects.get(customer=row.customer_id)


def later(**about):
    return clock.moved(timedelta(**about))


def fresh(row):
    return Instance.objects.get(pk=row.pk)


# --- what a ticket is not good for ------------------------------------------------------------------------------------


def test_without_a_ticket_nothing_is_taken_and_nothing_given(demo):
    kept = keep(demo)
    for made_up in ("x", "0", kept.digest, Ticket.objects.get().token_hash):
        assert bring(f"http://portal/keepsake/{made_up}/").status_code == 404
        assert fetch(f"http://portal/keepsake/{made_up}/").status_code == 404


def test_a_ticket_is_good_once(demo):
    put = keepsakes.issue(demo, PUT)
    assert bring(put).status_code == 204
    assert bring(put, MADE + b" again").status_code == 404
    get = keepsakes.issue(demo, GET)
    assert fetch(get).content == MADE
    assert fetch(get).status_code == 404
    assert Keepsake.objects.get().size == len(MADE)


def test_a_ticket_is_good_in_one_direction(demo):
    keep(demo)
    assert bring(keepsakes.issue(demo, GET)).status_code == 404
    assert fetch(keepsakes.issue(demo, PUT)).status_code == 404


def test_a_ticket_is_good_for_ten_minutes(demo):
    keep(demo)
    put, get = keepsakes.issue(demo, PUT), keepsakes.issue(demo, GET)
    with later(minutes=10):
        assert bring(put).status_code == 404
        assert fetch(get).status_code == 404
    with later(minutes=9, seconds=50):
        assert bring(put).status_code == 204
        assert fetch(get).status_code == 200


def test_a_ticket_gives_and_takes_only_its_own_customers(demo, answering):
    other = answering.obey(instance())
    keep(demo)
    keep(other, MADE + b" by another")
    assert fetch(keepsakes.issue(demo, GET)).content == MADE
    assert fetch(keepsakes.issue(other, GET)).content == MADE + b" by another"


def test_of_a_customer_without_a_keepsake_nothing_is_given(demo):
    assert fetch(keepsakes.issue(demo, GET)).status_code == 404


def test_what_is_too_large_is_refused_and_not_kept(demo, settings):
    settings.KEEPSAKE_MOST_BYTES = 100
    put = keepsakes.issue(demo, PUT)
    assert bring(put, MADE + bytes(100)).status_code == 413
    with pytest.raises(errors.TooBig):
        keepsakes.accept(token(put), MADE + bytes(100), digest="")
    assert not Keepsake.objects.exists()
    assert bring(put, MADE + bytes(100 - len(MADE))).status_code == 204


def test_what_is_no_archive_or_was_changed_on_its_way_is_refused_and_the_ticket_stays_good(demo):
    put = keepsakes.issue(demo, PUT)
    assert bring(put, b"MZ").status_code == 400
    assert bring(put, b"").status_code == 400
    assert bring(put, digest="0" * 64).status_code == 400
    assert not Keepsake.objects.exists()
    assert bring(put).status_code == 204


def test_what_comes_without_a_ticket_is_not_even_read(monkeypatch, client):
    monkeypatch.setattr(lifecycle, "accept_keepsake", lambda *args, **kwargs: pytest.fail("it was read"))
    assert bring("http://portal/keepsake/nobody/").status_code == 404


@pytest.mark.parametrize("method", ["head", "post", "delete", "options"])
def test_nothing_else_is_answered_and_uses_a_ticket_up(demo, method):
    keep(demo)
    get = keepsakes.issue(demo, GET)
    assert getattr(Client(), method)(path(get)).status_code == 405
    assert fetch(get).status_code == 200


def test_answers_carry_no_cookie_and_are_kept_by_no_cache(demo):
    for answer in (bring(keepsakes.issue(demo, PUT)), fetch(keepsakes.issue(demo, GET))):
        assert not answer.cookies
        assert "no-store" in answer["Cache-Control"]


def test_a_signed_in_browser_is_treated_as_any_host(demo):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(demo.customer)
    put = keepsakes.issue(demo, PUT)
    headers = {"X-Keepsake-SHA256": hashlib.sha256(MADE).hexdigest()}
    assert browser.put(path(put), MADE, content_type="application/zip", headers=headers).status_code == 204


def test_tokens_stand_in_no_table_and_no_log_line(demo, caplog):
    caplog.set_level(logging.DEBUG)
    tokens = []
    for _ in range(2):
        url = keepsakes.issue(demo, PUT)
        tokens.append(token(url))
        bring(url, b"MZ")
        bring(url)
        bring(url)
    lines = [Line().format(record) for record in caplog.records]
    assert lines
    for word in tokens:
        assert not [line for line in lines if word in line]
        assert not Ticket.objects.filter(token_hash__contains=word).exists()


def test_hosts_are_told_the_address_that_is_theirs(demo, settings):
    settings.PORTAL_URL_FOR_HOSTS = "http://portal.internal:8000"
    assert keepsakes.issue(demo, PUT).startswith("http://portal.internal:8000/keepsake/")


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_newest_replaces_the_one_before(demo):
    keep(demo)
    with later(hours=1):
        kept = keep(demo, MADE + b" since")
    assert kept.made_at > clock.now() + timedelta(minutes=59)
    assert Keepsake.objects.count() == 1
    assert bytes(kept.data) == MADE + b" since"


def test_one_without_files_replaces_nothing(demo):
    keep(demo, EMPTY)
    keep(demo)
    assert bytes(keep(demo, EMPTY).data) == MADE


def test_after_its_days_it_is_neither_given_nor_kept(demo, settings):
    keep(demo)
    with later(days=settings.KEEPSAKE_DAYS):
        assert not keepsakes.is_kept(demo.customer_id)
        assert fetch(keepsakes.issue(demo, GET)).status_code == 404
        tasks.expire_keepsakes()
    assert not Keepsake.objects.exists()


def test_before_its_days_are_over_it_stays_and_old_tickets_go(demo, settings):
    keep(demo)
    keepsakes.issue(demo, GET)
    with later(days=settings.KEEPSAKE_DAYS, seconds=-30):
        keepsakes.issue(demo, GET)
        assert keepsakes.expire() == 0
    assert Keepsake.objects.exists()
    assert Ticket.objects.count() == 1


# --- a new clone is given it ------------------------------------------------------------------------------------------


def test_a_first_clone_is_given_none(answering):
    assert answering.claim(instance()).keepsake == ""
    assert not Ticket.objects.exists()


def test_the_next_clone_of_the_customer_is_given_it(answering, demo):
    keep(demo)
    lifecycle.end(demo.pk, why="left", who="test")
    answering.obey(demo)
    order = answering.claim(instance(demo.customer))
    assert order.verb is Verb.CLONE
    assert fetch(order.keepsake).content == MADE


def test_a_clone_told_again_is_given_a_new_ticket(answering, demo, settings):
    keep(demo)
    lifecycle.end(demo.pk, why="left", who="test")
    answering.obey(demo)
    row = instance(demo.customer)
    first = answering.claim(row).keepsake
    assert fetch(first).status_code == 200
    with later(seconds=settings.CLAIM_SECONDS + 1):
        again = answering.claim(row).keepsake
        assert again != first
        assert fetch(again).status_code == 200


@pytest.mark.parametrize("verb", [Verb.START, Verb.STOP])
def test_other_orders_name_no_keepsake(answering, demo, verb):
    keep(demo)
    lifecycle.restart(demo.pk, who="test")
    while (order := answering.claim(demo)).verb is not verb:
        answering.answer(order)
    assert order.keepsake == ""


# --- destroy leaves it ------------------------------------------------------------------------------------------------


def test_a_destroy_of_a_press_pass_that_ran_carries_where_to_bring_it(answering, demo):
    lifecycle.end(demo.pk, why="recycled", who="recycle_idle")
    order = answering.claim(demo)
    assert order.verb is Verb.DESTROY
    assert bring(order.keepsake).status_code == 204
    assert Keepsake.objects.get().from_instance == demo


def test_of_one_that_never_ran_nothing_is_wanted(answering):
    row = instance()
    answering.answer(answering.claim(row))
    lifecycle.end(row.pk, why="left", who="test")
    assert answering.claim(fresh(row)).keepsake == ""


def test_a_destroy_is_tried_three_times_with_a_keepsake_and_then_without(answering, demo):
    lifecycle.end(demo.pk, why="recycled", who="recycle_idle")
    wanted = []
    for _ in range(4):
        order = answering.claim(demo)
        wanted.append(bool(order.keepsake))
        answering.answer(order, Outcome.FAILED, Reason.KEEPSAKE)
        assert fresh(demo).status == Status.FAILED
        lifecycle.moving.move(fresh(demo), Status.DESTROYING, why="trying again", who="sweep")
    assert wanted == [True, True, True, False]
    assert answering.obey(demo).status == Status.DESTROYED


def test_a_host_that_never_answers_such_a_destroy_is_told_to_do_it_without_in_the_end(answering, demo, settings):
    lifecycle.end(demo.pk, why="recycled", who="recycle_idle")
    wanted = []
    for turn in range(4):
        with later(seconds=turn * (settings.CLAIM_SECONDS + 1)):
            wanted.append(bool(answering.claim(demo).keepsake))
    assert wanted == [True, True, True, False]


def test_what_failed_before_the_end_was_asked_for_costs_no_keepsake(answering, demo):
    Instance.objects.filter(pk=demo.pk).update(attempts=5)
    lifecycle.end(demo.pk, why="recycled", who="recycle_idle")
    assert answering.claim(demo).keepsake


# --- going live waits for it ------------------------------------------------------------------------------------------


def hold(demo):
    server, login, password = "PaperBroker-Live", 7_000_001, "Right-1aA"
    account = BrokerAccount.objects.create(
        owner=demo.customer, server=server, login=login, password=vault.encrypted(password)
    )
    until = clock.now() + timedelta(minutes=31)
    return lifecycle.hold(customer_id=demo.customer_id, account=account, replaces=demo, until=until, who="test")


def pay(demo):
    row = hold(demo)
    lifecycle.activate(row.pk, who="payment")
    return fresh(row)


def ask(demo):
    """The order to keep, as the demo's host gets it."""
    return protocol.Order.parse(lifecycle.ask_for_keepsake(demo.pk).envelope["body"])


def test_the_demos_host_is_asked_when_it_is_paid_and_not_before(demo, rung, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        row = hold(demo)
    assert (doorbell.KEEP, demo.pk) not in rung
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.activate(row.pk, who="payment")
    assert rung.count((doorbell.KEEP, demo.pk)) == 1


def test_the_order_to_keep_has_the_number_that_the_host_knows_and_changes_nothing(demo):
    before = Instance.objects.filter(pk=demo.pk).values().get()
    order = ask(demo)
    assert (order.verb, order.generation) == (Verb.KEEP, demo.generation)
    assert order.keepsake
    assert Instance.objects.filter(pk=demo.pk).values().get() == before


def test_its_task_sends_it_to_the_hosts_queue(demo, rung, host):
    tasks.keep(demo.pk)
    assert [args[0] for args in rung] == [protocol.OBEY_TASK]
    assert protocol.Order.parse(rung[0][1]["body"]).host == host.name


@pytest.mark.parametrize("status", [Status.STARTING, Status.DESTROYING, Status.DESTROYED, Status.FAILED])
def test_an_instance_on_its_way_to_something_else_is_not_asked(demo, status):
    Instance.objects.filter(pk=demo.pk).update(status=status)
    assert lifecycle.ask_for_keepsake(demo.pk) is None
    assert not Ticket.objects.exists()


def test_the_live_clone_is_not_made_until_the_keepsake_came_and_then_at_once(
    answering, demo, rung, django_capture_on_commit_callbacks
):
    row = pay(demo)
    assert answering.claim(row) is None
    with django_capture_on_commit_callbacks(execute=True):
        assert bring(ask(demo).keepsake).status_code == 204
    assert (doorbell.DISPATCH, row.pk) in rung
    assert fresh(row).next_at <= clock.now()
    order = answering.claim(row)
    assert order.verb is Verb.CLONE
    assert fetch(order.keepsake).content == MADE


def test_it_goes_on_without_when_none_comes_in_time(answering, demo):
    row = pay(demo)
    assert answering.claim(row) is None
    assert fresh(row).next_at == row.status_since + timedelta(seconds=WAIT)
    with later(seconds=WAIT):
        assert answering.claim(row).keepsake == ""


def test_a_sweep_that_put_the_row_off_does_not_make_it_wait_longer(answering, demo):
    row = pay(demo)
    Instance.objects.filter(pk=row.pk).update(next_at=clock.now() + timedelta(seconds=30))
    assert answering.claim(row) is None
    assert fresh(row).next_at == row.status_since + timedelta(seconds=WAIT)


def test_one_that_was_kept_earlier_is_not_taken_for_the_one_that_is_asked_for(answering, demo):
    with later(seconds=-60):
        keep(demo)
    assert answering.claim(pay(demo)) is None


def test_nobody_waits_for_a_demo_that_does_not_run(answering, demo):
    Instance.objects.filter(pk=demo.pk).update(status=Status.FAILED)
    assert answering.claim(pay(demo)).verb is Verb.CLONE


def test_nobody_waits_for_a_host_that_went_quiet(answering, demo, settings):
    row = pay(demo)
    type(answering.host).objects.update(surveyed_at=clock.now() - timedelta(seconds=settings.SURVEY_FRESH_SECONDS + 1))
    assert answering.claim(row).verb is Verb.CLONE


@pytest.mark.parametrize(("outcome", "reason"), [(Outcome.FAILED, Reason.KEEPSAKE), (Outcome.REFUSED, Reason.STALE)])
def test_nobody_waits_any_longer_when_the_host_says_that_it_cannot(answering, demo, outcome, reason):
    row = pay(demo)
    order = ask(demo)
    assert answering.claim(row) is None
    before = Instance.objects.filter(pk=demo.pk).values().get()
    assert answering.answer(order, outcome, reason) is False
    assert Instance.objects.filter(pk=demo.pk).values().get() == before
    assert answering.claim(row).verb is Verb.CLONE


def test_the_report_on_a_keep_that_was_done_is_noted_and_changes_nothing(answering, demo):
    order = ask(demo)
    before = Instance.objects.filter(pk=demo.pk).values().get()
    assert answering.answer(order, process=Process.RUNNING) is False
    assert Instance.objects.filter(pk=demo.pk).values().get() == before
    assert bring(order.keepsake).status_code == 204


def test_a_late_word_on_a_keep_does_not_spoil_the_destroy_that_came_after(answering, demo):
    late = ask(demo)
    lifecycle.end(demo.pk, why="left", who="test")
    order = answering.claim(demo)
    answering.answer(late, Outcome.REFUSED, Reason.STALE)
    assert bring(order.keepsake).status_code == 204


def test_only_the_first_order_of_a_new_instance_waits(answering, demo, settings):
    row = pay(demo)
    with later(seconds=WAIT):
        order = answering.claim(row)
        answering.answer(order, Outcome.FAILED, Reason.MASTER_MISSING)
        lifecycle.retry(row.pk, who="staff:1")
        assert answering.claim(row).verb is Verb.CLONE


def test_where_none_is_asked_for_nothing_waits(answering, demo, settings, rung, django_capture_on_commit_callbacks):
    settings.KEEPSAKE_WAIT_SECONDS = 0
    with django_capture_on_commit_callbacks(execute=True):
        row = pay(demo)
    assert (doorbell.KEEP, demo.pk) not in rung
    assert answering.claim(row).verb is Verb.CLONE


def test_of_a_live_one_that_was_not_let_in_nothing_is_wanted(answering, demo):
    row = pay(demo)
    with later(seconds=WAIT):
        while (order := answering.claim(row)).verb is not Verb.START:
            answering.answer(order)
        refused = {"connection": protocol.Connection.REFUSED, "refusal": protocol.Refusal.CREDENTIALS}
        answering.answer(order, **refused)
        row = fresh(row)
        assert (row.status, row.goal) == (Status.DESTROYING, Goal.DESTROYED)
        assert answering.claim(row).keepsake == ""


def test_of_a_live_one_whose_successor_runs_nothing_is_wanted(answering):
    customer = UserFactory.create()
    old = answering.obey(instance(customer, Kind.LIVE))
    assert old.status == Status.RUNNING
    new = lifecycle.request(customer_id=customer.pk, kind=Kind.LIVE, who="test", replaces=old)
    lifecycle.end(old.pk, why="moves", who="test")
    assert answering.claim(old).keepsake
    Instance.objects.filter(pk=new.pk).update(status=Status.RUNNING)
    with later(minutes=5):
        assert answering.claim(old).keepsake == ""


# --- with the agent ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_host_and_portal_understand_each_other(live_server, settings, answering):
    settings.PORTAL_URL_FOR_HOSTS = live_server.url
    row = answering.obey(instance())
    data = archive.packed({"MQL5/Files/a.bin": os.urandom(4 << 20), "Profiles/a.chr": b"<chart>"})
    courier.upload(keepsakes.issue(row, PUT), data)
    assert courier.download(keepsakes.issue(row, GET)) == data
    settings.KEEPSAKE_MOST_BYTES = 1000
    with pytest.raises(KeepsakeTrouble, match="413"):
        courier.upload(keepsakes.issue(row, PUT), data[:2000])
    with pytest.raises(KeepsakeTrouble, match="404"):
        courier.download(keepsakes.issue(row, PUT))


# --- while a live one runs --------------------------------------------------------------------------------------------


@pytest.fixture
def live(answering, demo):
    row = pay(demo)
    Instance.objects.filter(pk=row.pk).update(proven_at=clock.now(), next_at=clock.now())
    lifecycle.end(demo.pk, why="test", who="test")
    answering.obey(demo)
    with later(seconds=WAIT):
        return answering.obey(row)


def fetched(rung):
    found = [args[1] for args in rung if args[0] == doorbell.KEEP]
    rung.clear()
    return found


def test_the_keepsake_of_a_live_one_is_fetched_every_few_hours_and_not_before(live, host, rung, settings):
    hours = settings.KEEPSAKE_EVERY_HOURS
    asked = []
    for quarter in range(1, 13):
        with later(hours=quarter * hours / 4):
            type(host).objects.update(surveyed_at=clock.now())
            lifecycle.fetch_keepsakes()
            asked.append(fetched(rung).count(live.pk))
    assert (asked[0], sum(asked)) == (0, 3)


def test_that_of_a_demo_is_not(demo, host, rung):
    with later(days=3):
        type(host).objects.update(surveyed_at=clock.now())
        assert lifecycle.fetch_keepsakes() == 0


def test_a_silent_host_is_not_asked_and_one_that_is_back_is(live, host, rung):
    with later(days=1):
        assert lifecycle.fetch_keepsakes() == 0
        type(host).objects.update(surveyed_at=clock.now())
        assert lifecycle.fetch_keepsakes() == 1


@pytest.mark.parametrize("to", [Status.STOPPED, Status.DESTROYING, Status.FAILED, Status.LOST])
def test_one_that_runs_no_more_is_not_due(live, to):
    assert live.keep_due_at is not None
    if to is Status.STOPPED:
        lifecycle.moving.move(live, Status.STOPPING, why="test", who="test")
    lifecycle.moving.move(live, to, why="test", who="test")
    assert fresh(live).keep_due_at is None


def test_a_terminal_that_restarts_by_itself_again_and_again_is_fetched_all_the_same(live):
    due = live.keep_due_at
    with later(hours=1):
        for to in (Status.STARTING, Status.RUNNING):
            lifecycle.moving.move(live, to, why="test", who="test")
        assert fresh(live).keep_due_at == due


def test_switched_off_nothing_is_fetched(answering, demo, settings, rung):
    settings.KEEPSAKE_EVERY_HOURS = 0
    with later(days=1):
        assert lifecycle.fetch_keepsakes() == 0
