"""Mails are sent from their rows: claimed, sent while no transaction is open, marked.

A worker that dies between the mail server's yes and our mark makes one mail come twice; none is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from farm import clock, states
from presspass import moments
from presspass.errors import Later, Overtaken
from presspass.lifecycle import links, move_news, news, pass_news
from presspass.models import Notice

BATCH = 100
MOST_ATTEMPTS = 10
FIRST_WAIT_SECONDS = 30
LONGEST_WAIT_SECONDS = 3600

log = logging.getLogger(__name__)


def send_due(*, batch: int = BATCH) -> int:
    """Send what is due, at most ``batch`` mails; return how many went out. One that fails never stops the others."""
    due = Notice.objects.filter(next_at__lte=clock.now()).select_related("customer").order_by("next_at")[:batch]
    return sum(_send(notice) for notice in list(due))


def _send(notice: Notice) -> bool:
    if not _claim(notice):
        return False
    try:
        written(notice).send()
    except Overtaken:
        Notice.objects.filter(pk=notice.pk).update(next_at=None)
        return False
    except Later as later:
        Notice.objects.filter(pk=notice.pk).update(next_at=later.at, attempts=0)
        return False
    except Exception as error:  # a mail server fails in too many ways to name
        log.warning(
            "mail not sent",
            extra={"notice": notice.pk, "attempt": notice.attempts, "error": type(error).__name__},
        )
        return False
    Notice.objects.filter(pk=notice.pk).update(sent_at=clock.now(), next_at=None)
    return True


def _claim(notice: Notice) -> bool:
    """Take the row for this attempt: of several workers one gets it, and it comes up again if that one dies."""
    attempts = notice.attempts + 1
    wait = states.retry_delay(attempts, first=FIRST_WAIT_SECONDS, most=LONGEST_WAIT_SECONDS)
    next_at = clock.now() + wait if attempts < MOST_ATTEMPTS else None
    same = Notice.objects.filter(pk=notice.pk, attempts=notice.attempts, next_at=notice.next_at, sent_at__isnull=True)
    if same.update(attempts=attempts, next_at=next_at) != 1:
        return False
    notice.attempts, notice.next_at = attempts, next_at
    return True


def written(notice: Notice) -> EmailMultiAlternatives:
    """The mail, its plain text as complete as its HTML."""
    own = _WORDS.get(Notice.Kind(notice.kind), news.words)
    words = {"customer": notice.customer, "site": settings.SITE_URL, **own(notice)}
    folder = words.get("folder") or f"presspass/mail/{notice.kind.replace(' ', '_').replace('-', '_')}"
    mail = EmailMultiAlternatives(
        subject=render_to_string(f"{folder}.subject.txt", words).strip(),
        body=render_to_string(f"{folder}.txt", words),
        to=[notice.customer.email],
        headers={"Auto-Submitted": "auto-generated"},
    )
    mail.attach_alternative(render_to_string(f"{folder}.html", words), "text/html")
    return mail


def _sign_in_link(notice: Notice) -> dict[str, Any]:
    now, zone = clock.now(), moments.zone(notice.customer.time_zone)
    until = now + timedelta(seconds=settings.LINK_SECONDS)
    return {
        "link": links.url(notice.customer),
        "until": moments.clock_time(until, now=now, zone=zone),
        "lasts": moments.length(settings.LINK_SECONDS),
        "confirms": not notice.customer.verified,
    }


_WORDS: Mapping[Notice.Kind, Callable[[Notice], dict[str, Any]]] = MappingProxyType(
    {
        Notice.Kind.SIGN_IN_LINK: _sign_in_link,
        **dict.fromkeys(pass_news.KINDS, pass_news.words),
        **dict.fromkeys(move_news.KINDS, move_news.words),
    }
)
