"""The link in a warning that keeps a terminal: good for the one warning, looked at by GET, used by POST.

It names the activity that the warning was about. Whatever is newer than that makes it void, using it above all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.core import signing
from django.urls import reverse

from farm import clock
from farm import lifecycle as farm_lifecycle
from farm.models import Instance
from farm.states import Goal
from presspass.errors import BadLink

SCOPE = "presspass.keep-alive"


@dataclass(frozen=True)
class Kept:
    instance: Instance
    as_of: datetime
    goes_at: datetime
    """When it is recycled, or its days are over, if nothing happens."""
    is_good: bool
    """Whether the link can still be used."""


def url(instance_id: int, as_of: datetime) -> str:
    token = signing.dumps([instance_id, as_of.isoformat()], salt=SCOPE)
    return f"{settings.SITE_URL.rstrip('/')}{reverse('presspass:keep')}?{urlencode({'token': token})}"


def look_at(token: str) -> Kept:
    """What the link is about, without using it. Raise :class:`BadLink` if it is none, or its terminal is gone."""
    try:
        instance_id, as_of = signing.loads(token, salt=SCOPE)
        moment = datetime.fromisoformat(as_of)
    except (signing.BadSignature, ValueError, TypeError) as error:
        raise BadLink from error
    row = Instance.objects.select_related("customer").filter(pk=instance_id, goal=Goal.RUNNING).first()
    if row is None or row.activity_at is None:
        raise BadLink
    return Kept(row, moment, goes_at(row, row.activity_at), row.activity_at == moment)


def use(token: str) -> Kept:
    """Keep the terminal, once. Raise :class:`BadLink` as :func:`look_at` does."""
    kept = look_at(token)
    if not kept.is_good or not farm_lifecycle.keep_alive(kept.instance.pk, as_of=kept.as_of):
        return look_at(token)
    return Kept(kept.instance, kept.as_of, goes_at(kept.instance, clock.now()), is_good=True)


def goes_at(row: Instance, active_at: datetime) -> datetime:
    idle_at = active_at + timedelta(hours=settings.IDLE_HOURS)
    return min(idle_at, row.ends_at) if row.ends_at else idle_at
