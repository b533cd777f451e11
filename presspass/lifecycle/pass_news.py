"""What customers are told by mail of their Press Pass, its end and the waiting list: when, and in which words.

Every date is read from the row in the moment the mail is written; what is no longer so is not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.urls import reverse

from farm import clock
from farm.models import Instance, Keepsake, Transition
from farm.states import Goal, Status
from presspass import moments
from presspass.errors import Overtaken
from presspass.lifecycle import keep_alive, passes
from presspass.lifecycle.idling import WHO, WHO_ENDS
from presspass.models import Notice

LINE = "line"
WAITED = timedelta(minutes=1)
"""Whoever waited longer for a slot is told when it comes."""


def notice_of(line: Transition) -> Notice | None:
    """What a line in the journal of a Press Pass is news of."""
    kind = _kind(line)
    if kind is None:
        return None
    data = {"instance": line.instance_id, "why": line.why}
    return Notice(customer_id=line.instance.customer_id, kind=kind, transition=line, data=data)


def _kind(line: Transition) -> Notice.Kind | None:
    if line.became == Status.DESTROYING and line.who == WHO:
        return Notice.Kind.RECYCLED
    if line.became in {Status.DESTROYING, Status.DESTROYED} and line.who == WHO_ENDS:
        return Notice.Kind.PASS_OVER
    if line.who != LINE:
        return None
    if line.became == Status.DESTROYED:
        return Notice.Kind.OFFER_PASSED
    if line.became == Status.WAITING:
        return Notice.Kind.SLOT_HELD
    waited = line.at - line.instance.created_at > WAITED
    return Notice.Kind.SLOT_CAME if line.became == Status.REQUESTED and waited else None


# --- what the mails say -----------------------------------------------------------------------------------------------


def words(notice: Notice) -> dict[str, Any]:
    """What the template needs: subject, lines, one button, why it comes. Raise :class:`Overtaken`."""
    row = Instance.objects.filter(pk=notice.data.get("instance")).first()
    if row is None:
        raise Overtaken
    subject, lines, link, label = _MAILS[Notice.Kind(notice.kind)](notice, row)
    return {
        "folder": "presspass/mail/news",
        "subject": subject,
        "lines": lines,
        "link": link,
        "label": label,
        "why": "you have a Press Pass with us",
        "support": settings.SUPPORT_EMAIL,
    }


_Mail = tuple[str, list[str], str, str]


def _terminal() -> str:
    return settings.SITE_URL.rstrip("/") + reverse("presspass:terminal")


def _near(notice: Notice, moment: datetime) -> str:
    zone = moments.zone(notice.customer.time_zone)
    return moments.at(moment, now=clock.now(), zone=zone).text


def _full(notice: Notice, moment: datetime) -> str:
    return moments.full(moment, zone=moments.zone(notice.customer.time_zone)).text


def _hours() -> str:
    return f"{settings.IDLE_HOURS:g} h"


def _idle_warning(notice: Notice, row: Instance) -> _Mail:
    as_of = datetime.fromisoformat(str(notice.data["as_of"]))
    goes_at = keep_alive.goes_at(row, as_of)
    if row.activity_at != as_of or row.status != Status.RUNNING or goes_at <= clock.now():
        raise Overtaken
    lines = [
        f"That is {_full(notice, goes_at)}: {_hours()} after its last activity.",
        "The button opens a page that keeps it with one click, without signing in. Opening your terminal's page, an "
        "order or an open position keeps it as well.",
        "If it goes, what you made in it is kept, and one button brings up a new terminal with it.",
    ]
    link = keep_alive.url(row.pk, as_of)
    return f"Your demo terminal will be recycled {_near(notice, goes_at)}", lines, link, "Keep my terminal"


def _end_warning(notice: Notice, row: Instance) -> _Mail:
    ends_at = datetime.fromisoformat(str(notice.data["ends_at"]))
    if row.ends_at != ends_at or row.goal != Goal.RUNNING or ends_at <= clock.now():
        raise Overtaken
    lines = [
        f"That is {_full(notice, ends_at)}. Its days are over then, whatever it is doing: close what is open before.",
        "What you made in it is kept for a terminal of your own account.",
    ]
    return f"Your Press Pass ends {_near(notice, ends_at)}", lines, _terminal(), "Open my terminal"


def _kept(notice: Notice, row: Instance) -> list[str]:
    made_at = Keepsake.objects.filter(customer_id=row.customer_id).values_list("made_at", flat=True).first()
    if made_at is None:
        return []
    until = made_at + timedelta(days=settings.KEEPSAKE_DAYS)
    return [f"What you made in it is kept until {_full(notice, until)}, and deleted then."]


def _recycled(notice: Notice, row: Instance) -> _Mail:
    ends_at = passes.trial_ends_at(notice.customer)
    left = ends_at is not None and ends_at > clock.now()
    back = f"One button brings up a new one, until {_full(notice, ends_at)}." if left and ends_at else ""
    lines = [*([back] if back else []), *_kept(notice, row)]
    why = notice.data.get("why") or f"{_hours()} without activity"
    return f"Your demo terminal was recycled after {why}", lines, _terminal(), "Bring it back" if back else "Look at it"


def _pass_over(notice: Notice, row: Instance) -> _Mail:
    lines = ["Your terminal is cleared away. Nothing was charged.", *_kept(notice, row)]
    return "Your Press Pass has ended: its days are over", lines, _terminal(), "See how to go on"


def _slot_held(notice: Notice, row: Instance) -> _Mail:
    until = row.held_until
    if row.status != Status.WAITING or until is None or until <= clock.now():
        raise Overtaken
    lines = [
        f"That is until {_full(notice, until)}. Start your terminal before, and it is yours.",
        "If you don't, the slot goes to the next in line, and one button puts you back in it, at its end.",
    ]
    return f"A slot is held for you until {_near(notice, until)}", lines, _terminal(), "Start my terminal"


def _offer_passed(notice: Notice, row: Instance) -> _Mail:
    lines = ["You are not in line any more. One button puts you back in it, at its end."]
    return "The slot that was held for you went to the next in line", lines, _terminal(), "Stand in line again"


def _slot_came(notice: Notice, row: Instance) -> _Mail:
    if row.goal != Goal.RUNNING:
        raise Overtaken
    return "A slot came free: your terminal is ready", ["It was started at once."], _terminal(), "Open my terminal"


_MAILS: Mapping[Notice.Kind, Callable[[Notice, Instance], _Mail]] = MappingProxyType(
    {
        Notice.Kind.IDLE_WARNING: _idle_warning,
        Notice.Kind.END_WARNING: _end_warning,
        Notice.Kind.RECYCLED: _recycled,
        Notice.Kind.PASS_OVER: _pass_over,
        Notice.Kind.SLOT_HELD: _slot_held,
        Notice.Kind.OFFER_PASSED: _offer_passed,
        Notice.Kind.SLOT_CAME: _slot_came,
    }
)
KINDS = frozenset(_MAILS)
