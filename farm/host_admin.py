"""Hosts for staff: what each is to us at this moment, why, and what may be done with it. Nothing here decides.

Whatever is done asks lifecycle, is confirmed on a page of its own, and stands in the host's journal with who did it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from farm import clock, drill_admin, errors, glance, hosts, leases, lifecycle
from farm.fencing import Condition
from farm.look_at_only import LookAtOnly
from farm.models import Host, HostEvent, Instance, Orphan, Watch
from farm.states import Status

EVENTS_SHOWN = 20
ORPHANS_SHOWN = 50
CLOCK_OFF_SECONDS = 60
SECONDS_TOLD = 180
"""So long ago is told in seconds."""
MARKS = {
    Condition.ONLINE: "●",
    Condition.DRAINING: "◐",
    Condition.SUSPECT: "▲",
    Condition.LOST: "■",
    Condition.RETIRED: "○",
}
"""A shape beside each word: colour never speaks alone."""


# --- in words ---------------------------------------------------------------------------------------------------------


def when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def ago(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    seconds = (clock.now() - moment).total_seconds()
    return f"{max(0.0, seconds):.0f} s ago" if seconds < SECONDS_TOLD else f"{timesince(moment, clock.now())} ago"


def policy_of(host: Host) -> str:
    """What it is to run live terminals under, and what it says of that."""
    if not host.said_policy:
        return f"{host.policy}; it has not said yet what it runs under"
    if host.said_policy == host.policy:
        return host.policy
    return f"{host.policy} here, but it says {host.said_policy}: one side was changed alone"


def failover_of(host: Host) -> tuple[str, str]:
    """From when on it is given up by itself, should it be silent, or that only a person does it; and why."""
    if host.state == Host.State.RETIRED:
        return "no", "it is retired"
    if host.lost_at is not None:
        return f"given up at {when(host.lost_at)}", host.lost_why or "no reason was noted"
    ends = leases.given_up_from(host)
    if ends is None:
        return "only by staff", _why_by_staff(host)
    held = host.leases_held_until
    why = f"its leases are held until {when(held)}" if held is not None and held > clock.now() else ""
    return f"if silent, from {when(ends)}", why


def _why_by_staff(host: Host) -> str:
    if host.policy != Host.Policy.FENCED:
        return "it is static, and only a person can know that the machine is off"
    if host.said_policy != Host.Policy.FENCED:
        return f"it says that it is {host.said_policy}" if host.said_policy else "it was never heard"
    return "it was never granted a lease"


def in_words(failover: tuple[str, str]) -> str:
    return ": ".join(part for part in failover if part)


def not_right(host: Host) -> list[str]:
    """What staff should have seen to, beside its silence."""
    found = []
    if not host.master_ok:
        found.append(f"master unfit: {host.master_reason or 'no reason was given'}")
    if host.said_policy and host.said_policy != host.policy:
        found.append(f"{host.policy} here, {host.said_policy} there")
    if host.policy == Host.Policy.FENCED and not host.watchdog_ok:
        found.append("its watchdog does not tick")
    if abs(host.clock_off_seconds) > CLOCK_OFF_SECONDS:
        found.append(f"clock {clock_of(host).split(':')[0]}")
    return found


def lease_of(host: Host) -> str:
    granted = f"granted {ago(host.asked_at)}" if host.asked_at else "never granted"
    left = host.load.get("lease_left")
    said = f"; it said that {left:.0f} s were left" if isinstance(left, int | float) else ""
    stops = f"; stopping live terminals takes up to {host.stop_seconds:g} s" if host.stop_seconds else ""
    why = leases.why_no_lease(host)
    return f"{granted}{said}{stops}" + (f"; none is granted now: {why}" if why else "")


def load_of(host: Host) -> str:
    """The machine's own figures."""
    return ", ".join(_loads(host.load)) or "not known"


def _loads(load: dict[str, Any]) -> Iterator[str]:
    found = {name: value for name, value in load.items() if isinstance(value, int | float)}
    if "load_1m" in found and found.get("cpus"):
        yield f"load {found['load_1m']:.1f} on {found['cpus']:g} cores"
    elif "cpu_percent" in found:
        yield f"{found['cpu_percent']:.0f} % of its cores"
    for name, what in (("memory_available", "memory"), ("disk_free", "disk")):
        if name in found:
            yield f"{found[name] / 2**30:.1f} GiB of {what} free"


