"""What customers are told by mail of a machine that is silent or lost, and of a terminal that comes up on another one.

lost        told a minute later, and only if it does not run again by then: else one mail says both
up again    it runs on another machine: since when, and of when what came along is
silent      a live terminal's machine is silent for long, and not given up: by the brake, or because it is not fenced
heard       after that mail: the machine speaks again, and the terminal runs

Each is looked at again in the moment the mail is written; what is no longer so is not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.urls import reverse

from farm import clock, silence
from farm.models import Host, Instance, Transition
from farm.states import Goal, Kind, Status
from presspass import moments
from presspass.errors import Later, Overtaken
from presspass.lifecycle import coming
from presspass.models import Notice
from presspass.telling.elsewhere import WITHOUT_KEEPSAKE

TOLD_DOWN_AFTER = timedelta(minutes=1)
SILENT_AFTER = timedelta(minutes=10)
LOOKED_AGAIN_AFTER = timedelta(minutes=2)
"""After a trouble of our own all machines look silent until their next surveys are read."""
LOOK_EVERY = timedelta(minutes=1)
ON_HOST = (Status.STARTING, Status.RUNNING, Status.STOPPING)


def notice_of(line: Transition) -> Notice | None:
    """What a line in the journal is news of, if that is a loss or a move."""
    row = line.instance
    if line.became == Status.LOST:
        return _down(line)
    if line.became == Status.RUNNING and row.replaces_id is not None and _is_first(line):
        return _up_again(line)
    return None


def _down(line: Transition) -> Notice | None:
    """Of one that ran and comes up elsewhere; what had ended anyhow is no news."""
    row = line.instance
    successor = row.replaced_by.filter(kind=row.kind, goal=Goal.RUNNING).order_by("-pk").first()
    if successor is None or not row.transitions.filter(became=Status.RUNNING, pk__lt=line.pk).exists():
        return None
    heard = row.host.surveyed_at if row.host else None
    data = {"instance": successor.pk, "heard_at": heard.isoformat() if heard else ""}
    return Notice(
        customer_id=row.customer_id,
        kind=Notice.Kind.DOWN,
        transition=line,
        data=data,
        next_at=clock.now() + TOLD_DOWN_AFTER,
    )


def _up_again(line: Transition) -> Notice | None:
    row = line.instance
    came = coming.came(row)
    if came is None:
        return None
    cloned = row.transitions.filter(was=Status.CLONING, why__contains=WITHOUT_KEEPSAKE)
    data = {
        "instance": row.pk,
        "lost": came.lost,
        "heard_at": came.heard_at.isoformat() if came.heard_at else "",
        "kept_at": came.kept_at.isoformat() if came.kept_at else "",
        "kept_known": came.kept_known,
        "failed": cloned.exists(),
        "same_account": came.same_account,
    }
    return Notice(customer_id=row.customer_id, kind=Notice.Kind.UP_AGAIN, transition=line, data=data)


def _is_first(line: Transition) -> bool:
    return not Transition.objects.filter(instance=line.instance_id, became=Status.RUNNING, pk__lt=line.pk).exists()


def tell_of_silence() -> int:
    """Note what is to be told of live terminals whose machine is silent for long; return how many are in that case."""
    now = clock.now()
    silent = Q(host__surveyed_at__lt=now - SILENT_AFTER, host__lost_at__isnull=True)
    rows = Instance.objects.filter(silent, kind=Kind.LIVE, goal=Goal.RUNNING, status__in=ON_HOST)
    rows = rows.filter(proven_at__isnull=False).exclude(host__state=Host.State.RETIRED)
    wanted = []
    for row in rows.select_related("host"):
        heard = row.host.surveyed_at.isoformat() if row.host and row.host.surveyed_at else ""
        told = {"customer_id": row.customer_id, "about": f"{row.pk} {heard}"}
        data = {"instance": row.pk, "heard_at": heard}
        at = now + LOOKED_AGAIN_AFTER
        wanted.append(Notice(kind=Notice.Kind.SILENT, data=data, next_at=at, **told))
        wanted.append(Notice(kind=Notice.Kind.HEARD, data=data, next_at=at + LOOK_EVERY, **told))
    Notice.objects.bulk_create(wanted, ignore_conflicts=True)
    return len(wanted) // 2


# --- what the mails say -----------------------------------------------------------------------------------------------


_Mail = tuple[str, list[str]]


def words(notice: Notice) -> dict[str, Any]:
    """What the template needs: subject, lines, one button, why it comes. Raise :class:`Overtaken` or :class:`Later`."""
    row = Instance.objects.select_related("host").filter(pk=notice.data.get("instance")).first()
    if row is None or row.goal != Goal.RUNNING:
        raise Overtaken
    subject, lines = _MAILS[Notice.Kind(notice.kind)](notice, row)
    return {
        "folder": "presspass/mail/news",
        "subject": subject,
        "lines": lines,
        "link": settings.SITE_URL.rstrip("/") + reverse("presspass:terminal"),
        "label": "Open my terminal",
        "why": "you have a terminal with us",
        "support": settings.SUPPORT_EMAIL,
    }


def _down_mail(notice: Notice, row: Instance) -> _Mail:
    if row.status == Status.RUNNING:
        raise Overtaken
    lines = [f"{_last_reported(notice)}It is on our side. Your terminal comes up on another one."]
    if row.status == Status.WAITING and row.host_id is None:
        lines.append("All other slots are taken at the moment: it starts by itself in the next that is free.")
    if row.kind == Kind.LIVE:
        lines.append(
            "One account never runs twice: its old copy is surely stopped. Open positions stay at your broker."
        )
    return "The machine your terminal ran on is down", [*lines, "You get a mail when it runs again."]


def _last_reported(notice: Notice) -> str:
    heard = _moment(notice, "heard_at")
    return f"It last reported {_at(notice, heard)}. " if heard else ""


def _up_again_mail(notice: Notice, row: Instance) -> _Mail:
    lost, data = notice.data.get("lost"), notice.data
    kind = "live terminal" if row.kind == Kind.LIVE else "terminal"
    subject = f"Your {kind} runs again, on another machine" if lost else f"Your {kind} was moved to another machine"
    why = "The machine it ran on before is down." if lost else "The one before is being emptied, for its upkeep."
    lines = [f"{why} {_last_reported(notice)}".strip(), *_kept(notice)]
    if row.kind == Kind.PRESS_PASS and not data.get("same_account"):
        lines.append("It has another demo account now: what was open on the one before does not come along.")
    return subject, lines


def _kept(notice: Notice) -> list[str]:
    kept_at = _moment(notice, "kept_at")
    if notice.data.get("failed"):
        return [f"Your profiles and settings could not be brought over: write to {settings.SUPPORT_EMAIL}."]
    if kept_at is not None:
        return [f"Your profiles and settings are as of {_at(notice, kept_at)}."]
    return ["What you had made in it is not kept anywhere else: it starts as new."] if notice.data["kept_known"] else []


def _silent_mail(notice: Notice, row: Instance) -> _Mail:
    heard = _moment(notice, "heard_at")
    if not _is_silent_since(row, heard) or heard is None:
        raise Overtaken
    lines = [
        f"Since {_at(notice, heard)} it has not reported. Whether your terminal runs we don't know.",
        _what_comes(notice, row),
        "Open positions stay at your broker: if you must act, act there.",
    ]
    return "We hear nothing from the machine your live terminal runs on", lines


def _what_comes(notice: Notice, row: Instance) -> str:
    found = silence.outlook(row)
    at = found.elsewhere_at if found is not None and not found.brake else None
    once = "One account never runs twice: it comes up on another machine"
    if at is None:
        return f"{once} only after a person has made sure that this one does not run it."
    return f"{once} when its old copy is surely stopped: {_at(notice, at)}."


def _heard_mail(notice: Notice, row: Instance) -> _Mail:
    told = Notice.objects.filter(customer=notice.customer_id, kind=Notice.Kind.SILENT, about=notice.about).first()
    if told is None or row.status == Status.LOST:
        raise Overtaken
    if told.sent_at is None and told.next_at is None:
        raise Overtaken  # nobody was told of the silence
    if told.sent_at is None or silence.outlook(row) is not None or row.status != Status.RUNNING:
        raise Later(clock.now() + LOOK_EVERY)
    return "Your live terminal runs: we hear from its machine again", ["It runs on the machine that it ran on before."]


def _is_silent_since(row: Instance, heard: datetime | None) -> bool:
    return row.status != Status.LOST and row.host is not None and row.host.surveyed_at == heard


def _moment(notice: Notice, name: str) -> datetime | None:
    text = notice.data.get(name)
    return datetime.fromisoformat(str(text)) if text else None


def _at(notice: Notice, moment: datetime) -> str:
    return moments.full(moment, zone=moments.zone(notice.customer.time_zone)).text


_MAILS: Mapping[Notice.Kind, Callable[[Notice, Instance], _Mail]] = MappingProxyType(
    {
        Notice.Kind.DOWN: _down_mail,
        Notice.Kind.UP_AGAIN: _up_again_mail,
        Notice.Kind.SILENT: _silent_mail,
        Notice.Kind.HEARD: _heard_mail,
    }
)
KINDS = frozenset(_MAILS)
