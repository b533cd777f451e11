"""From the form to a paid row: what is refused, what is charged, and that money and slot stay together."""

from __future__ import annotations

import random
import time
import urllib.request

import pytest
from django.test import Client

from farm import lifecycle
from farm.agent.protocol import Connection, Refusal
from farm.models import BrokerAccount, Host, Instance
from farm.states import Goal, Status
from presspass.billing import settling, stripe_api
from presspass.models import Checkout, Plan, Refund, StripeEvent, Subscription
from presspass.tasks import check_checkout
from tests.billing.shop import GO_LIVE, LOGIN, SERVER, WEBHOOK, Shop, signed
from tests.factories import HostFactory, UserFactory, instance

pytestmark = pytest.mark.django_db


def reverse(events):
    return events[::-1]


def shuffle(events):
    return random.sample(events, len(events))


def payments(shop):
    return [one for one in shop.paper.list("charges") if one["paid"] and not one["refunded"]]


def running_at_stripe(shop):
    return [one for one in shop.paper.list("subscriptions") if one["status"] == "active"]


# --- who may ---------------------------------------------------------------------------------------------------------


def test_a_stranger_is_sent_to_sign_in(shop):
    assert "/sign-in/" in Client().get(GO_LIVE)["Location"]


def test_an_address_that_is_not_confirmed_is_offered_the_link_and_nothing_else(shop):
    shop.customer.email_verified_at = None
    shop.customer.save()
    assert "First confirm your address." in shop.page(GO_LIVE)
    shop.fill()
    assert not Checkout.objects.exists()
    assert not BrokerAccount.objects.filter(owner=shop.customer).exists()


def test_where_no_stripe_key_is_set_nothing_is_sold(shop, settings):
    settings.STRIPE_SECRET_KEY = ""
    assert "not on sale" in shop.page(GO_LIVE)
    shop.fill()
    assert not Checkout.objects.exists()


def test_without_a_slot_the_page_says_so_and_takes_no_money(shop):
    Host.objects.update(slots=1)
    answer = shop.fill()
    assert "All our slots are taken." in answer.content.decode()
    assert shop.paper.list("checkout/sessions") == []
    assert not BrokerAccount.objects.filter(owner=shop.customer).exists()
    assert Instance.objects.count() == 1


def test_a_login_may_be_handed_in_only_so_often(shop, settings):
    settings.LIMIT_LOGINS = "2/h"
    for _ in range(2):
        assert shop.fill(password="").status_code == 422
    assert shop.fill(password="").status_code == 429


# --- the way there ---------------------------------------------------------------------------------------------------


def test_the_page_offers_the_servers_that_our_terminals_know(shop):
    page = shop.page(GO_LIVE)
    assert '<option value="PaperBroker-Live">' in page
    assert "$39 a month" in page
    assert "$89 a month" in page


def test_a_good_login_leads_to_the_pay_page_with_a_slot_held(shop):
    answer = shop.fill(plan="fang")
    assert answer["Location"].startswith(f"{shop.paper.url}/pay/")
    row = shop.live()
    assert (row.status, row.held_until is not None, row.replaces) == (Status.WAITING, True, shop.demo())
    assert row.port_number is not None
    assert (shop.checkout().cents, shop.checkout().status) == (8900, "open")


def test_a_server_in_other_letters_is_spelled_as_our_terminals_spell_it(shop):
    shop.fill(server="  paperbroker-LIVE ")
    assert shop.live().account.server == "PaperBroker-Live"


def test_coming_back_shows_the_open_payment_and_makes_no_second(shop):
    shop.fill()
    assert "Your payment is open." in shop.page(GO_LIVE)
    assert "Your payment is open." in shop.fill(login="7000002").content.decode()
    assert (Checkout.objects.count(), len(shop.paper.list("checkout/sessions"))) == (1, 1)
    assert shop.browser.post("/go-live/pay/")["Location"] == shop.checkout().url


def test_while_stripe_is_silent_nothing_is_charged_and_the_slot_stays_held(shop):
    shop.paper.ask("knobs", down=True)
    answer = shop.fill()
    assert answer["Location"] == GO_LIVE
    assert "can’t be reached" in shop.page(GO_LIVE)
    shop.paper.ask("knobs", down=False)
    assert shop.browser.post("/go-live/pay/")["Location"].startswith(shop.paper.url)


def test_an_answer_that_was_lost_is_asked_for_again_without_a_second_session(shop):
    shop.paper.ask("knobs", cut_next=2)
    shop.fill()
    assert shop.checkout().url == ""
    shop.browser.post("/go-live/pay/")
    assert [one["id"] for one in shop.paper.list("checkout/sessions")] == [shop.checkout().stripe_session]