def pool_of(host: Host) -> str:
    pool = host.load.get("pool")
    if not isinstance(pool, dict) or "ready" not in pool:
        return "not known"
    return f"{pool['ready']} of {pool.get('size', '?')} clones"


def clock_of(host: Host) -> str:
    off = host.clock_off_seconds
    if abs(off) <= CLOCK_OFF_SECONDS:
        return "right"
    return f"{abs(off):.0f} s {'ahead' if off > 0 else 'behind'}: have its time service seen to"


# --- deeds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Something that staff may have done with a host, asked for on a page of its own."""

    title: str
    permission: str
    says: str
    """What happens, before it does."""
    done: str
    act: Callable[[Host, str, HttpRequest], None]
    fits: Callable[[Host], bool]
    """Whether it is offered for that host at all; lifecycle has the last word."""
    choice: str = ""
    """A box that may be ticked, and changes what is done."""
    typed: bool = False
    """The host's name must be typed."""


def _is_in_use(host: Host) -> bool:
    return host.state != Host.State.RETIRED and host.lost_at is None


DEEDS = {
    "drain": Deed(
        title="Drain",
        permission="farm.drain_host",
        says="It gets no new work, and what it runs comes up on other hosts, a few at a time: Press Passes first, then "
        "live terminals without open positions, each stopped here before it starts there. It can be undone.",
        choice="Also live terminals with positions open, or of which that is not known",
        done="{host} is being drained.",
        act=lambda host, who, request: lifecycle.drain(host.pk, forced="chosen" in request.POST, who=who),
        fits=lambda host: _is_in_use(host) and (host.state == Host.State.ONLINE or not host.drain_forced),
    ),
    "undo-drain": Deed(
        title="Use it again",
        permission="farm.drain_host",
        says="It is no longer drained: what is left on it stays, and it gets new work.",
        done="{host} is in use again.",
        act=lambda host, who, request: lifecycle.undo_drain(host.pk, who=who),
        fits=lambda host: _is_in_use(host) and host.state == Host.State.DRAINING,
    ),
    "give-up": Deed(
        title="Give it up",
        permission="farm.give_up_host",
        says="What it ran comes up on other hosts at once, live accounts as well. If the machine still runs, an "
        "account may then trade twice. Make sure that the machine is off: at its console, at its power supply.",
        typed=True,
        done="{host} is given up; what it ran comes up elsewhere.",
        act=lambda host, who, request: lifecycle.give_up_host(host.pk, who=who),
        fits=lambda host: _is_in_use(host) and glance.condition(host) is Condition.SUSPECT,
    ),
    "retire": Deed(
        title="Retire",
        permission="farm.drain_host",
        says="It is taken out of the farm for good. What a lost host still holds by our books ends here: only do this "
        "if that machine never comes back.",
        done="{host} is retired.",
        act=lambda host, who, request: lifecycle.retire(host.pk, who=who),
        fits=lambda host: host.state != Host.State.RETIRED and (host.lost_at is not None or not host.taken),
    ),
}


# --- forms ------------------------------------------------------------------------------------------------------------


