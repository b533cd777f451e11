"""After going live: a payment fails, is made up for or not; cancelled, refunded, disputed. Dates told are the rows'."""

from __future__ import annotations

import re
import urllib.request
from datetime import timedelta

import pytest
from django.core import mail

from farm import clock
from farm.models import BrokerAccount
from farm.states import Goal, Status
from presspass import lifecycle, moments
from presspass.billing import refunds, settling, stripe_api
from presspass.errors import StripeSilent
from presspass.models import Notice, Refund, Subscription
from tests.billing.shop import GO_LIVE

pytestmark = pytest.mark.django_db


@pytest.fixture
def live(shop):
    shop.go_live()
    shop.news()
    shop.hear()
    return shop


def fail(shop):
    """The next payment fails."""
    shop.paper.ask(f"subscriptions/{shop.subscription().stripe_subscription}/renew", outcome="failed")
    shop.hear()


def pay(shop):
    shop.paper.ask(f"subscriptions/{shop.subscription().stripe_subscription}/renew", outcome="paid")
    shop.hear()


def stopped(shop):
    fail(shop)
    shop.later(days=7, minutes=1)
    shop.look()
    shop.settle()
    return shop.live()


def charge(shop):
    return [one for one in shop.paper.list("charges") if one["paid"]][-1]["id"]


def sent():
    mail.outbox.clear()
    lifecycle.send_due()
    return mail.outbox


def test_a_failed_payment_is_told_with_the_day_until_which_it_runs_on(live):
    fail(live)
    row = live.subscription()
    assert (row.status, live.live().status) == ("past_due", Status.RUNNING)
    assert row.grace_until - clock.now() > timedelta(days=6, hours=23)
    assert live.news()[-1] == "payment failed"
    until = moments.at(row.grace_until, now=clock.now(), zone=moments.zone("")).text
    letter = next(letter for letter in sent() if "payment failed" in letter.subject)
    html = letter.alternatives[0][0]
    assert until in letter.subject
    assert until in letter.body
    assert until in html
    assert until in live.page()


def test_more_failures_of_the_same_payment_are_told_once_and_move_no_date(live):
    fail(live)
    until = live.subscription().grace_until
    live.later(days=2)
    fail(live)
    assert live.subscription().grace_until == until
    assert live.news().count("payment failed") == 1


def test_paid_within_the_grace_nothing_has_happened(live):
    fail(live)
    live.later(days=3)
    pay(live)
    row = live.subscription()
    assert (row.status, row.grace_until, live.live().status) == ("active", None, Status.RUNNING)
    live.later(days=5)
    live.look()
    assert (live.subscription().stopped_at, live.live().status) == (None, Status.RUNNING)


def test_when_the_grace_is_over_it_is_stopped_with_its_clone_and_seat_kept_and_the_day_of_its_end_told(live):
    row = stopped(live)
    bought = live.subscription()
    assert (row.status, row.goal, row.port_number is not None) == (Status.STOPPED, Goal.STOPPED, True)
    assert row.seat.instance == row
    assert live.news()[-1] == "stopped"
    until = moments.at(bought.ends_at, now=clock.now(), zone=moments.zone("")).text
    assert until in sent()[-1].body
    page = live.page()
    assert "a payment failed and was not made up for" in page
    assert until in page


def test_before_it_is_stopped_stripe_is_asked_whether_it_was_paid_after_all(live):
    fail(live)
    live.paper.ask(f"subscriptions/{live.subscription().stripe_subscription}/renew", outcome="paid")
    live.later(days=7, minutes=1)
    live.look()
    assert (live.subscription().grace_until, live.live().status) == (None, Status.RUNNING)


def test_while_stripe_is_silent_nobody_is_stopped(live):
    fail(live)
    live.later(days=7, minutes=1)
    live.paper.ask("knobs", down=True)
    live.look()
    assert live.live().status == Status.RUNNING
    live.paper.ask("knobs", down=False)


def test_paid_after_the_stop_it_starts_again(live):
    stopped(live)
    pay(live)
    live.settle()
    bought = live.subscription()
    assert (live.live().status, bought.stopped_at, bought.ends_at) == (Status.RUNNING, None, None)
    assert live.news()[-1] == "resumed"


def test_paid_while_it_is_being_stopped_it_starts_again_as_soon_as_it_can(live):
    fail(live)
    live.later(days=7, minutes=1)
    live.look()
    assert live.live().status == Status.STOPPING
    pay(live)
    assert live.subscription().stopped_at is not None
    live.settle()
    live.look()
    live.settle()
    assert (live.live().status, live.subscription().stopped_at) == (Status.RUNNING, None)


def test_after_the_second_grace_it_is_destroyed_and_nothing_more_is_charged(live):
    stopped(live)
    live.later(days=7, minutes=1)
    live.look()
    live.settle()
    assert live.live().status == Status.DESTROYED
    assert live.subscription().ended_at is not None
    assert {one["status"] for one in live.paper.list("subscriptions")} <= {"canceled"}
    assert live.news()[-1] == "ended"
    assert not BrokerAccount.objects.filter(owner=live.customer).exists()
    assert "Go live with my own account" in live.page()


def test_a_stopped_customer_is_sent_to_pay_before_another_login(live):
    stopped(live)
    assert "not paid at the moment" in live.page(GO_LIVE)
    live.fill(password="Newer-1aA")
    assert live.live().status == Status.STOPPED


