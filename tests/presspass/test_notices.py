"""Mails are sent from their rows."""

from __future__ import annotations

import re
from datetime import timedelta
from email import message_from_bytes, policy

import pytest
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.db import IntegrityError, connection, transaction

from farm import clock
from presspass import lifecycle
from presspass.lifecycle import notices
from presspass.models import Notice
from presspass.tasks import send_notices
from tests.factories import UserFactory, instance

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(customer):
    lifecycle.ask(customer)
    return Notice.objects.get()


def broken(self, *args, **kwargs):
    raise ConnectionRefusedError("no mail server")


def test_a_mail_that_fails_is_tried_again_later_and_later(asked, monkeypatch):
    monkeypatch.setattr(EmailMultiAlternatives, "send", broken)
    waits = []
    for _ in range(3):
        asked.refresh_from_db()
        with clock.moved(asked.next_at - clock.now()):
            before = clock.now()
            assert lifecycle.send_due() == 0
            asked.refresh_from_db()
            waits.append(round((asked.next_at - before).total_seconds()))
    assert waits == [30, 60, 120]
    assert asked.sent_at is None


def test_after_many_failures_it_stands_before_staff(asked, monkeypatch):
    monkeypatch.setattr(EmailMultiAlternatives, "send", broken)
    Notice.objects.update(attempts=notices.MOST_ATTEMPTS - 1)
    lifecycle.send_due()
    asked.refresh_from_db()
    assert (asked.attempts, asked.next_at, asked.sent_at) == (notices.MOST_ATTEMPTS, None, None)


def test_one_mail_that_fails_does_not_stop_the_others(customer, monkeypatch):
    for _ in range(3):
        lifecycle.ask(customer)
    poison = Notice.objects.order_by("pk").first()
    monkeypatch.setattr(
        notices, "written", lambda notice, real=notices.written: 1 / 0 if notice.pk == poison.pk else real(notice)
    )
    assert lifecycle.send_due() == 2
    assert len(mail.outbox) == 2


def test_a_row_that_another_worker_has_claimed_is_left_to_it(asked):
    stale = Notice.objects.select_related("customer").get()
    assert notices._claim(Notice.objects.get())
    assert not notices._claim(stale)


def test_a_worker_that_died_with_the_claim_does_not_lose_the_mail(asked):
    notices._claim(asked)
    assert lifecycle.send_due() == 0
    with clock.moved(timedelta(minutes=1)):
        assert lifecycle.send_due() == 1


def test_no_transaction_is_open_while_the_mail_server_is_spoken_to(transactional_db, monkeypatch):
    open_ = []
    monkeypatch.setattr(EmailMultiAlternatives, "send", lambda self: open_.append(connection.in_atomic_block))
    lifecycle.ask(UserFactory.create())
    lifecycle.send_due()
    assert open_ == [False]


def test_the_same_news_is_one_notice(customer, host):
    line = instance(customer).transitions.first()
    Notice.objects.create(customer=customer, kind="sign-in link", transition=line)
    with pytest.raises(IntegrityError), transaction.atomic():
        Notice.objects.create(customer=customer, kind="sign-in link", transition=line)


def test_what_was_sent_is_not_sent_again(asked):
    send_notices()
    send_notices()
    assert len(mail.outbox) == 1
    asked.refresh_from_db()
    assert asked.sent_at is not None
    assert asked.next_at is None


def test_no_secret_is_kept_in_the_row_or_given_to_the_queue(asked, settings, monkeypatch):
    tokens = []
    real = notices.links.url
    monkeypatch.setattr(notices.links, "url", lambda customer: tokens.append(real(customer)) or tokens[-1])
    lifecycle.send_due()
    word = tokens[0].partition("token=")[2]
    assert word in mail.outbox[0].body
    row = Notice.objects.filter(pk=asked.pk).values().get()
    assert word not in repr(row)


def test_the_link_mail_says_the_fact_in_its_subject_and_all_of_it_in_both_parts(customer):
    customer.time_zone = "Europe/Berlin"
    customer.save()
    lifecycle.ask(customer)
    lifecycle.send_due()
    sent = mail.outbox[0]
    assert re.fullmatch(r"Your sign-in link, good until \S+ CES?T", sent.subject) or "CE" in sent.subject
    html = sent.alternatives[0].content
    link = re.search(r"http\S+", sent.body)[0]
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("&#x27;", "'")
    for text in (sent.body, words):
        for part in ("It signs you in once", "Why you get this", "ann@example.com", "15 min", link):
            assert part in text
    assert html.count("display:inline-block") == 1, "one button"
    assert "<img" not in html
    assert sent.to == ["ann@example.com"]


def test_an_address_cannot_add_a_header_to_a_mail(customer):
    lifecycle.ask(customer)
    lifecycle.send_due()
    read = message_from_bytes(mail.outbox[0].message().as_bytes(), policy=policy.default)
    assert read["To"] == "ann@example.com"
    assert read["Bcc"] is None
    assert read["Auto-Submitted"] == "auto-generated"


def test_whether_the_address_is_confirmed_by_it_is_said(host):
    newcomer = UserFactory.create()
    lifecycle.ask(newcomer)
    lifecycle.send_due()
    assert "confirms that this address is yours" in mail.outbox[0].body
