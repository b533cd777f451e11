"""That recycle_idle runs, and what else staff must see to, told by mail once per cause."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.core.mail import EmailMessage
from django.urls import reverse

from farm import clock, trouble, vault
from farm.models import BrokerAccount
from farm.trouble import Trouble
from presspass.models import Alert, Run

RECYCLES = "recycle_idle"
TOLD_AGAIN = timedelta(hours=1)
"""A cause that gathers more and more is told again, and not more often than this."""

log = logging.getLogger(__name__)


def begin(name: str) -> None:
    Run.objects.update_or_create(name=name, defaults={"started_at": clock.now()})


def finish(name: str, counts: dict[str, int]) -> None:
    Run.objects.filter(name=name).update(finished_at=clock.now(), counts=counts)


def last(name: str) -> Run | None:
    return Run.objects.filter(name=name).first()


def causes() -> list[Trouble]:
    """What a person must see to now, the gravest first."""
    late, low = lateness(), vault_low()
    found = trouble.every()
    if late:
        about = "It is on our side: cron or beat runs `manage.py recycle_idle`. See that it does, and what it says."
        found.append(Trouble(cause="recycle_idle late", title=late, more=about, listed="presspass_run"))
    if low:
        about = "A Press Pass then starts without one, or waits. Import more, under Broker accounts."
        only = {"owner__isempty": 1}
        found.append(Trouble(cause="vault low", title=low, more=about, listed="farm_brokeraccount", only=only))
    return found


def standing() -> list[Trouble]:
    """What has lasted for long enough to need a person."""
    now, found = clock.now(), causes()
    since = dict(Alert.objects.values_list("cause", "since"))
    return [one for one in found if now - since.get(one.cause, now) >= one.patience]


def lateness() -> str:
    run = last(RECYCLES)
    if run is None:
        return "recycle_idle has never run: nothing is recycled, and the waiting list waits."
    if run.finished_at is not None and clock.now() - run.finished_at <= timedelta(
        seconds=settings.RECYCLE_LATE_SECONDS
    ):
        return ""
    when = f"{run.finished_at:%Y-%m-%d %H:%M:%S} UTC" if run.finished_at else "never"
    return f"recycle_idle has not come to its end since {when}: idle terminals keep their slots."


def vault_low() -> str:
    """Nothing is said of a vault that was never filled: some farms give no demo accounts."""
    if settings.VAULT_LOW <= 0 or not BrokerAccount.objects.filter(owner__isnull=True).exists():
        return ""
    free = len(vault.free_demos().values_list("pk", flat=True)[: settings.VAULT_LOW])
    if free >= settings.VAULT_LOW:
        return ""
    return f"The vault holds {free} free demo account{'' if free == 1 else 's'}; fewer than {settings.VAULT_LOW}."


# --- told by mail -----------------------------------------------------------------------------------------------------


def watch() -> list[str]:
    """Compare the causes with what staff were told; mail what is new, forget what is over. Return what was mailed.

    Each cause is told once. All that are new at one look are one mail, so that many hosts at once are no storm.
    """
    found = causes()
    _note({one.cause: one for one in found})
    alerts = {alert.cause: alert for alert in Alert.objects.filter(told_at__isnull=True)}
    now = clock.now()
    due = [one for one in found if one.cause in alerts and now - alerts[one.cause].since >= one.patience]
    return _mailed(due, alerts) if due and settings.ALERT_EMAILS else []


def _note(found: Mapping[str, Trouble]) -> None:
    """Bring the rows up to date: what is over goes, what is new comes, and what has grown is told again."""
    now = clock.now()
    Alert.objects.exclude(cause__in=found).delete()
    known = {alert.cause: alert for alert in Alert.objects.all()}
    new = [Alert(cause=one.cause, text=one.title[:300], since=now) for one in found.values() if one.cause not in known]
    Alert.objects.bulk_create(new, ignore_conflicts=True)
    for cause, alert in known.items():
        text = found[cause].title[:300]
        if text != alert.text:
            Alert.objects.filter(pk=alert.pk).update(text=text)
        if _has_grown(alert, found[cause].newest, now):
            Alert.objects.filter(pk=alert.pk, told_at=alert.told_at).update(told_at=None)


def _has_grown(alert: Alert, newest: datetime | None, now: datetime) -> bool:
    """Whether more of the same joined since it was told, and that is long enough ago to tell it again."""
    if alert.told_at is None or newest is None:
        return False
    return newest > alert.told_at and now - alert.told_at >= TOLD_AGAIN


def _mailed(due: Sequence[Trouble], alerts: Mapping[str, Alert]) -> list[str]:
    """Tell each of them once: claimed first, and given back if the mail server says no."""
    now, mine = clock.now(), []
    for one in due:
        if Alert.objects.filter(pk=alerts[one.cause].pk, told_at__isnull=True).update(told_at=now) == 1:
            mine.append(one)
    if not mine:
        return []
    more = f" (and {len(mine) - 1} more)" if len(mine) > 1 else ""
    body = "\n\n".join(_section(one, alerts[one.cause]) for one in mine)
    try:
        EmailMessage(subject=f"{mine[0].title}{more}", body=f"{body}\n", to=settings.ALERT_EMAILS).send()
    except Exception as error:  # a mail server fails in too many ways to name
        causes_of_it = [one.cause for one in mine]
        log.warning("alert not sent", extra={"causes": causes_of_it, "error": type(error).__name__})
        Alert.objects.filter(cause__in=causes_of_it, told_at=now).update(told_at=None)
        return []
    return [one.cause for one in mine]


def _section(one: Trouble, alert: Alert) -> str:
    lines = [one.title, *([one.more] if one.more else []), f"Since {alert.since:%Y-%m-%d %H:%M:%S} UTC.", _link(one)]
    return "\n".join(lines)


def _link(one: Trouble) -> str:
    return settings.SITE_URL.rstrip("/") + listed(one)


def listed(one: Trouble) -> str:
    """The path of the list in the admin where it is looked at."""
    url = reverse(f"admin:{one.listed}_changelist")
    return f"{url}?{urlencode(one.only)}" if one.only else url