def test_a_session_asked_for_late_gives_stripe_its_thirty_minutes_and_holds_the_slot_as_long(shop):
    shop.paper.ask("knobs", down=True)
    shop.fill()
    shop.paper.ask("knobs", down=False)
    shop.later(minutes=20)
    assert shop.browser.post("/go-live/pay/")["Location"].startswith(shop.paper.url)
    assert shop.live().held_until > shop.checkout().expires_at


def test_cancelled_closes_the_pay_page_first_then_frees_slot_and_credentials(shop):
    shop.fill()
    shop.browser.post("/go-live/cancel/")
    assert [one["status"] for one in shop.paper.list("checkout/sessions")] == ["expired"]
    assert (shop.checkout().status, shop.live().status) == ("cancelled", Status.DESTROYED)
    assert not BrokerAccount.objects.filter(owner=shop.customer).exists()
    assert shop.demo().status == Status.RUNNING
    assert shop.fill()["Location"].startswith(shop.paper.url)


def test_a_cancel_that_finds_it_paid_goes_live_instead(shop):
    shop.fill()
    shop.pay()
    shop.browser.post("/go-live/cancel/")
    assert shop.live().status == Status.REQUESTED


def test_a_cancel_that_stripe_does_not_answer_changes_nothing(shop):
    shop.fill()
    shop.paper.ask("knobs", down=True)
    shop.browser.post("/go-live/cancel/")
    assert (shop.checkout().status, shop.live().status) == ("open", Status.WAITING)
    shop.paper.ask("knobs", down=False)


# --- the webhook -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "nonsense", "of another body", "t=1,v1=00"])
def test_a_webhook_that_stripe_did_not_sign_is_refused(shop, header):
    payload = b'{"id": "evt_1", "type": "invoice.paid"}'
    header = signed(b"{}") if header == "of another body" else header
    answer = Client().post(WEBHOOK, payload, content_type="application/json", headers={"Stripe-Signature": header})
    assert (answer.status_code, StripeEvent.objects.count()) == (400, 0)


def test_a_webhook_signed_with_another_secret_is_refused(shop):
    shop.fill()
    shop.pay()
    assert {shop.post(event, secret="whsec_other") for event in shop.told()} == {400}
    assert not StripeEvent.objects.exists()


def test_a_webhook_of_the_last_but_one_secret_is_taken_while_two_are_set(shop, settings):
    settings.STRIPE_WEBHOOK_SECRET = ["whsec_new", *settings.STRIPE_WEBHOOK_SECRET]
    shop.buy()
    assert shop.live().status == Status.REQUESTED


def test_a_webhook_kept_by_somebody_and_sent_much_later_is_refused(shop):
    shop.fill()
    shop.pay()
    assert {shop.post(event, at=time.time() - 3600) for event in shop.told()} == {400}


def test_a_webhook_is_taken_only_by_post_and_only_in_a_sensible_size(shop):
    assert Client().get(WEBHOOK).status_code == 405
    huge = b"x" * (600 * 1024)
    answer = Client().post(WEBHOOK, huge, content_type="application/json", headers={"Stripe-Signature": signed(huge)})
    assert answer.status_code == 413


def test_an_unknown_event_is_acknowledged_and_kept(shop):
    event = {"id": "evt_odd", "type": "weather.changed", "created": 1, "livemode": False, "data": {"object": {}}}
    assert shop.post(event) == 200
    shop.work()
    assert StripeEvent.objects.get().handled_at is not None


def test_an_event_of_the_other_mode_changes_nothing(shop):
    shop.fill()
    shop.pay()
    for event in shop.told():
        assert shop.post(event | {"livemode": True}) == 200
    shop.work()
    assert shop.checkout().status == "open"


def test_an_event_that_cannot_be_handled_does_not_stop_those_behind_it(shop):
    event = {"id": "evt_poison", "type": "checkout.session.completed", "created": 1, "livemode": False}
    assert shop.post(event | {"data": {"object": {"id": "cs_test_nowhere", "object": "checkout.session"}}}) == 200
    shop.buy()
    assert shop.live().status == Status.REQUESTED
    poison = StripeEvent.objects.get(event="evt_poison")
    assert poison.handled_at is None
    assert "StripeRefused" in poison.error


def test_nothing_of_an_event_is_kept_but_names(shop):
    shop.buy()
    assert "ann@example.com" not in str(list(StripeEvent.objects.values()))
    stored = str(list(StripeEvent.objects.values("type", "names", "error")))  # times may hold any four digits
    assert "4242" not in stored