class EnrolHost(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Host
        fields = ("name", "policy", "slots", "port_first", "port_last", "verify_key", "seal_key")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["initial"] = {"port_first": 9000, "port_last": 9999, **(kwargs.get("initial") or {})}
        super().__init__(*args, **kwargs)

    def clean_verify_key(self) -> str:
        return self._key("verify_key")

    def clean_seal_key(self) -> str:
        return self._key("seal_key")

    def _key(self, name: str) -> str:
        key: str = self.cleaned_data[name].strip()
        hosts.check_key(key)
        return key


# --- pages ------------------------------------------------------------------------------------------------------------


@admin.register(Host)
class HostAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "condition", "heard_from", "wrong", "slots_used", "failover_soon")
    list_filter = ("state", "policy", "master_ok")
    search_fields = ("name",)
    ordering = ("name",)
    list_per_page = 50
    show_full_result_count = False
    change_list_template = "admin/farm/host/change_list.html"
    change_form_template = "admin/farm/host/change_form.html"
    fieldsets = (
        (None, {"fields": ("name", "condition", "heard_from", "slots", "slots_used")}),
        ("If it falls silent", {"fields": ("policy", "policies", "failover", "lease", "watchdog")}),
        ("The machine", {"fields": ("agent", "machine", "time", "master", "pool", "servers", "ports")}),
        ("Keys", {"fields": ("verify_key", "previous_verify_key", "seal_key", "epoch")}),
    )
    readonly_fields = (
        "name", "condition", "heard_from", "slots_used", "policies", "failover", "lease", "watchdog", "agent",
        "machine", "time", "master", "pool", "servers", "ports", "verify_key", "previous_verify_key", "seal_key",
        "epoch",
    )  # fmt: skip

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # --- one column or line each ---

    @admin.display(description="condition", ordering="state")
    def condition(self, host: Host) -> SafeString:
        found = glance.condition(host)
        more = ", draining" if found is Condition.SUSPECT and host.state == Host.State.DRAINING else ""
        return format_html('<span class="condition {}">{} {}{}</span>', found.value, MARKS[found], found.value, more)

    @admin.display(description="heard from", ordering="surveyed_at")
    def heard_from(self, host: Host) -> str:
        return ago(host.surveyed_at)

    @admin.display(description="slots used", ordering="taken")
    def slots_used(self, host: Host) -> SafeString:
        words = f"{host.taken} of {host.slots}"
        return format_html(
            '<meter min="0" max="{}" value="{}" aria-label="{} slots used"></meter> {}',
            host.slots, host.taken, words, words,
        )  # fmt: skip

    @admin.display(description="may be given up")
    def failover(self, host: Host) -> str:
        return in_words(failover_of(host))

    @admin.display(description="may be given up")
    def failover_soon(self, host: Host) -> str:
        return failover_of(host)[0]

    @admin.display(description="not right")
    def wrong(self, host: Host) -> str:
        return "; ".join(not_right(host)) or "-"

    @admin.display(description="runs live terminals")
    def policies(self, host: Host) -> str:
        return policy_of(host)

    @admin.display(description="lease")
    def lease(self, host: Host) -> str:
        return lease_of(host)

    @admin.display(description="watchdog")
    def watchdog(self, host: Host) -> str:
        if host.policy != Host.Policy.FENCED:
            return "none is needed"
        return "ticks" if host.watchdog_ok else "does not tick: no live terminal runs there"

    @admin.display(description="master", ordering="master_ok")
    def master(self, host: Host) -> str:
        return "fit" if host.master_ok else f"unfit: {host.master_reason or 'no reason was given'}"

    @admin.display(description="reserve")
    def pool(self, host: Host) -> str:
        return pool_of(host)

    @admin.display(description="load")
    def machine(self, host: Host) -> str:
        return load_of(host)

    @admin.display(description="clock")
    def time(self, host: Host) -> str:
        return clock_of(host)

    @admin.display(description="ports")
    def ports(self, host: Host) -> str:
        return f"{host.port_first}-{host.port_last}"

    # --- enrolled and changed ---

    def get_form(self, request: HttpRequest, obj: Host | None = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **(kwargs if obj else {**kwargs, "form": EnrolHost}))

    def get_fieldsets(self, request: HttpRequest, obj: Host | None = None) -> Any:
        return self.fieldsets if obj else ((None, {"fields": EnrolHost.Meta.fields}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Host | None = None) -> Any:
        return self.readonly_fields if obj else ()

    def save_model(self, request: HttpRequest, obj: Host, form: Any, change: bool) -> None:
        """Write what was changed and nothing else: slots are taken and surveys come while the form is open."""
        who = f"staff:{request.user.pk}"
        if not change:
            wanted = hosts.Enrolment(**{name: form.cleaned_data[name] for name in EnrolHost.Meta.fields})
            obj.pk = hosts.enrol(wanted, who=who)[0].pk
            return
        obj.save(update_fields=form.changed_data)
        if "policy" in form.changed_data:
            HostEvent.objects.create(host=obj, what="policy changed", why=f"to {obj.policy}", who=who)

    # --- what is shown beside the fields ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        host = Host.objects.filter(pk=object_id).first() if object_id.isdecimal() else None
        more = self._beside(request, host) if host is not None else {}
        more["show_save_and_add_another"] = False
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **more})

    def _beside(self, request: HttpRequest, host: Host) -> dict[str, Any]:
        deeds = [(name, deed) for name, deed in DEEDS.items() if self._may(request, deed) and deed.fits(host)]
        left = lifecycle.left_on(host) if host.state == Host.State.DRAINING else None
        kept = {one.row.pk: one.why for one in lifecycle.blockers(host)} if left else {}
        return {
            "deeds": [{"title": deed.title, "url": _deed_url(host, name)} for name, deed in deeds],
            "left": None if left is None else [(one.row, kept.get(one.row.pk, "its turn comes")) for one in left],
            "other_masters": _other_masters(host),
            "events": host.events.order_by("-at", "-pk")[:EVENTS_SHOWN],
            "orphans": host.orphans.filter(gone_at__isnull=True).order_by("first_seen_at")[:ORPHANS_SHOWN],
            "drills": drill_admin.trend(host),
            "environment": hosts.environment(host),
            "acl": hosts.acl(host),
        }

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        watch = Watch.objects.filter(pk=1).first()
        brake = {"watch": watch, "may_brake": request.user.has_perm("farm.release_brake")}
        return super().changelist_view(request, {**(extra_context or {}), **brake})

    # --- deeds ---

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("brake/", view(self.brake_view), name="farm_host_brake"),
            path("<int:host_id>/do/<slug:name>/", view(self.deed_view), name="farm_host_deed"),
            *super().get_urls(),
        ]

    def _may(self, request: HttpRequest, deed: Deed) -> bool:
        return request.user.has_perm(deed.permission)

    def deed_view(self, request: HttpRequest, host_id: int, name: str) -> HttpResponse:
        deed = DEEDS.get(name)
        if deed is None:
            raise Http404
        if not self._may(request, deed):
            raise PermissionDenied
        host = get_object_or_404(Host, pk=host_id)
        wrong = deed.typed and request.POST.get("typed", "").strip() != host.name
        if request.method != "POST" or wrong:
            return self._asked(request, host, deed, wrong=wrong and request.method == "POST")
        try:
            deed.act(host, f"staff:{request.user.pk}", request)
            self.message_user(request, deed.done.format(host=host), messages.SUCCESS)
        except (errors.Refused, errors.ClaimLost) as error:
            self.message_user(request, str(error), messages.WARNING)
        return HttpResponseRedirect(_page(host))

    def _asked(self, request: HttpRequest, host: Host, deed: Deed, *, wrong: bool) -> TemplateResponse:
        words = {"host": host, "deed": deed, "wrong": wrong, "title": f"{deed.title}: {host}", "opts": self.opts}
        words |= {
            "condition": self.condition(host),
            "failover": in_words(failover_of(host)),
            "heard": ago(host.surveyed_at),
        }
        return TemplateResponse(
            request, "admin/farm/host/deed.html", {**self.admin_site.each_context(request), **words}
        )

    def brake_view(self, request: HttpRequest) -> HttpResponse:
        """Let go of the brake that is on, or pull it: one of the two, as the page said that stood before."""
        if not request.user.has_perm("farm.release_brake"):
            raise PermissionDenied
        watch = Watch.objects.filter(pk=1).first()
        if request.method != "POST":
            suspects = [host for host in Host.objects.order_by("name") if glance.condition(host) is Condition.SUSPECT]
            words = {"watch": watch, "suspects": suspects, "title": "The brake on failover", "opts": self.opts}
            context = {**self.admin_site.each_context(request), **words, "grace": settings.BRAKE_GRACE_SECONDS}
            return TemplateResponse(request, "admin/farm/host/brake.html", context)
        who = f"staff:{request.user.pk}"
        try:
            if request.POST.get("do") == "release":
                lifecycle.release_brake(who=who)
                self.message_user(request, "The brake is off.", messages.SUCCESS)
            else:
                lifecycle.pull_brake(request.POST.get("why", "").strip()[:200], who=who)
                self.message_user(request, "The brake is on: nothing is failed over.", messages.SUCCESS)
        except errors.Refused as error:
            self.message_user(request, str(error), messages.WARNING)
        return HttpResponseRedirect(reverse("admin:farm_host_changelist"))


