"""For staff: what rehearsed failovers took, host by host, and the journal of hosts."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from farm.look_at_only import LookAtOnly
from farm.models import Drill, Host, HostEvent

DRILLS_DRAWN = 20
HEIGHT = 60
STEP = 14
BAR = 10
PARTS = ("detect", "fence", "restore")


@admin.register(Drill)
class DrillAdmin(LookAtOnly):
    list_display = ("began_at", "host", "instances", "detect", "fence", "restore", "trouble")
    list_filter = ("host",)
    list_select_related = ("host",)
    ordering = ("-pk",)

    @admin.display(description="detect", ordering="detect_seconds")
    def detect(self, drill: Drill) -> str:
        return in_seconds(drill.detect_seconds)

    @admin.display(description="fence", ordering="fence_seconds")
    def fence(self, drill: Drill) -> str:
        return in_seconds(drill.fence_seconds)

    @admin.display(description="restore", ordering="restore_seconds")
    def restore(self, drill: Drill) -> str:
        return in_seconds(drill.restore_seconds)


@admin.register(HostEvent)
class HostEventAdmin(LookAtOnly):
    list_display = ("at", "whose", "what", "why", "who")
    list_filter = ("what", "host")
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[HostEvent]:
        return super().get_queryset(request).select_related("host")

    @admin.display(description="host", ordering="host")
    def whose(self, event: HostEvent) -> str:
        return event.host.name if event.host else "the farm"


def in_seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def trend(host: Host) -> SafeString:
    """The newest drills of ``host`` as a small picture with its numbers in a table; "" if there were none.

    Each is a bar of three parts: until it counted as silent, until its fence had passed, until all ran elsewhere.
    """
    drills = list(host.drills.filter(restore_seconds__isnull=False).order_by("-pk")[:DRILLS_DRAWN])[::-1]
    if not drills:
        return SafeString("")
    longest = max(_whole(drill) for drill in drills) or 1.0
    bars = [bar for place, drill in enumerate(drills) for bar in _bars(drill, x=place * STEP, longest=longest)]
    words = {
        "bars": bars,
        "drills": drills[::-1],
        "width": STEP * len(drills),
        "height": HEIGHT,
        "bar_width": BAR,
        "longest": in_seconds(longest),
    }
    return render_to_string("admin/farm/drills.html", words)


def _whole(drill: Drill) -> float:
    return sum(_part(drill, part) for part in PARTS)


def _part(drill: Drill, part: str) -> float:
    return float(getattr(drill, f"{part}_seconds") or 0.0)


def _bars(drill: Drill, *, x: int, longest: float) -> list[dict[str, object]]:
    """From the ground up in the order in which they pass."""
    found, ground = [], float(HEIGHT)
    for part in PARTS:
        seconds = _part(drill, part)
        height = round(HEIGHT * seconds / longest, 1)
        ground -= height
        title = f"{drill.began_at:%Y-%m-%d %H:%M} UTC, {part}: {in_seconds(seconds)}"
        found.append({"x": x, "y": round(ground, 1), "height": height, "part": part, "title": title})
    return found
