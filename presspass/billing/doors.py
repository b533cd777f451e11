"""The names of this package's tasks, and rings for them: a lost ring costs time, because the beat looks at the rows."""

from __future__ import annotations

from farm import doorbell

SETTLE = "presspass.settle"
REFUND = "presspass.refund"
LOOK = "presspass.look_at_payments"
CHECK = "presspass.check_checkout"
NEWS = "presspass.notice_news"
SEND_NOTICES = "presspass.send_notices"


def ring_on_commit(task: str, *args: int) -> None:
    doorbell.ring_on_commit(task, *args)