def _page(host: Host) -> str:
    return reverse("admin:farm_host_change", args=[host.pk])


def _deed_url(host: Host, name: str) -> str:
    return reverse("admin:farm_host_deed", args=[host.pk, name])


def _other_masters(host: Host) -> QuerySet[Instance]:
    """What runs there and was cloned from another master than the one that the host has now."""
    rows = Instance.objects.filter(host=host).exclude(status__in=[Status.WAITING, Status.DESTROYED])
    return rows.exclude(digest__in=["", host.master_digest]).order_by("pk") if host.master_digest else rows.none()


@admin.register(Orphan)
class OrphanAdmin(LookAtOnly):
    list_display = ("folder", "host", "seems", "age", "last_seen", "open_there", "what_comes")
    list_filter = (("gone_at", admin.EmptyFieldListFilter), "host")
    list_select_related = ("host",)
    search_fields = ("folder", "=login")
    ordering = ("-first_seen_at",)
    actions = ("destroy_selected",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Orphan]:
        return super().get_queryset(request).select_related("host")

    @admin.display(description="seems to run")
    def seems(self, orphan: Orphan) -> str:
        if orphan.instance_number is None:
            return "not known: its host does not know it"
        account = f"{orphan.login} on {orphan.server_key}" if orphan.login else "no account"
        what = [str(orphan.facts.get("kind") or "terminal"), account, str(orphan.facts.get("process", "unknown"))]
        return f"{orphan.instance_number}: {', '.join(what)}"

    @admin.display(description="there for", ordering="first_seen_at")
    def age(self, orphan: Orphan) -> str:
        return timesince(orphan.first_seen_at, orphan.gone_at or clock.now())

    @admin.display(description="last seen", ordering="last_seen_at")
    def last_seen(self, orphan: Orphan) -> str:
        return f"gone {ago(orphan.gone_at)}" if orphan.gone_at else ago(orphan.last_seen_at)

    @admin.display(description="open there")
    def open_there(self, orphan: Orphan) -> str:
        positions, pending = orphan.facts.get("positions"), orphan.facts.get("orders")
        if lifecycle.is_surely_flat(orphan, clock.now()):
            return "surely nothing"
        return "not known" if positions is None or pending is None else f"{positions} positions, {pending} orders"

    @admin.display(description="what comes")
    def what_comes(self, orphan: Orphan) -> str:
        if orphan.gone_at is not None:
            return "nothing: it is gone"
        if not lifecycle.may_be_ordered(orphan):
            return "nothing by itself: see to it on the machine"
        if orphan.ordered_at is not None:
            return f"told to destroy it {ago(orphan.ordered_at)}"
        return f"destroyed {settings.ORPHAN_HOURS:g} h after it was first seen, once it surely has nothing open"

    def has_destroy_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("farm.delete_orphan")

    @admin.action(description="Destroy now, whatever it has open", permissions=["destroy"])
    def destroy_selected(self, request: HttpRequest, queryset: QuerySet[Orphan]) -> TemplateResponse | None:
        if "confirmed" not in request.POST:
            rows = [(orphan, self.seems(orphan), self.open_there(orphan), self.age(orphan)) for orphan in queryset]
            words = {"title": "Destroy orphans", "rows": rows, "opts": self.opts}
            context = {**self.admin_site.each_context(request), **words}
            return TemplateResponse(request, "admin/farm/orphan/confirm.html", context)
        done = 0
        for orphan in queryset.order_by("pk"):
            try:
                lifecycle.destroy_orphan(orphan.pk, who=f"staff:{request.user.pk}")
                done += 1
            except errors.Refused as error:
                self.message_user(request, f"{orphan}: {error}", messages.WARNING)
        text = f"{done} to be destroyed: their hosts are told."
        self.message_user(request, text, messages.SUCCESS if done else messages.INFO)
        return None
