"""What on the farm a person must see to now: what happened, whose side it is on, what to do. Reads only.

Who tells it is presspass (one mail per cause, the admin's front page). A constant number of queries; those over
instances read partial indexes, so that nothing here grows with what is well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Max, Min, Q, QuerySet

from farm import clock, fencing, leases, silence
from farm.models import Host, HostEvent, Instance, Orphan, Watch
from farm.orders import FORGED
from farm.states import Goal, Kind, Status

FORGED_LATELY = timedelta(hours=1)
EVENTS_LOOKED_AT = 1000
"""The newest so many: there is no index over all hosts' events by time, and none is worth having for this."""
POOL_LOW_FOR = timedelta(minutes=10)
"""A burst of sign-ups empties a pool, and it is refilled; one that stays so has a host that cannot copy."""
LINE_PATIENCE = timedelta(minutes=15)
HOUR = timedelta(hours=1)
UNSEEN_WATCH_SECONDS = 60.0
UNLEASED_FOR = timedelta(minutes=5)
"""A machine that was started anew waits until the lease of before is surely over, which is not longer."""
UNWANTED_FOR = timedelta(minutes=1)

_WRITTEN = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One cause that a person must see to."""

    cause: str
    """Its name, for as long as it lasts: at most 60 characters."""
    title: str
    """What happened, in one sentence."""
    more: str = ""
    """Whose side it is on, and what to do."""
    listed: str = "farm_host"
    """The list in the admin where it is looked at, by app and model."""
    only: Mapping[str, object] = field(default_factory=dict)
    """The filters of that list."""
    newest: datetime | None = None
    """For a cause that gathers many: when the last of them joined. It is told again when more did."""
    patience: timedelta = timedelta()
    """It must have lasted for so long before anybody is told."""


def every() -> list[Trouble]:
    """What there is, the gravest first."""
    watch = Watch.objects.filter(pk=1).first() or Watch(pk=1)
    hosts = list(Host.objects.exclude(state=Host.State.RETIRED).order_by("name"))
    return [
        *_lost(hosts),
        *_brake(watch),
        *_watching(watch, hosts),
        *_leases(watch, hosts),
        *_silent(hosts, watch),
        *_forged(),
        *_policies(hosts),
        *_unleased(hosts),
        *_unwanted(hosts),
        *_failed(),
        *_failing(),
        *_orphans(),
        *_line(),
        *_pools(hosts),
    ]


def _at(moment: datetime) -> str:
    return f"{moment:{_WRITTEN}}"


# --- the watch and the leases -----------------------------------------------------------------------------------------


def _brake(watch: Watch) -> Iterator[Trouble]:
    if not watch.brake_why:
        return
    since = f" since {_at(watch.brake_since)}" if watch.brake_since else ""
    lets_go = (
        "It was pulled by hand, and only a person lets it go."
        if watch.brake_by_hand
        else f"It lets go by itself when all has gone well for {settings.BRAKE_GRACE_SECONDS:g} s."
    )
    yield Trouble(
        cause="brake on",
        title=f"The brake is on{since}: {watch.brake_why}. Nothing is failed over.",
        more=f"{lets_go} Look first whether the fault is ours: the portal's network, database or broker. If the silent "
        "machines are really down, release the brake on the list of hosts.",
    )


def _watching(watch: Watch, hosts: list[Host]) -> Iterator[Trouble]:
    longest = max(UNSEEN_WATCH_SECONDS, 12 * settings.WATCH_SECONDS)
    if not hosts or _is_younger(watch.looked_at, longest):
        return
    since = f"since {_at(watch.looked_at)}" if watch.looked_at else "ever"
    yield Trouble(
        cause="watch_hosts not run",
        title=f"Nobody has looked after the hosts {since}: one that dies now is not failed over.",
        more="It is on our side: the task farm.watch_hosts is rung by beat and done by the portal's worker. See that "
        "both run.",
    )


def _leases(watch: Watch, hosts: list[Host]) -> Iterator[Trouble]:
    fenced = [host for host in hosts if host.policy == Host.Policy.FENCED and host.lost_at is None]
    if not fenced or _is_younger(watch.leases_seen_at, settings.LEASE_SECONDS / 3):
        return
    since = f"since {_at(watch.leases_seen_at)}" if watch.leases_seen_at else "ever"
    yield Trouble(
        cause="keep_leases not run",
        title=f"keep_leases has not shown that it lives {since}: the live terminals stop when their leases end.",
        more=f"It is on our side, and every lease is over within {settings.LEASE_SECONDS:g} s: start "
        "`manage.py keep_leases` (two may run). Terminals that were stopped start again by themselves.",
    )


def _is_younger(moment: datetime | None, seconds: float) -> bool:
    return moment is not None and clock.now() - moment <= timedelta(seconds=seconds)


# --- hosts ------------------------------------------------------------------------------------------------------------


def _lost(hosts: list[Host]) -> Iterator[Trouble]:
    for host in hosts:
        if host.lost_at is not None:
            yield Trouble(
                cause=f"host lost {host.pk}",
                title=f"Host {host.name} was given up at {_at(host.lost_at)}.",
                more=f"{host.lost_why or 'It stayed silent until its fence had passed'}. What it ran comes up on other "
                "hosts. It is the machine's side, or its network's. When it speaks again it destroys what it had, and "
                "is in use again; one that never comes back is to be retired.",
                only={"name": host.name},
            )


def _silent(hosts: list[Host], watch: Watch) -> Iterator[Trouble]:
    now = clock.now()
    longest = timedelta(seconds=settings.MOVE_SECONDS)
    silent = [host for host in hosts if host.lost_at is None and host.surveyed_at and now - host.surveyed_at > longest]
    if not silent:
        return
    there = Instance.objects.filter(host__in=silent, goal=Goal.RUNNING)
    there = there.exclude(status__in=[Status.WAITING, Status.DESTROYED])
    held = {(pk, kind): number for pk, kind, number in there.values_list("host", "kind").annotate(n=Count("pk"))}
    for host in silent:
        live, others = held.get((host.pk, Kind.LIVE), 0), held.get((host.pk, Kind.PRESS_PASS), 0)
        yield Trouble(
            cause=f"host silent {host.pk}",
            title=f"Host {host.name} is silent since {_at(host.surveyed_at or now)}.",
            more=f"It holds {live} live terminal{_s(live)} and {others} Press Pass{'' if others == 1 else 'es'}. "
            f"{_what_comes(host, watch)} The fault is the machine's, its network's or its agent's: see whether it is "
            "up, and start the agent if that is what is missing.",
            only={"name": host.name},
        )


def _what_comes(host: Host, watch: Watch) -> str:
    at = silence.fenced_off_at(host)
    if at is None:
        return (
            "It is never given up by itself, for nothing fences it: do that in the admin when you have made sure that "
            "the machine is off."
        )
    if watch.brake_why:
        return f"The brake is on; without it, it would be given up at {_at(at)}."
    return f"It is given up at {_at(at)} if it stays silent."


def _policies(hosts: list[Host]) -> Iterator[Trouble]:
    for host in hosts:
        if host.said_policy and host.said_policy != host.policy:
            means = (
                "Its live terminals run without a lease, so it is never failed over by itself."
                if host.policy == Host.Policy.FENCED
                else "Its live terminals need a lease and are granted none: they stop."
            )
            yield Trouble(
                cause=f"policy of host {host.pk}",
                title=f"Host {host.name} runs as {host.said_policy}, and is {host.policy} here.",
                more=f"{means} Somebody changed one side only: set FARM_POLICY on the host or the policy here, so that "
                "they agree.",
                only={"name": host.name},
                patience=timedelta(seconds=60),
            )
        elif not host.watchdog_ok and host.policy == Host.Policy.FENCED and _is_heard(host):
            yield Trouble(
                cause=f"watchdog of host {host.pk}",
                title=f"The watchdog of host {host.name} does not tick: no live terminal runs there.",
                more="The agent has stopped them. It is on the machine: start `python -m farm.agent watchdog` there.",
                only={"name": host.name},
                patience=timedelta(seconds=60),
            )


def _unleased(hosts: list[Host]) -> Iterator[Trouble]:
    """Fenced hosts that are heard, and whose live terminals stand still because no lease comes there."""
    fenced = [host for host in hosts if Host.Policy.FENCED == host.policy == host.said_policy and host.watchdog_ok]
    bare = [host for host in fenced if host.lost_at is None and _is_heard(host) and _said(host, "lease_left") is None]
    live = Instance.objects.filter(host__in=bare, kind=Kind.LIVE, goal=Goal.RUNNING).exclude(status=Status.WAITING)
    held = dict(live.values_list("host").annotate(Count("pk"))) if bare else {}
    for host in bare:
        if number := held.get(host.pk, 0):
            yield Trouble(
                cause=f"lease of host {host.pk}",
                title=f"Host {host.name} is heard, without a lease: its {number} live terminal{_s(number)} cannot run.",
                more=f"None is granted now: {why}."
                if (why := leases.why_no_lease(host))
                else f"For {UNLEASED_FOR.seconds // 60} min its requests have not come, or the answers not reached it: "
                "see whether its login at the broker may write into `leases` and read its own queue. If it stays so, "
                "shut the machine off and give it up in the admin: what it ran comes up elsewhere.",
                only={"name": host.name},
                patience=UNLEASED_FOR,
            )


def _unwanted(hosts: list[Host]) -> Iterator[Trouble]:
    long_ago = (clock.now() - UNWANTED_FOR).timestamp()
    for host in hosts:
        seen = _said(host, "unwanted") or {}
        numbers = sorted(int(pk) for pk, since in seen.items() if since <= long_ago)
        if numbers and _is_heard(host):
            yield Trouble(
                cause=f"unwanted on host {host.pk}",
                title=f"Host {host.name} runs {len(numbers)} terminal{_s(len(numbers))} that should be stopped: "
                f"{', '.join(map(str, numbers[:10]))}{' …' if len(numbers) > 10 else ''}.",
                more="Nothing is done about it, for a live one may trade. Somebody started it on the machine: stop it "
                "there with `python -m farm.agent`, or destroy it in the admin.",
                listed="farm_instance",
                only={"host__id__exact": host.pk},
            )


def _said(host: Host, name: str) -> Any:
    return host.load.get(name) if isinstance(host.load, dict) else None


def _is_heard(host: Host) -> bool:
    return fencing.dark_since(leases.facts(host), clock.now(), leases.rules()) is None and host.surveyed_at is not None


def _pools(hosts: list[Host]) -> Iterator[Trouble]:
    for host in hosts:
        pool = _said(host, "pool")
        if not _is_heard(host) or not isinstance(pool, dict):
            continue
        ready, size = pool.get("ready"), pool.get("size")
        if isinstance(ready, int) and isinstance(size, int) and 2 * ready < size:
            yield Trouble(
                cause=f"pool of host {host.pk}",
                title=f"Host {host.name} has {ready} of {size} clones in reserve: start-ups wait for a copy there.",
                more=f"It has been so for {POOL_LOW_FOR.seconds // 60} min, so it is no burst of sign-ups: the disk is "
                "full or slow, or the master is not in order. Its page shows both.",
                only={"name": host.name},
                patience=POOL_LOW_FOR,
            )


def _forged() -> Iterator[Trouble]:
    newest = list(HostEvent.objects.select_related("host").order_by("-pk")[:EVENTS_LOOKED_AT])
    lately = [event for event in newest if event.what == FORGED and clock.now() - event.at <= FORGED_LATELY]
    counted = Counter(event.host_id for event in lately)
    last = {event.host_id: event for event in reversed(lately)}
    for host_id, event in last.items():
        whose = f"in the name of host {event.host.name}" if event.host else "that no host of ours signed"
        more = f"{event.why}. " if event.why else ""
        yield Trouble(
            cause=f"forged message {host_id or ''}".strip(),
            title=f"A message {whose} was refused at {_at(event.at)}.",
            more=f"{more}It did nothing. Seen {counted[host_id]} time{_s(counted[host_id])} within the hour, counted "
            "at most once in ten minutes. A host whose keys were changed on one side looks so; if that is not it, "
            "somebody who is not a host can write to the broker: change its logins.",
            listed="farm_hostevent",
            only={"what": FORGED},
            newest=event.at,
        )


# --- instances --------------------------------------------------------------------------------------------------------


def _failed() -> Iterator[Trouble]:
    stuck = Instance.objects.filter(status=Status.FAILED, next_at__isnull=True)
    found = stuck.aggregate(number=Count("pk"), newest=Max("status_since"), live=Count("pk", filter=Q(kind=Kind.LIVE)))
    number, live = found["number"], found["live"]
    if number:
        yield Trouble(
            cause="terminals failed",
            title=f"{number} terminal{_s(number)} failed, and {'is' if number == 1 else 'are'} not tried again by "
            f"{'itself' if number == 1 else 'themselves'}; {live} of them live.",
            more="It is on our side, and their customers are told so. Each says why; try again when that is mended.",
            listed="farm_instance",
            only={"status__exact": Status.FAILED.value},
            newest=found["newest"],
        )


def _failing() -> Iterator[Trouble]:
    """Those that are tried again for as long as it takes: what hinders them is the host's, its disk or its master."""
    tried = Instance.objects.filter(next_at__isnull=False, attempts__gte=settings.RETRY_ATTEMPTS)
    found = tried.aggregate(number=Count("pk"), live=Count("pk", filter=Q(kind=Kind.LIVE)))
    number = found["number"]
    if number:
        yield Trouble(
            cause="terminals keep failing",
            title=f"{number} terminal{_s(number)} failed {settings.RETRY_ATTEMPTS} times or more; {found['live']} of "
            "them live.",
            more="It is on our side, mostly a host's disk or master: each says why. They are tried again until it is "
            "mended.",
            listed="farm_instance",
            only={"attempts__gte": settings.RETRY_ATTEMPTS},
        )


