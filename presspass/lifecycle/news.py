"""The journal is read for what customers want to know, and what mails say of it.

A line is looked at once and marked; what it is news of becomes a Notice, once per line and kind. Of a worker that dies
between the two neither is kept: they are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from farm import clock, doorbell
from farm.lifecycle import CANARY_EMAIL
from farm.models import Transition
from farm.states import Kind, Refusal, Status
from presspass import moments
from presspass.lifecycle import move_news, pass_news
from presspass.lifecycle.links import SEND_NOTICES
from presspass.models import Attempt, Notice, Plan
from presspass.telling.refusals import said_of, to_do

BATCH = 200


@transaction.atomic
def notice_news(*, batch: int = BATCH) -> int:
    """Look at journal lines that nobody has looked at; return how many there were."""
    fresh = Transition.objects.select_for_update(skip_locked=True, of=("self",)).filter(noticed_at__isnull=True)
    lines = list(fresh.select_related("instance__attempt", "instance__customer").order_by("pk")[:batch])
    wanted = [notice for line in lines if (notice := _notice(line)) is not None]
    Notice.objects.bulk_create(wanted, ignore_conflicts=True)
    Transition.objects.filter(pk__in=[line.pk for line in lines]).update(noticed_at=clock.now())
    if wanted:
        doorbell.ring_on_commit(SEND_NOTICES)
    return len(lines)


def _notice(line: Transition) -> Notice | None:
    row = line.instance
    if row.customer.email == CANARY_EMAIL:
        return None  # a drill's: nobody's
    moved = move_news.notice_of(line)
    if moved is not None:
        return moved
    if row.kind != Kind.LIVE:
        return pass_news.notice_of(line)
    attempt: Attempt | None = getattr(row, "attempt", None)
    about = {"server": attempt.server, "login": attempt.login} if attempt else {}
    if line.became == Status.RUNNING and _is_first(line):
        return Notice(customer_id=row.customer_id, kind=Notice.Kind.LIVE, transition=line, data=about)
    went = line.became in {Status.DESTROYING, Status.DESTROYED} and line.was in {Status.STARTING, Status.WAITING}
    if went and row.refusal and row.proven_at is None:
        before = row.replaces
        data = about | {"refusal": row.refusal, "lost": before is not None and before.status == Status.LOST}
        return Notice(customer_id=row.customer_id, kind=Notice.Kind.REFUSED, transition=line, data=data)
    return None


def _is_first(line: Transition) -> bool:
    """A live terminal runs for the first time when its broker is proven to let it trade."""
    return not Transition.objects.filter(instance=line.instance_id, became=Status.RUNNING, pk__lt=line.pk).exists()


# --- what the mails say -----------------------------------------------------------------------------------------------


def words(notice: Notice) -> dict[str, Any]:
    """What the template of a mail about a live terminal needs: subject, lines, one button, why it comes."""
    subject, lines, button = _MAILS[Notice.Kind(notice.kind)](notice)
    to, label = button
    return {
        "folder": "presspass/mail/news",
        "subject": subject,
        "lines": lines,
        "link": settings.SITE_URL + reverse(to),
        "label": label,
        "why": "you have a live terminal or a plan with us",
        "support": settings.SUPPORT_EMAIL,
    }


_Mail = tuple[str, list[str], tuple[str, str]]
_TERMINAL = ("presspass:terminal", "Open my terminal")
_BILLING = ("presspass:terminal", "Manage the payment")
_GO_LIVE = ("presspass:go_live", "Correct the login")


def _moment(notice: Notice, name: str) -> str:
    """A date of the row's, as it was decided, in the customer's zone."""
    text = notice.data.get(name)
    if not text:
        return "later"
    there = datetime.fromisoformat(str(text))
    return str(moments.at(there, now=clock.now(), zone=moments.zone(notice.customer.time_zone)))


def _account(notice: Notice) -> str:
    return f"{notice.data.get('login', 'your account')} on {notice.data.get('server', 'your broker')}"


def _live(notice: Notice) -> _Mail:
    lines = [
        "Your broker let it in, and it may trade. Only when we had seen that was the old terminal cleared away.",
        "It runs day and night, also while your computer is off.",
    ]
    return f"Your live terminal runs: {_account(notice)}", lines, _TERMINAL


def _refused(notice: Notice) -> _Mail:
    refusal = Refusal(str(notice.data.get("refusal", "other")))
    before = "The machine it ran on before is down, so nothing runs now." if notice.data.get("lost") else ""
    lines = [
        to_do(refusal, support=settings.SUPPORT_EMAIL),
        f"{before or 'What ran before runs on.'} You try again without paying again.",
    ]
    return said_of(refusal, server=str(notice.data.get("server", "Your broker"))), lines, _GO_LIVE


def _paid_without_slot(notice: Notice) -> _Mail:
    lines = [
        "Your payment came after its slot was given back, and you have a plan now.",
        "You choose: type the login again and stand first in line, or have the money back.",
    ]
    return "Your payment is in, and your terminal needs a word from you", lines, ("presspass:go_live", "Choose")


def _payment_failed(notice: Notice) -> _Mail:
    until = _moment(notice, "grace_until")
    lines = [
        f"Your terminal runs on until {until}. If the payment is in by then, nothing changes.",
        "If not, it is stopped then. Open positions stay open at your broker; no terminal of ours watches them.",
    ]
    return f"A payment failed; your terminal runs on until {until}", lines, _BILLING


_WHY = MappingProxyType(
    {
        "not paid": "the payment did not come",
        "cancelled": "the plan was cancelled and its time is over",
        "refunded": "the payment was given back",
        "disputed": "your bank took the payment back",
    }
)


def _stopped(notice: Notice) -> _Mail:
    why, until = _WHY.get(str(notice.data.get("why")), "the plan is over"), _moment(notice, "ends_at")
    lines = [
        "Positions that are open stay open at your broker; no terminal of ours watches them now.",
        f"Its folder and settings are kept until {until}, and destroyed then.",
    ]
    if notice.data.get("why") == "not paid":
        lines.append("Pay before that, and it starts again by itself.")
    return f"Your live terminal is stopped: {why}", lines, _BILLING


def _resumed(notice: Notice) -> _Mail:
    return "Your payment is in; your terminal starts again", ["Nothing of it was lost."], _TERMINAL


def _ended(notice: Notice) -> _Mail:
    why = _WHY.get(str(notice.data.get("why")), "the plan is over")
    lines = ["Its folder is cleared away, and the login with it. Nothing more is charged."]
    return f"Your live terminal is gone: {why}", lines, ("presspass:go_live", "Go live again")


def _refunded(notice: Notice) -> _Mail:
    price = Plan(cents=int(notice.data.get("cents") or 0)).price
    lines = [f"Why: {notice.data.get('why', 'as asked')}.", "Your bank shows it in five to ten days."]
    return f"{price} are on their way back to you", lines, _TERMINAL


_MAILS: Mapping[Notice.Kind, Callable[[Notice], _Mail]] = MappingProxyType(
    {
        Notice.Kind.LIVE: _live,
        Notice.Kind.REFUSED: _refused,
        Notice.Kind.PAID_WITHOUT_SLOT: _paid_without_slot,
        Notice.Kind.PAYMENT_FAILED: _payment_failed,
        Notice.Kind.STOPPED: _stopped,
        Notice.Kind.RESUMED: _resumed,
        Notice.Kind.ENDED: _ended,
        Notice.Kind.REFUNDED: _refunded,
    }
)
KINDS = frozenset(_MAILS)
