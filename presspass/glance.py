"""What the admin's front page says: the farm, its customers, and what needs a person now. Each leads to its list."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.urls import reverse

from farm import clock, glance
from presspass import moments
from presspass.billing import staff
from presspass.lifecycle import runs
from presspass.models import Run, Subscription, User

MOST_COUNTED = 50_000
"""Beyond so many sign-ups a day the older hours are cut short."""
MOST_NEEDS = 20
HEIGHT = 60
STEP = 12
BAR = 9


@dataclass(frozen=True)
class Linked:
    text: str
    url: str


@dataclass(frozen=True)
class Counted(Linked):
    number: int


@dataclass(frozen=True)
class Bar:
    """One hour of the chart, drawn and as words."""

    x: int
    y: float
    height: float
    hour: str
    sign_ups: int
    started: int
    took: str


@dataclass(frozen=True)
class Glance:
    terminals: tuple[Counted, ...]
    total: int
    hosts: glance.Hosts
    needs: tuple[Linked, ...]
    bars: tuple[Bar, ...]
    sign_ups: int
    most: int
    users_url: str
    run: Run | None
    width: int = STEP * glance.HOURS
    height: int = HEIGHT
    bar_width: int = BAR


def look() -> Glance:
    found, hours, sign_ups = glance.terminals(), glance.last_day(), _sign_ups()
    hosts = glance.hosts()
    begins = hours[0].begins
    return Glance(
        terminals=tuple(Counted(word, _instances(status__exact=word), number) for word, number in found.by_status),
        total=found.total,
        hosts=hosts,
        needs=tuple(_needs(found)),
        bars=_bars(hours, sign_ups),
        sign_ups=sum(sign_ups.values()),
        most=max(sign_ups.values(), default=0),
        users_url=_listed("presspass_user", date_joined__gte=f"{begins:%Y-%m-%d %H:%M:%S}+00:00"),
        run=runs.last(runs.RECYCLES),
    )


def _needs(found: glance.Terminals) -> list[Linked]:
    """What needs a person now, the gravest first; of many causes the first few, and how many more there are."""
    troubles = runs.standing()
    needs = [Linked(one.title, runs.listed(one)) for one in troubles[:MOST_NEEDS]]
    if len(troubles) > MOST_NEEDS:
        needs.append(Linked(f"{len(troubles) - MOST_NEEDS} more.", _listed("presspass_alert")))
    unsolved = staff.unsolved(Subscription.objects.all()).count()
    if found.refused:
        listed = _instances(status__exact="running", connection__exact="refused")
        runs_while = "terminal runs" if found.refused == 1 else "terminals run"
        needs.append(Linked(f"{found.refused} {runs_while} while the broker refuses the login.", listed))
    if unsolved:
        needs.append(Linked(f"{unsolved} {staff.UNSOLVED}.", _listed("presspass_subscription")))
    return needs


def _instances(**filters: str) -> str:
    return _listed("farm_instance", **filters)


def _listed(model: str, **filters: object) -> str:
    url = reverse(f"admin:{model}_changelist")
    return f"{url}?{urlencode(filters)}" if filters else url


def _sign_ups() -> Counter[int]:
    """How many signed up in each of the last 24 hours, by how many hours ago."""
    now = clock.now()
    joined = User.objects.filter(date_joined__gt=now - glance.DAY).values_list("date_joined", flat=True)
    newest = joined.order_by("-date_joined")[:MOST_COUNTED]
    return Counter(min(glance.HOURS - 1, int((now - at) / timedelta(hours=1))) for at in newest.iterator())


def _bars(hours: tuple[glance.Hour, ...], sign_ups: Counter[int]) -> tuple[Bar, ...]:
    most = max(sign_ups.values(), default=0)
    found = []
    for place, hour in enumerate(hours):
        number = sign_ups.get(glance.HOURS - 1 - place, 0)
        height = round(HEIGHT * number / most, 1) if most else 0.0
        found.append(
            Bar(
                x=place * STEP,
                y=HEIGHT - height,
                height=height,
                hour=_span(hour.begins),
                sign_ups=number,
                started=hour.started,
                took=moments.length(hour.median_seconds) if hour.median_seconds is not None else "-",
            )
        )
    return tuple(found)


def _span(begins: datetime) -> str:
    return f"{begins:%a %H:%M}-{begins + timedelta(hours=1):%H:%M}"
