"""Shells for the queue."""

from __future__ import annotations

import logging
from datetime import timedelta

from celery import shared_task
from django.conf import settings

from farm import doorbell
from presspass import lifecycle
from presspass.billing import doors, events, looking, refunds
from presspass.errors import StripeRefused, StripeSilent
from presspass.lifecycle import leaving
from presspass.lifecycle.links import SEND_NOTICES
from presspass.lifecycle.news import BATCH as NEWS_BATCH
from presspass.lifecycle.notices import BATCH

log = logging.getLogger(__name__)


@shared_task(name=SEND_NOTICES)
def send_notices() -> None:
    if lifecycle.send_due() == BATCH:
        doorbell.ring(SEND_NOTICES)


@shared_task(name="presspass.recycle_idle")
def recycle_idle() -> None:
    lifecycle.recycle_idle(older_than=timedelta(hours=settings.IDLE_HOURS))


@shared_task(name="presspass.finish_leaving")
def finish_leaving() -> None:
    leaving.finish()


@shared_task(name="presspass.watch")
def watch() -> None:
    lifecycle.watch()
    lifecycle.tell_of_silence()


@shared_task(name=doors.NEWS)
def notice_news() -> None:
    if lifecycle.notice_news() == NEWS_BATCH:
        doorbell.ring(doors.NEWS)


@shared_task(name=doors.SETTLE)
def settle(event_id: int) -> None:
    events.settle(event_id)


@shared_task(name=doors.REFUND)
def refund(refund_id: int) -> None:
    refunds.give(refund_id)


@shared_task(name=doors.CHECK)
def check_checkout(checkout_id: int) -> None:
    try:
        looking.check(checkout_id)
    except (StripeSilent, StripeRefused) as error:
        log.warning("Stripe does not say", extra={"checkout": checkout_id, "error": str(error)})


@shared_task(name=doors.LOOK)
def look_at_payments() -> None:
    looking.look()
