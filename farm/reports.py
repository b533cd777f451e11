"""What hosts say, taken in: shells around farm.lifecycle for the queues `reports` and `surveys`."""

from __future__ import annotations

from typing import Any

from farm import errors, lifecycle, orders


def record(envelope: Any) -> None:
    try:
        lifecycle.record(envelope)
    except errors.Untrusted as error:
        orders.note_forged(error)


def record_survey(envelope: Any) -> None:
    try:
        lifecycle.record_survey(envelope)
    except errors.Untrusted as error:
        orders.note_forged(error)
