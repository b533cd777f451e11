"""What must hold of the farm's rows at every moment, whatever happened."""

from __future__ import annotations

from django.db.models import Count, F, Q

from farm.models import Host, Instance, Port, Seat, Transition
from farm.states import HOLDS_SLOT, Goal, Kind, Status


def check() -> None:
    slots_and_ports_add_up()
    seats_are_kept()
    nothing_went_before_its_successor_was_proven()
    nothing_lost_is_meant_to_run()


def slots_and_ports_add_up() -> None:
    for host in Host.objects.all():
        used = Port.objects.filter(host=host, instance__isnull=False)
        holding = Instance.objects.filter(Q(status__in=HOLDS_SLOT) | Q(status=Status.WAITING), host=host)
        numbers = {host.taken, used.count(), holding.count()}
        assert len(numbers) == 1, f"{host}: taken {host.taken}, ports {used.count()}, instances {holding.count()}"
        assert not used.exclude(instance__host=host).exists()


def nothing_lost_is_meant_to_run() -> None:
    lost = Instance.objects.filter(status=Status.LOST)
    assert not lost.exclude(goal=Goal.DESTROYED).exists()
    assert not Seat.objects.filter(instance__in=lost.filter(kind=Kind.LIVE)).exists(), "a lost live one has its seat"


def seats_are_kept() -> None:
    gone = Seat.objects.filter(instance__status=Status.DESTROYED)
    assert not gone.exists(), "a destroyed instance has a seat"
    # Only the holder of its seat may have a process with an account: it is stopped before the seat goes on.
    up = Q(status__in=[Status.INJECTING, Status.STARTING, Status.RUNNING, Status.STOPPING])
    seatless = Instance.objects.filter(up, account__isnull=False, seat__isnull=True)
    assert not seatless.exists(), f"{list(seatless)} may run an account without its seat"


def nothing_went_before_its_successor_was_proven() -> None:
    early = Transition.objects.filter(why="replaced by its successor").annotate(
        proven=Count("instance__replaced_by", filter=Q(instance__replaced_by__proven_at__isnull=False))
    )
    assert not early.filter(proven=0).exists()
    passes = Instance.objects.filter(kind=Kind.PRESS_PASS).exclude(goal=Goal.DESTROYED)
    assert not passes.values("customer").annotate(many=Count("pk")).filter(many__gt=1).exists()


def stuck() -> list[Instance]:
    """Rows that nothing will ever move, and that nobody sees: not at rest, not in line, not failed, not due."""
    resting = Q(status__in=[Status.RUNNING, Status.STOPPED, Status.DESTROYED], next_at__isnull=True)
    in_line = Q(status=Status.WAITING, host__isnull=True)
    held = Q(status=Status.WAITING, held_until__isnull=False)
    failed = Q(status=Status.FAILED)
    due = Q(next_at__isnull=False)
    behind = Q(status=Status.WAITING, held_until__isnull=True, host__isnull=False) & ~Q(
        replaces__status__in=[Status.STOPPED, Status.DESTROYED, Status.RUNNING]
    )
    # Its own customer's, on its way out, has the seat that it wants.
    behind |= Q(status=Status.WAITING, host__isnull=False, held_until__isnull=True) & Q(
        customer__instances__seat__isnull=False, customer__instances__goal=Goal.DESTROYED
    )
    wrong_goal = Q(status=Status.RUNNING) & ~Q(goal=Goal.RUNNING) | Q(status=Status.STOPPED) & ~Q(goal=Goal.STOPPED)
    rows = Instance.objects.filter(~(resting | in_line | held | failed | due | behind) | wrong_goal)
    return list(rows.annotate(old=F("replaces__status")).distinct())