# --- paid ------------------------------------------------------------------------------------------------------------


def test_paid_starts_it_and_the_demo_stays_until_it_is_proven(shop):
    row = shop.buy()
    assert (row.status, shop.demo().status) == (Status.REQUESTED, Status.RUNNING)
    bought = shop.subscription()
    assert (bought.status, bought.cents, bought.instance, shop.checkout().status) == ("active", 3900, row, "paid")
    shop.prove(row)
    assert (row.status, shop.demo().status) == (Status.RUNNING, Status.DESTROYED)
    assert shop.news() == ["live"]


@pytest.mark.parametrize(
    "order", [list, lambda events: events[::-1], lambda events: random.sample(events, len(events))]
)
@pytest.mark.parametrize("times", [1, 3])
def test_any_order_and_any_number_of_the_same_events_end_in_the_same_state(shop, order, times):
    shop.fill()
    shop.pay()
    events = shop.told()
    for _ in range(times):
        for event in order(events):
            assert shop.post(event) == 200
            shop.work()
    assert (Subscription.objects.count(), shop.live().status) == (1, Status.REQUESTED)
    assert shop.live().transitions.count() == 2
    assert StripeEvent.objects.count() == len(events)
    assert len(payments(shop)) == 1


def test_coming_back_from_the_pay_page_asks_stripe_without_waiting_to_be_told(shop):
    shop.fill()
    check_checkout(shop.checkout().pk)
    assert shop.checkout().status == "open"
    shop.pay()
    assert shop.browser.get(f"/go-live/paid/{shop.checkout().pk}/")["Location"] == "/terminal/"
    check_checkout(shop.checkout().pk)
    assert shop.checkout().status == "paid"


def test_coming_back_from_somebody_elses_pay_page_is_no_page(shop):
    shop.fill()
    stranger = Client()
    stranger.force_login(UserFactory.create())
    assert stranger.get(f"/go-live/paid/{shop.checkout().pk}/").status_code == 404


def test_complete_without_the_money_starts_nothing_until_it_comes(shop):
    shop.fill()
    shop.pay(payment_status="unpaid")
    shop.hear()
    assert (shop.checkout().status, shop.live().status) == ("open", Status.WAITING)
    name = shop.paper.list("subscriptions")[0]["id"]
    shop.paper.ask(f"subscriptions/{name}/renew", outcome="paid")
    shop.hear()
    assert (shop.checkout().status, shop.live().status) == ("paid", Status.REQUESTED)


def test_another_amount_than_agreed_starts_nothing_and_stands_before_staff(shop):
    shop.fill()
    Checkout.objects.update(cents=3800)
    shop.pay()
    shop.hear()
    checkout = shop.checkout()
    assert (checkout.status, shop.live().status) == ("wrong", Status.DESTROYED)
    assert "3800" in checkout.problem
    assert not Subscription.objects.exists()


def test_a_plan_that_staff_changed_meanwhile_costs_what_was_agreed(shop):
    shop.fill()
    Plan.objects.update(cents=9900)
    shop.pay()
    shop.hear()
    assert shop.subscription().cents == 3900


def test_a_declined_card_charges_nothing_and_another_card_goes_on(shop):
    shop.fill()
    with urllib.request.urlopen(shop.checkout().url, data=b"do=decline", timeout=10) as answer:
        assert "declined" in answer.read().decode()
    shop.hear()
    assert (payments(shop), shop.checkout().status) == ([], "open")
    shop.pay()
    shop.hear()
    assert shop.live().status == Status.REQUESTED


# --- twice, late, never ----------------------------------------------------------------------------------------------


def second_session(shop: Shop) -> str:
    """The same checkout's session made again, as if an answer of Stripe's had been lost for ever."""
    checkout = shop.checkout()
    made = stripe_api.create_session(
        key="another", checkout=checkout.pk, customer=checkout.customer_id, email="ann@example.com", known_as="",
        name="BITTEN", cents=3900, currency="usd", price="", expires_at=checkout.expires_at,
        success_url="http://127.0.0.1/", cancel_url="http://127.0.0.1/",
    )  # fmt: skip
    return made.id


