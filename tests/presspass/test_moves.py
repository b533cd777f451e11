"""A customer's machine falls silent, is lost or is left: the page, the mails, one per fact, and none that is not so."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta

import pytest

from farm import clock, lifecycle
from farm.agent import keeping, protocol
from farm.lifecycle import draining
from farm.models import Host, Instance, Keepsake, Transition, Watch
from farm.states import Connection, Refusal, Status
from presspass import lifecycle as customers
from presspass.lifecycle import coming
from presspass.models import Notice
from presspass.telling import elsewhere
from tests.factories import AnsweringHost, HostFactory, fill_vault, instance
from tests.farm.test_living import go_live, proof, to_start

pytestmark = pytest.mark.django_db

LEASE, STOP, DRIFT = 120, 30, 15
FENCE = LEASE + STOP + DRIFT


@pytest.fixture(autouse=True)
def _rules(settings):
    settings.LEASE_SECONDS, settings.DRIFT_SECONDS = LEASE, DRIFT
    with clock.moved(timedelta()):
        yield


def leased(**fields):
    until = clock.now() + timedelta(seconds=LEASE)
    return AnsweringHost(
        HostFactory.create(policy="fenced", said_policy="fenced", fenced_until=until, stop_seconds=STOP, **fields)
    )


@pytest.fixture
def dark():
    """The one that is going to fall silent; it has the most room."""
    return leased(slots=30)


@pytest.fixture
def other(dark):
    return leased()


@pytest.fixture
def demo(dark, customer):
    return dark.obey(instance(customer))


@pytest.fixture
def live(dark, demo, other):
    row = go_live(dark, demo)
    dark.obey(Instance.objects.get(pk=demo.pk))
    Notice.objects.update(sent_at=clock.now(), next_at=None)
    customers.notice_news()
    Notice.objects.update(sent_at=clock.now(), next_at=None)
    return row


def page(browser):
    return " ".join(browser.get("/terminal/").content.decode().split())


def pass_by(*silent, **time):
    """Time goes by, and all other hosts speak."""
    clock.move(timedelta(**time))
    Host.objects.exclude(pk__in=[one.host.pk for one in silent]).update(surveyed_at=clock.now())


def lose(dark):
    pass_by(dark, seconds=FENCE + 1)
    lifecycle.give_up_host(dark.host.pk, who="watch")


def successor_of(row):
    return Instance.objects.filter(kind=row.kind).latest("pk")


def send():
    customers.tell_of_silence()
    customers.notice_news()
    customers.send_due()


def subjects(mailoutbox):
    return [mail.subject for mail in mailoutbox]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_of_a_silent_host_says_when_the_fence_is_over(live, dark, signed_in):
    dark.host.refresh_from_db()
    until = dark.host.fenced_until + timedelta(seconds=STOP + DRIFT)
    pass_by(dark, seconds=40)
    text = page(signed_in)
    assert "Your terminal was running when its machine last reported" in text
    assert re.search(f"surely stopped: [a-z]+ {until:%H:%M} UTC", text)
    assert "Your terminal is running" not in text


def test_the_page_promises_no_time_while_the_brake_is_on(live, dark, signed_in):
    pass_by(dark, seconds=40)
    Watch.objects.update_or_create(pk=1, defaults={"brake_why": "3 of 4 hosts went silent"})
    text = page(signed_in)
    assert "surely stopped" not in text
    assert "A person looks at it first" in text


def test_the_page_promises_no_time_for_a_host_that_nothing_fences(live, dark, signed_in):
    Host.objects.filter(pk=dark.host.pk).update(policy="static")
    pass_by(dark, seconds=400)
    assert "a person makes sure that it is off" in page(signed_in)


def test_a_demo_without_an_account_comes_up_elsewhere_after_a_minute(demo, dark, signed_in, settings):
    at = Host.objects.get(pk=dark.host.pk).surveyed_at + timedelta(seconds=settings.MOVE_SECONDS)
    pass_by(dark, seconds=40)
    assert re.search(f"comes up on another one: [a-z]+ {at:%H:%M} UTC", page(signed_in))


def test_the_page_goes_on_with_the_one_that_comes_up_and_shows_nothing_beside(live, dark, other, signed_in):
    lose(dark)
    text = page(signed_in)
    assert "Your terminal comes up on another machine." in text
    assert "Your live terminal so far" not in text
    other.obey(successor_of(live))
    text = page(signed_in)
    assert "Your terminal is running." in text
    assert "the one before went down" in text
    assert "What you had made in it is not kept anywhere else" in text


def test_when_the_lost_machine_is_back_what_goes_there_is_none_of_the_customers_business(
    live, dark, other, signed_in, mailoutbox
):
    lose(dark)
    other.obey(successor_of(live))
    pass_by(seconds=5)
    lifecycle.sweep()
    old = Instance.objects.get(pk=live.pk)
    assert old.status == Status.DESTROYING
    text = page(signed_in)
    assert "so far" not in text
    dark.obey(old)
    send()
    assert [one for one in subjects(mailoutbox) if "recycled" in one or "ended" in one or "gone" in one] == []
    assert "Your terminal is running." in page(signed_in)


def test_the_age_of_what_came_along_is_the_keepsakes(live, dark, other, signed_in):
    made = clock.now()
    Keepsake.objects.create(customer_id=live.customer_id, from_instance=live, data=b"x", size=1, digest="d")
    lose(dark)
    assert re.search(f"come along as of [a-z ]*{made:%H:%M} UTC", page(signed_in))
    new = other.obey(successor_of(live))
    assert re.search(f"Your profiles and settings are as of [a-z ]*{made:%H:%M} UTC", page(signed_in))
    Keepsake.objects.update(from_instance=new, made_at=clock.now())
    assert "profiles and settings" not in page(signed_in)


# --- the mails --------------------------------------------------------------------------------------------------------


def test_a_silence_is_no_news_while_it_is_short(live, dark, mailoutbox):
    pass_by(dark, seconds=FENCE)
    send()
    assert mailoutbox == []


def test_one_that_runs_again_within_the_minute_is_one_mail(live, dark, other, mailoutbox):
    lose(dark)
    send()
    other.obey(successor_of(live))
    pass_by(dark, seconds=90)
    send()
    assert subjects(mailoutbox) == ["Your live terminal runs again, on another machine"]
    assert "The machine it ran on before is down. It last reported" in mailoutbox[0].body


def test_one_that_does_not_is_told_that_its_machine_is_down_and_then_that_it_runs(live, dark, other, mailoutbox):
    lose(dark)
    send()
    pass_by(dark, seconds=61)
    send()
    send()
    assert subjects(mailoutbox) == ["The machine your terminal ran on is down"]
    assert "its old copy is surely stopped" in mailoutbox[0].body
    other.obey(successor_of(live))
    send()
    assert subjects(mailoutbox)[1:] == ["Your live terminal runs again, on another machine"]


def test_the_mail_says_how_old_what_came_along_is(live, dark, other, mailoutbox):
    made = clock.now()
    Keepsake.objects.create(customer_id=live.customer_id, from_instance=live, data=b"x", size=1, digest="d")
    lose(dark)
    other.obey(successor_of(live))
    send()
    assert f"Your profiles and settings are as of {made:%a} {made.day} {made:%b} {made.year} {made:%H:%M} UTC" in (
        mailoutbox[0].body
    )


def test_a_host_that_could_not_bring_it_makes_no_promise_come_true(live, dark, other, mailoutbox, signed_in):
    Keepsake.objects.create(customer_id=live.customer_id, from_instance=live, data=b"x", size=1, digest="d")
    lose(dark)
    new = other.obey(successor_of(live))
    cloned = Transition.objects.filter(instance=new, was=Status.CLONING)
    cloned.update(why="clone done; without its keepsake: it took too long")
    send()
    assert "could not be brought over" in mailoutbox[0].body
    assert "could not be brought over" in page(signed_in)


def test_a_demo_that_comes_up_on_another_account_is_told_so(customer, mailoutbox, signed_in):
    fill_vault(2)
    dark, other = leased(slots=30), leased()
    row = dark.obey(instance(customer))
    customers.notice_news()
    lose(dark)
    new = other.obey(successor_of(row))
    assert new.account_id != row.account_id
    send()
    assert subjects(mailoutbox) == ["Your terminal runs again, on another machine"]
    assert "It has another demo account now" in mailoutbox[0].body
    assert "It has another demo account now" in page(signed_in)


def test_one_that_never_ran_is_no_news_when_its_machine_is_lost(customer, mailoutbox, signed_in):
    dark, other = leased(slots=30), leased()
    row = instance(customer)
    lose(dark)
    assert "down" not in page(signed_in).replace("download", "")
    other.obey(successor_of(row))
    send()
    assert mailoutbox == []


def test_one_that_was_ending_is_no_news_when_its_machine_is_lost(demo, dark, other, mailoutbox, signed_in):
    customers.end(demo.customer, demo.pk)
    lose(dark)
    pass_by(dark, seconds=90)
    send()
    assert mailoutbox == []
    assert "You ended your Press Pass." in page(signed_in)


def test_a_broker_that_says_no_on_the_new_machine_is_not_said_to_leave_the_old_one_running(dark, other, mailoutbox):
    live_row = go_live(dark, dark.obey(instance()))
    customers.notice_news()
    Instance.objects.filter(pk=live_row.pk).update(proven_at=None)
    Notice.objects.update(next_at=None)
    lose(dark)
    new = successor_of(live_row)
    Instance.objects.filter(pk=new.pk).update(replaces=live_row)
    other.answer(to_start(other, new), connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS)
    send()
    refused = [mail for mail in mailoutbox if "refused the login" in mail.subject]
    assert len(refused) == 1
    assert "so nothing runs now" in refused[0].body
    assert "What ran before runs on" not in refused[0].body


# --- a live one whose machine stays silent and is not given up --------------------------------------------------------


def test_a_long_silence_is_told_once_and_that_it_is_over(live, dark, mailoutbox):
    pass_by(dark, minutes=11)
    send()
    assert mailoutbox == []  # it may be ours: looked at again in two minutes
    for _ in range(4):
        pass_by(dark, minutes=2)
        send()
    assert subjects(mailoutbox) == ["We hear nothing from the machine your live terminal runs on"]
    assert "One account never runs twice" in mailoutbox[0].body
    for _ in range(2):
        pass_by(minutes=2)
        send()
    assert subjects(mailoutbox)[1:] == ["Your live terminal runs: we hear from its machine again"]


def test_a_silence_that_was_our_own_is_told_to_nobody(live, dark, mailoutbox):
    pass_by(dark, minutes=11)
    send()
    for _ in range(5):
        pass_by(minutes=1)
        send()
    assert mailoutbox == []
    assert not Notice.objects.filter(next_at__isnull=False).exists()


def test_after_a_long_silence_the_loss_is_told_and_not_that_it_was_heard(live, dark, other, mailoutbox):
    for _ in range(3):
        pass_by(dark, minutes=11)
        send()
    lose(dark)
    other.obey(successor_of(live))
    for _ in range(3):
        pass_by(minutes=2)
        send()
    assert subjects(mailoutbox) == [
        "We hear nothing from the machine your live terminal runs on",
        "Your live terminal runs again, on another machine",
    ]


def test_demos_are_not_told_of_a_silence(demo, dark, mailoutbox):
    for _ in range(3):
        pass_by(dark, minutes=11)
        send()
    assert mailoutbox == []


# --- moved by a drain -------------------------------------------------------------------------------------------------


def drain(dark):
    """Asked for its keepsake, a Press Pass leaves with the next step; a live one at once."""
    lifecycle.drain(dark.host.pk, forced=True, who="staff:1")
    pass_by(seconds=1)
    lifecycle.drain_on()


def test_the_words_that_a_drain_leaves_in_the_journal_are_the_ones_that_are_looked_for():
    assert coming.MOVED == draining.WHY


def test_a_live_one_that_is_moved_is_told_on_the_page_and_by_one_mail(live, dark, other, signed_in, mailoutbox):
    drain(dark)
    text = page(signed_in)
    assert "Your terminal moves to another machine." in text
    assert "so far" not in text
    assert "down" not in text
    dark.obey(Instance.objects.get(pk=live.pk))
    new = successor_of(live)
    other.answer(to_start(other, new), **proof())
    send()
    assert subjects(mailoutbox) == ["Your live terminal was moved to another machine"]
    assert "is being emptied, for its upkeep" in mailoutbox[0].body
    dark.obey(Instance.objects.get(pk=live.pk))
    pass_by(minutes=3)
    send()
    assert len(mailoutbox) == 1
    text = page(signed_in)
    assert "Your terminal is running." in text
    assert "the one before was emptied for its upkeep" in text


def test_a_demo_that_is_moved_is_not_told_that_it_was_recycled(demo, dark, other, signed_in, mailoutbox):
    drain(dark)
    assert "Your terminal moves to another machine." in page(signed_in)
    other.obey(successor_of(demo))
    dark.obey(Instance.objects.get(pk=demo.pk))
    send()
    assert subjects(mailoutbox) == ["Your terminal was moved to another machine"]
    assert "recycled" not in page(signed_in)


def test_a_new_login_of_the_customers_own_is_no_move(live, dark, other, signed_in, customer, mailoutbox):
    new = lifecycle.go_on(customer_id=customer.pk, account=live.account, replaces=live, who=f"customer:{customer.pk}")
    dark.obey(Instance.objects.get(pk=live.pk))
    new.refresh_from_db()
    where = dark if new.host_id == dark.host.pk else other
    where.answer(to_start(where, new), **proof())
    send()
    assert [subject.partition(":")[0] for subject in subjects(mailoutbox)] == ["Your live terminal runs"]
    assert "machine" not in page(signed_in).partition("<dl")[0].partition("<h1")[2]


def test_what_a_host_says_of_the_keepsake_stands_in_the_journal(dark, customer):
    row = instance(customer)
    order = dark.claim(row)
    report = protocol.Report(
        host=dark.host.name, instance=row.pk, epoch=order.epoch, generation=order.generation, verb=order.verb,
        outcome=protocol.Outcome.DONE, sent_at=clock.now().timestamp(), observed=dark.line(order),
        detail=f"{elsewhere.WITHOUT_KEEPSAKE}: it took too long",
    )  # fmt: skip
    lifecycle.record(protocol.sign(report, dark.key))
    assert elsewhere.WITHOUT_KEEPSAKE in Transition.objects.get(instance=row, was=Status.CLONING).why
    assert keeping_word() in elsewhere.WITHOUT_KEEPSAKE


def keeping_word():
    """As the agent says it: the two sides share no constant."""
    return re.search(r'return f"(.+?): ', inspect.getsource(keeping.bring))[1]