def test_an_attempt_under_way_when_the_grace_ends_goes_and_the_old_one_is_not_started_for_it(live):
    old = live.live()
    live.fill(login="7000002")
    fail(live)
    live.later(days=7, minutes=1)
    live.look()
    live.settle()
    live.look()
    live.settle()
    old.refresh_from_db()
    assert (old.status, live.live().status) == (Status.STOPPED, Status.DESTROYED)


def test_cancelled_at_period_end_runs_until_then_and_the_page_says_when(live):
    name = live.subscription().stripe_subscription
    url = live.browser.post("/billing/")["Location"]
    assert url.startswith(f"{live.paper.url}/portal/")
    leave(live, url, name)
    live.hear()
    assert "Cancelled: it runs until" in live.page()
    assert live.live().status == Status.RUNNING
    live.paper.ask(f"subscriptions/{name}/end_period")
    live.hear()
    live.settle()
    assert (live.live().status, live.subscription().why) == (Status.STOPPED, "cancelled")
    live.later(days=7, minutes=1)
    live.look()
    live.settle()
    assert live.live().status == Status.DESTROYED
    assert live.news()[-2:] == ["stopped", "ended"]


def leave(shop, url, name):
    urllib.request.urlopen(url, data=f"do=leave+{name}".encode(), timeout=10).close()


def test_an_end_that_stripe_never_told_is_found_by_asking(live):
    name = live.subscription().stripe_subscription
    leave(live, live.browser.post("/billing/")["Location"], name)
    live.later(days=31, hours=2)
    live.look()
    live.settle()
    assert live.live().status == Status.STOPPED


def test_whoever_cancelled_can_buy_again_before_the_old_terminal_is_gone(live):
    name = live.subscription().stripe_subscription
    leave(live, live.browser.post("/billing/")["Location"], name)
    live.paper.ask(f"subscriptions/{name}/end_period")
    live.hear()
    live.settle()
    old = live.live()
    new = live.go_live()
    old.refresh_from_db()
    assert (new.status, old.status) == (Status.RUNNING, Status.DESTROYED)
    assert Subscription.objects.filter(ended_at__isnull=True).count() == 1
    live.later(days=8)
    live.look()
    assert live.live().status == Status.RUNNING


@pytest.mark.parametrize("how", ["dispute", "refund"])
def test_money_that_is_taken_back_stops_it_and_is_told_to_staff(live, how, caplog):
    if how == "dispute":
        live.paper.ask(f"charges/{charge(live)}/dispute")
    else:
        settling.stripe_api.refund(
            settling.stripe_api.payment_of(live.subscription().stripe_subscription), key="by staff at Stripe"
        )
    live.hear()
    live.settle()
    assert (live.live().status, live.subscription().why) == (
        Status.STOPPED,
        "disputed" if how == "dispute" else "refunded",
    )
    assert "a payment was taken back" in caplog.text


def test_a_refund_by_staff_gives_the_money_back_once_cancels_and_ends_the_terminal(live):
    name = live.subscription().stripe_subscription
    for _ in range(3):
        row = refunds.ask(live.customer.pk, name, why="unsolved", who="staff:1")
        refunds.give(row.pk)
    live.hear()
    live.settle()
    assert [one["amount"] for one in live.paper.list("refunds")] == [3900]
    assert (live.live().status, live.subscription().status) == (Status.DESTROYED, "canceled")
    assert live.news().count("refunded") == 1
    assert "$39 are on their way back" in sent()[-1].subject


def test_a_refund_whose_answer_was_lost_is_given_once(live, monkeypatch):
    row = refunds.ask(live.customer.pk, live.subscription().stripe_subscription, why="unsolved", who="staff:1")

    def given_and_not_heard(payment, *, key, give=stripe_api.refund):
        give(payment, key=key)
        raise StripeSilent("the line was cut")

    with monkeypatch.context() as cut:
        cut.setattr(stripe_api, "refund", given_and_not_heard)
        assert not refunds.give(row.pk)
    assert Refund.objects.get().done_at is None
    assert refunds.give(row.pk)
    assert len(live.paper.list("refunds")) == 1


def test_a_refund_waits_while_stripe_is_silent_and_is_done_by_the_next_look(live):
    row = refunds.ask(live.customer.pk, live.subscription().stripe_subscription, why="unsolved", who="staff:1")
    live.paper.ask("knobs", down=True)
    assert not refunds.give(row.pk)
    live.paper.ask("knobs", down=False)
    live.later(minutes=5)
    assert refunds.due(10) == [row.pk]
    live.look()
    assert Refund.objects.get().done_at is not None


def test_a_journal_line_is_looked_at_for_news_once(live):
    assert lifecycle.notice_news() == 0
    live.fill(password="Newer-1aA")
    assert lifecycle.notice_news() > 0
    assert lifecycle.notice_news() == 0


def test_every_mail_is_told_in_text_as_completely_as_in_html_and_holds_no_secret(live):
    stopped(live)
    pay(live)
    live.settle()
    live.news()
    refunds.ask(live.customer.pk, live.subscription().stripe_subscription, why="unsolved", who="staff:1")
    live.work()
    live.news()
    letters = sent()
    assert {notice.kind for notice in Notice.objects.all()} >= {"live", "payment failed", "stopped", "resumed"}
    for letter in letters:
        html = re.sub(r"<style.*?</style>|<[^>]+>", " ", letter.alternatives[0][0])
        plain = " ".join(html.replace("&#x27;", "'").split())
        for line in filter(None, (line.strip() for line in letter.body.splitlines())):
            if "http" not in line:
                assert line in plain
        assert "Right-1aA" not in letter.body + letter.alternatives[0][0]
        assert "\n" not in letter.subject