def _orphans() -> Iterator[Trouble]:
    found = Orphan.objects.filter(gone_at__isnull=True).aggregate(number=Count("pk"), newest=Max("first_seen_at"))
    number = found["number"]
    if number:
        yield Trouble(
            cause="orphans",
            title=f"{number} folder{_s(number)} or terminal{_s(number)} on our hosts that no row accounts for.",
            more=f"Left alone, and its account given to nobody. What surely trades nothing is destroyed "
            f"{settings.ORPHAN_HOURS:g} h after it was first seen; the others wait for you.",
            listed="farm_orphan",
            newest=found["newest"],
        )


def in_line() -> QuerySet[Instance]:
    return Instance.objects.filter(status=Status.WAITING, host__isnull=True, goal=Goal.RUNNING)


def _line() -> Iterator[Trouble]:
    """Told when more wait than an hour ago, and the first of them has waited for a quarter of an hour.

    How many waited an hour ago is not stored; it follows from when the rows were made: those of them that still wait,
    those that first ran since, and those that left without ever having had an order.
    """
    now = clock.now()
    ago = now - HOUR
    waiting = in_line().aggregate(
        number=Count("pk"), older=Count("pk", filter=Q(created_at__lte=ago)), first=Min("created_at")
    )
    if not waiting["number"] or now - waiting["first"] < LINE_PATIENCE:
        return
    came = Instance.objects.filter(first_running_at__gt=ago)
    served = came.filter(created_at__lte=ago).count()
    left = Instance.objects.filter(
        status=Status.DESTROYED, status_since__gt=ago, created_at__lte=ago, generation=0, first_running_at__isnull=True
    ).count()
    before = waiting["older"] + served + left
    if waiting["number"] <= before:
        return
    yield Trouble(
        cause="waiting list grows",
        title=f"{waiting['number']} stand in line for a slot; an hour ago {before} did.",
        more=f"The first has waited since {_at(waiting['first'])}. "
        + ("Some were served meanwhile. " if came.exists() else "Nobody came to run meanwhile. ")
        + "It is on our side: add a host or slots, see whether hosts are silent, draining or without a fit master, "
        "and whether recycle_idle runs.",
        listed="farm_instance",
        only={"status__exact": Status.WAITING.value},
    )


def _s(number: int) -> str:
    return "" if number == 1 else "s"
