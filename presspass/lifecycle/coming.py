"""Whether a terminal is there in place of one that ran on another machine, and what came along from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db.models import Q

from farm import keepsakes
from farm.models import Instance, Keepsake, Transition
from farm.states import Goal, Status
from presspass.telling import Came

MOVED = "moved to another machine"
"""Why a Press Pass ends that a drain moves on, and why the live one is made that replaces another."""
FURTHEST = 5
"""So far back it is looked: one that came up on a machine that was lost in its turn says nothing by itself."""


def came(row: Instance) -> Came | None:
    """A few small queries for one that replaces another of its kind; none for any other."""
    old = _before(row)
    for _ in range(FURTHEST):
        if old is None:
            return None
        journal = list(old.transitions.order_by("pk"))
        gone = next((line for line in journal if line.became == Status.LOST or line.why == MOVED), None)
        gone = gone or row.transitions.filter(was="", why=MOVED).first()
        if gone is None:
            return None
        if any(line.became == Status.RUNNING for line in journal):
            return _told(row, old, gone, journal)
        old = _before(old)  # nobody ever saw that one run
    return None


def went_on(rows: Iterable[Instance]) -> set[int]:
    """Which of them are only what is left on another machine of a terminal that goes on elsewhere."""
    ids = [row.pk for row in rows]
    of_them = Transition.objects.filter(Q(became=Status.LOST) | Q(why=MOVED), instance__in=ids)
    moved = Transition.objects.filter(was="", why=MOVED, instance__replaces__in=ids, instance__goal=Goal.RUNNING)
    left = moved.values_list("instance__replaces_id", flat=True)
    return {*of_them.values_list("instance_id", flat=True), *(pk for pk in left if pk is not None)}


def _before(row: Instance) -> Instance | None:
    if row.replaces_id is None:
        return None
    return Instance.objects.select_related("host").filter(pk=row.replaces_id, kind=row.kind).first()


def _told(row: Instance, old: Instance, gone: Transition, journal: Sequence[Transition]) -> Came:
    heard = old.host.surveyed_at if old.host else None
    lost = gone.became == Status.LOST
    kept_at, known = _kept(row)
    return Came(
        lost=lost,
        at=gone.at,
        heard_at=heard if lost and heard is not None and heard < gone.at else None,
        kept_at=kept_at,
        kept_known=known,
        same_account=row.account_id == old.account_id,
        stopped_for=next((line.why for line in reversed(journal) if line.became == Status.STOPPING), ""),
    )


def _kept(row: Instance) -> tuple[datetime | None, bool]:
    """Of when the keepsake is that comes along, and whether that is known: one of its own has perhaps replaced it."""
    kept = Keepsake.objects.filter(customer_id=row.customer_id).only("made_at", "from_instance_id").first()
    if kept is None:
        return None, True
    cloned = row.transitions.filter(was=Status.CLONING).order_by("pk").values_list("at", flat=True).first()
    if kept.from_instance_id == row.pk or (cloned is not None and kept.made_at > cloned):
        return None, False
    return (kept.made_at if cloned is not None or keepsakes.is_kept(row.customer_id) else None), True
