"""Looks at the farm once, with Django and the process table, and says what is not right. A program of its own.

    python -m benchmarks.chaos.verdict FACTS

FACTS is a JSON file: the stack's mark, each host's folder, who signed up, who paid. Prints one JSON object: ``unrest``
is what still moves (an empty list: all is at rest), ``wrong`` is what must never be at rest, ``figures`` what there is.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import psutil

django.setup()

from django.db.models import Q  # noqa: E402

from farm import placement  # noqa: E402
from farm.models import Host, HostEvent, Instance, Orphan, Seat, Watch  # noqa: E402
from farm.states import Goal, Kind, Status  # noqa: E402
from presspass.models import User  # noqa: E402
from tests.farm import invariants  # noqa: E402

Facts = dict[str, Any]


def terminals(mark: str) -> Counter[str]:
    """How many processes run in each clone's folder."""
    found: Counter[str] = Counter()
    for process in psutil.process_iter(["cmdline", "status"]):
        if "/portable" not in (process.info["cmdline"] or ()) or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        try:
            if process.environ().get("BITTEN_STACK") == mark:
                found[process.cwd()] += 1
        except (psutil.Error, OSError):
            continue
    return found


def folder(instance: Instance, facts: Facts) -> str:
    assert instance.host is not None
    return str(Path(facts["hosts"][instance.host.name], "Users", instance.folder))


# --- what still moves -------------------------------------------------------------------------------------------------


def unrest(facts: Facts) -> Iterator[str]:
    resting = Q(status__in=[Status.RUNNING, Status.STOPPED, Status.DESTROYED], next_at__isnull=True)
    in_line = Q(status=Status.WAITING, host__isnull=True)
    failed = Q(status=Status.FAILED, next_at__isnull=True)
    for instance in Instance.objects.filter(~(resting | in_line | failed)).select_related("host").order_by("pk"):
        yield f"{instance} on {instance.host}: {instance.reason} {instance.reason_detail}, goal {instance.goal}"
    if in_line_count := Instance.objects.filter(in_line, goal=Goal.RUNNING).count():
        free = sum(host.slots - host.taken for host in Host.objects.filter(placement.fresh()))
        if free > 0:
            yield f"{in_line_count} stand in line while {free} slots are free"
    for host in Host.objects.all():
        if host.lost_at is not None:
            yield f"{host} is lost: {host.lost_why}"
        elif not placement.is_fresh(host):
            yield f"{host} is silent"
    watch = Watch.objects.filter(pk=1).first()
    if watch is not None and watch.brake_why:
        yield f"brake: {watch.brake_why}"
    yield from world_and_rows_differ(facts)


def world_and_rows_differ(facts: Facts) -> Iterator[str]:
    """Processes and folders against the rows."""
    rows = Instance.objects.filter(host__isnull=False).exclude(status=Status.DESTROYED).select_related("host")
    known = {folder(instance, facts): instance for instance in rows}
    running = terminals(facts["mark"])
    for where, number in running.items():
        instance = known.get(where)
        if instance is None or instance.status != Status.RUNNING:
            yield f"a terminal runs in {where}, and its row says {instance and instance.status}"
        elif number > 1:
            yield f"{number} terminals run in {where}"
    for where, instance in known.items():
        if instance.status == Status.RUNNING and where not in running:
            yield f"{instance} has no process in {where}"
    for root in facts["hosts"].values():
        for clone in Path(root, "Users").glob("user_*"):
            if str(clone) not in known:
                yield f"{clone} is nobody's"


# --- what must not be -------------------------------------------------------------------------------------------------


def wrong(facts: Facts) -> Iterator[str]:
    try:
        invariants.check()
    except AssertionError as error:
        yield f"invariant: {error}"
    yield from (f"stuck: {instance}" for instance in invariants.stuck())
    yield from (f"orphan: {orphan}" for orphan in Orphan.objects.filter(gone_at__isnull=True))
    if early := Seat.objects.filter(instance__status=Status.LOST).count():
        yield f"{early} seats are held by lost rows"
    yield from lost_people(facts)


def lost_people(facts: Facts) -> Iterator[str]:
    """Whoever was told yes has a terminal that runs, one that visibly does not, or a place in line."""
    yield from (f"{email} signed up and is not known" for email in _unknown(facts["signed_up"]))
    for email in facts["signed_up"]:
        if not _is_served(email, kinds=list(Kind)):
            yield f"{email} signed up and has nothing"
    for email in facts["paid"]:
        if not _is_served(email, kinds=[Kind.LIVE]):
            yield f"{email} paid and has no live terminal"


def _unknown(emails: list[str]) -> list[str]:
    known = set(User.objects.filter(email__in=emails).values_list("email", flat=True))
    return sorted(set(emails) - known)


def _is_served(email: str, *, kinds: list[Kind]) -> bool:
    rows = Instance.objects.filter(customer__email=email, kind__in=kinds, goal=Goal.RUNNING)
    return rows.filter(status__in=[Status.RUNNING, Status.FAILED, Status.WAITING]).exists()


def figures() -> dict[str, Any]:
    rows = Instance.objects.exclude(status=Status.DESTROYED)
    failed = Instance.objects.filter(status=Status.FAILED).values_list("reason", flat=True)
    return {
        "rows": dict(Counter(f"{kind} {status}" for kind, status in rows.values_list("kind", "status"))),
        "failed_for": dict(Counter(failed)),
        "live_proven": Instance.objects.filter(kind=Kind.LIVE, status=Status.RUNNING, proven_at__isnull=False).count(),
        "destroyed": Instance.objects.filter(status=Status.DESTROYED).count(),
        "host_events": dict(Counter(HostEvent.objects.values_list("what", flat=True))),
        "given_up": [f"{event.host}: {event.why}" for event in HostEvent.objects.filter(what="lost").order_by("pk")],
    }


def main(path: Path) -> None:
    facts = json.loads(path.read_text("utf-8"))
    moving = list(unrest(facts))
    print(json.dumps({"unrest": moving, "wrong": list(wrong(facts)), "figures": figures()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