@pytest.mark.parametrize("order", [list, reverse])
def test_paid_twice_is_one_subscription_and_the_other_is_cancelled_and_refunded(shop, order):
    shop.fill()
    second = second_session(shop)
    shop.pay()
    shop.paper.ask(f"sessions/{second}/pay")
    shop.hear(order)
    assert Subscription.objects.count() == 1
    assert [one["id"] for one in running_at_stripe(shop)] == [shop.subscription().stripe_subscription]
    assert len(payments(shop)) == 1
    assert Refund.objects.get().done_at is not None
    shop.hear()
    shop.work()
    assert (len(payments(shop)), shop.subscription().ended_at) == (1, None)
    assert shop.live().status == Status.REQUESTED


def test_a_hold_that_nobody_paid_ends_with_the_pay_page_closed_first(shop):
    shop.fill()
    shop.later(seconds=1870)
    shop.look()
    assert [one["status"] for one in shop.paper.list("checkout/sessions")] == ["expired"]
    assert (shop.checkout().status, shop.live().status) == ("expired", Status.DESTROYED)
    assert not BrokerAccount.objects.filter(owner=shop.customer).exists()


def test_a_hold_whose_time_is_over_is_kept_while_stripe_does_not_say_what_became_of_it(shop):
    shop.fill()
    shop.paper.ask("knobs", down=True)
    shop.later(seconds=1870)
    shop.look()
    assert (shop.checkout().status, shop.live().status) == ("open", Status.WAITING)
    shop.paper.ask("knobs", down=False)
    shop.look()
    assert shop.checkout().status == "expired"


def test_paid_in_the_last_second_and_never_told_goes_live_when_the_hold_is_asked_about(shop):
    shop.fill()
    shop.pay()
    shop.later(seconds=1870)
    shop.look()
    assert (shop.checkout().status, shop.live().status) == ("paid", Status.REQUESTED)


def late(shop: Shop) -> None:
    """Paid, though its slot was given back without asking."""
    shop.fill()
    settling.give_up(shop.checkout().pk, Checkout.Status.EXPIRED, why="lost", who="test")
    shop.pay()
    shop.hear()


def test_paid_after_the_slot_was_given_back_leaves_the_choice_to_the_customer(shop):
    late(shop)
    assert shop.subscription().late_at is not None
    assert shop.news() == ["paid without slot"]
    page = shop.page(GO_LIVE)
    assert "Give me my money back instead" in page
    assert "You have paid" in page


def test_paid_late_and_no_slot_free_stands_first_in_line(shop):
    late(shop)
    Host.objects.update(slots=1)
    instance()
    shop.fill()
    row = shop.live()
    assert (row.status, row.first_in_line, row.host) == (Status.WAITING, True, None)
    assert "number 1 in line" in shop.page()
    HostFactory.create()
    lifecycle.admit()
    row.refresh_from_db()
    assert row.status == Status.REQUESTED


@pytest.mark.parametrize("in_line", [False, True])
def test_paid_late_and_the_money_wanted_back_is_refunded_once(shop, in_line):
    late(shop)
    if in_line:
        Host.objects.update(slots=1)
        shop.fill()
    for _ in range(2):
        shop.browser.post("/go-live/money-back/")
        shop.work()
    shop.hear()
    assert (payments(shop), running_at_stripe(shop)) == ([], [])
    assert len(shop.paper.list("refunds")) == 1
    assert shop.subscription().ended_at is not None
    assert not BrokerAccount.objects.filter(owner=shop.customer).exists()
    assert shop.demo().goal == Goal.RUNNING
    assert shop.news()[-1] == "refunded"


def test_money_back_is_no_button_for_somebody_whose_terminal_works(shop):
    shop.go_live()
    shop.browser.post("/go-live/money-back/")
    shop.work()
    assert (len(payments(shop)), Refund.objects.count()) == (1, 0)


# --- when the broker says no -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (Refusal.CREDENTIALS, "wrong login or password"),
        (Refusal.INVESTOR, "investor password"),
        (Refusal.TRADING_DISABLED, "trading is switched off"),
        (Refusal.SERVER_UNKNOWN, "do not know the server PaperBroker-Live"),
        (Refusal.SERVER_UNREACHABLE, "can&#x27;t be reached"),
        (Refusal.NO_ANSWER, "gave no answer in time"),
    ],
)
def test_a_refusal_is_told_in_plain_words_with_the_demo_running_and_a_way_on(shop, refusal, says):
    shop.refuse(shop.buy(), refusal)
    page = shop.page()
    assert says in page
    assert "Correct the login" in page
    assert shop.demo().status == Status.RUNNING
    assert shop.news() == ["refused"]


def test_the_page_after_a_refusal_has_one_way_on_and_offers_no_second_plan(shop):
    shop.refuse(shop.buy())
    assert "Go live with my own account" not in shop.page()


