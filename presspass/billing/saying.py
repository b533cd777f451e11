"""A customer is to be told something by mail: a Notice, once for each thing that it is about."""

from __future__ import annotations

from datetime import datetime

from farm import doorbell
from presspass.billing import doors
from presspass.models import Notice


def say(customer_id: int, kind: Notice.Kind, *, about: str, **data: str | int | datetime | None) -> None:
    """``data`` is what stands in the rows now, so that the mail says what was decided."""
    kept = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in data.items()}
    _, new = Notice.objects.get_or_create(customer_id=customer_id, kind=kind, about=about, defaults={"data": kept})
    if new:
        doorbell.ring_on_commit(doors.SEND_NOTICES)