def test_the_next_try_is_taken_at_once_and_waits_for_the_seat_of_the_one_that_is_going(shop):
    """The same account with the right password: the form is there before the refused clone is gone."""
    first = shop.buy(password="Wrong-1aA")
    order = shop.to_start(first)
    shop.answering.answer(order, connection=Connection.REFUSED, refusal=Refusal.CREDENTIALS)
    first.refresh_from_db()
    assert first.status == Status.DESTROYING
    assert 'name="password"' in shop.page("/go-live/")
    shop.fill()
    second = shop.live()
    assert (second.status, second.goal) == (Status.WAITING, Goal.RUNNING)
    assert "Waiting until the old one is stopped" in shop.page()
    shop.settle()
    first.refresh_from_db()
    assert first.status == Status.DESTROYED
    assert shop.prove(second).status == Status.RUNNING


def test_a_wrong_password_then_the_right_one_goes_live_without_paying_again(shop):
    shop.refuse(shop.buy(password="Wrong-1aA"))
    again = shop.fill(password="Wrong-1aA")
    assert "refused just these three before" in again.content.decode()
    assert shop.fill()["Location"] == "/terminal/"
    shop.prove(shop.live())
    assert (shop.live().status, shop.demo().status) == (Status.RUNNING, Status.DESTROYED)
    assert (len(payments(shop)), Checkout.objects.count()) == (1, 1)
    assert shop.news() == ["refused", "live"]


def test_a_second_customer_with_the_same_account_reads_only_that_it_cannot_be_connected(shop, answering):
    shop.go_live()
    other = UserFactory.create(email_verified_at=shop.customer.email_verified_at)
    answering.obey(instance(other))
    theirs = Shop(shop.paper, other, answering, heard=shop.heard)
    answer = theirs.fill(server="paperbroker-live", password="Other-1aA")
    page = answer.content.decode()
    assert "This account cannot be connected now. Write to help@example.com" in page
    assert "ann@example.com" not in page
    assert not BrokerAccount.objects.filter(owner=other).exists()
    assert shop.live().status == Status.RUNNING


def test_who_paid_for_an_account_that_somebody_else_got_first_may_have_the_money_back(shop, answering):
    other = UserFactory.create(email_verified_at=shop.customer.email_verified_at)
    answering.obey(instance(other))
    theirs = Shop(shop.paper, other, answering, heard=shop.heard)
    theirs.fill()
    shop.go_live()
    theirs.pay()
    theirs.hear()
    assert theirs.live().refusal == Refusal.SEAT_TAKEN
    for _ in range(2):
        theirs.browser.post("/go-live/money-back/")
        theirs.work()
    assert len(shop.paper.list("refunds")) == 1
    assert shop.live().status == Status.RUNNING


def test_two_customers_who_pay_for_one_account_at_once_get_one_terminal_and_one_no(shop, answering):
    other = UserFactory.create(email_verified_at=shop.customer.email_verified_at)
    answering.obey(instance(other))
    theirs = Shop(shop.paper, other, answering, heard=shop.heard)
    shop.fill()
    theirs.fill()
    shop.pay()
    theirs.pay()
    shop.hear()
    both = sorted([shop.live().status, theirs.live().status])
    assert both == [Status.DESTROYED, Status.REQUESTED]
    loser = shop if shop.live().status == Status.DESTROYED else theirs
    assert "cannot be connected now" in loser.page()
    assert not BrokerAccount.objects.filter(owner=loser.customer).exists()


# --- another login ---------------------------------------------------------------------------------------------------


def test_a_new_password_for_the_same_account_goes_on_without_paying(shop):
    old = shop.go_live()
    assert "Change the login" in shop.page()
    assert "runs with just these three" in shop.fill().content.decode()
    shop.fill(password="Newer-1aA")
    shop.settle()
    new = shop.prove(shop.live())
    old.refresh_from_db()
    assert (new.status, old.status) == (Status.RUNNING, Status.DESTROYED)
    assert shop.subscription().instance == new
    assert len(payments(shop)) == 1


def test_another_account_is_proven_before_the_old_terminal_goes(shop):
    old = shop.go_live()
    shop.fill(login="7000002")
    page = shop.page()
    assert "Your live terminal so far" in page
    old.refresh_from_db()
    assert old.status == Status.RUNNING
    shop.prove(shop.live())
    old.refresh_from_db()
    assert old.status == Status.DESTROYED


def test_what_was_typed_is_told_even_when_the_credentials_are_gone(shop):
    row = shop.refuse(shop.buy())
    assert row.account is None
    assert (row.attempt.server, row.attempt.login) == (SERVER, LOGIN)
