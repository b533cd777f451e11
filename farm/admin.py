"""The farm for staff: everything can be looked up, nothing that a terminal hangs on can be deleted or set by hand.

Actions ask lifecycle, as everybody else does, and stand in the journal with the name of who took them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.validators import RegexValidator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.timesince import timesince
from django.views.decorators.debug import sensitive_post_parameters

from farm import (
    clock,
    drill_admin,  # noqa: F401  registers drills and the hosts' journal
    errors,
    host_admin,  # noqa: F401  registers hosts and orphans
    lifecycle,
    states,
    vault,
)
from farm.intake_admin import ImportsAccounts
from farm.look_at_only import LookAtOnly
from farm.models import MAGIC_BASE, BrokerAccount, Host, Instance, Port, RefusedLogin, Seat, Transition
from farm.states import Goal, Kind, Status

Row = Instance | Host | Port | Transition | BrokerAccount | Seat


class JournalInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Transition
    fields = readonly_fields = ("at", "was", "became", "why", "who")
    ordering = ("-pk",)
    extra = 0
    can_delete = False
    verbose_name_plural = "journal"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Instance)
class InstanceAdmin(LookAtOnly):
    list_display = ("id", "customer", "kind", "status", "connection", "host", "port_number", "folder", "since", "due")
    list_filter = ("kind", "status", "connection", "reason", "host")
    list_select_related = ("customer", "host", "port")
    search_fields = ("folder",)
    search_help_text = "E-mail, folder, port, magic number or instance id"
    ordering = ("-pk",)
    inlines = (JournalInline,)
    actions = ("retry_selected", "recycle_selected", "end_live_selected")
    fieldsets = (
        (None, {"fields": ("id", "customer", "kind", "status", "since", "goal", "reason", "reason_detail")}),
        ("What comes next", {"fields": ("due", "attempts", "generation", "claimed_until", "next_at")}),
        ("Where", {"fields": ("host", "port_number", "folder", "magic", "digest", "replaces")}),
        ("Broker", {"fields": ("account", "connection", "connection_since", "refusal", "refusal_text", "facts")}),
        ("Times", {"fields": ("created_at", "first_running_at", "heartbeat_at", "activity_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Instance]:
        return super().get_queryset(request).select_related("customer", "host", "port", "account")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        wanted = Q(folder=term) | Q(customer__email__startswith=term.lower())
        if term.isascii() and term.isdigit() and len(term) < 19:
            number = int(term)
            wanted |= Q(pk=number) | Q(pk=number - MAGIC_BASE)
            if number < 2**31:
                wanted |= Q(port__number=number)
        return queryset.filter(wanted), False

    @admin.display(description="port", empty_value="-")
    def port_number(self, row: Instance) -> int | None:
        return row.port_number

    @admin.display(description="for", ordering="status_since")
    def since(self, row: Instance) -> str:
        return timesince(row.status_since, clock.now())

    @admin.display(description="next step")
    def due(self, row: Instance) -> str:
        """What happens next and when, or what it waits for."""
        if row.status == Status.WAITING:
            return "a slot"
        if row.next_at is None:
            return "staff" if row.status == Status.FAILED else "none"
        verb = states.VERBS.get(Status(row.status))
        step = verb.value if verb else f"{states.retried_as(states.Goal(row.goal)).value} again"
        if row.claimed_until and row.claimed_until > clock.now():
            return f"{step}: told the host, answer due by {row.claimed_until:%H:%M:%S}"
        return f"{step}, from {row.next_at:%H:%M:%S} UTC"

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("farm.retry_instance")

    def has_recycle_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("farm.recycle_instance")

    @admin.action(description="Try again now", permissions=["retry"])
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Instance]) -> TemplateResponse | None:
        return self._confirmed(request, queryset, "retry_selected", "Try again now", lifecycle.retry)

    @admin.action(description="Recycle (destroy the terminal, free its slot)", permissions=["recycle"])
    def recycle_selected(self, request: HttpRequest, queryset: QuerySet[Instance]) -> TemplateResponse | None:
        return self._confirmed(request, queryset, "recycle_selected", "Recycle", _recycle)

    def has_end_live_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("farm.delete_instance")

    @admin.action(description="Destroy a live terminal", permissions=["end_live"])
    def end_live_selected(self, request: HttpRequest, queryset: QuerySet[Instance]) -> TemplateResponse | None:
        """One at a time: its open positions are shown, and its login must be typed."""
        row = queryset.select_related("account", "customer").first()
        if row is None or queryset.count() != 1 or row.kind != Kind.LIVE or row.goal == Goal.DESTROYED:
            self.message_user(request, "Choose one live terminal that is not on its way out.", messages.WARNING)
            return None
        typed, login = request.POST.get("typed", "").strip(), str(row.account.login) if row.account else str(row.pk)
        if typed != login:
            words = {**self.admin_site.each_context(request), "row": row, "wrong": bool(typed)}
            words |= {"positions": row.facts.get("positions", "not known"), "opts": self.model._meta}
            return TemplateResponse(request, "admin/farm/end_live.html", words)
        try:
            lifecycle.end(row.pk, why="destroyed by staff", who=f"staff:{request.user.pk}")
            self.message_user(request, f"Live terminal {row.pk} is being destroyed.", messages.SUCCESS)
        except (errors.Refused, errors.ClaimLost) as error:
            self.message_user(request, f"Instance {row.pk}: {error}", messages.WARNING)
        return None

    def _confirmed(
        self,
        request: HttpRequest,
        queryset: QuerySet[Instance],
        action: str,
        title: str,
        ask: Callable[..., None],
    ) -> TemplateResponse | None:
        """Show what would be done; do it when that page is confirmed, and say what was refused and why."""
        if "confirmed" not in request.POST:
            context = {**self.admin_site.each_context(request), "title": title, "rows": queryset, "action": action}
            return TemplateResponse(request, "admin/farm/confirm.html", context | {"opts": self.model._meta})
        done = 0
        for pk in queryset.order_by("pk").values_list("pk", flat=True):
            try:
                ask(pk, who=f"staff:{request.user.pk}")
                done += 1
            except (errors.Refused, errors.ClaimLost) as error:
                self.message_user(request, f"Instance {pk}: {error}", messages.WARNING)
        self.message_user(request, f"{title}: {done} done.", messages.SUCCESS if done else messages.INFO)
        return None


def _recycle(instance_id: int, *, who: str) -> None:
    if Instance.objects.get(pk=instance_id).kind != Kind.PRESS_PASS:
        raise errors.Refused("Only a Press Pass terminal can be recycled.")
    lifecycle.end(instance_id, why="recycled by staff", who=who)


@admin.register(Port)
class PortAdmin(LookAtOnly):
    list_display = ("number", "host", "instance", "quarantined_at")
    list_filter = ("host", ("instance", admin.EmptyFieldListFilter), ("quarantined_at", admin.EmptyFieldListFilter))
    list_select_related = ("host", "instance")
    search_fields = ("=number",)


@admin.register(Transition)
class TransitionAdmin(LookAtOnly):
    list_display = ("at", "instance_link", "was", "became", "why", "who")
    list_filter = ("became",)
    list_select_related = ("instance__customer",)
    search_fields = ("=instance__id", "=who")
    search_help_text = "Instance id, or who (customer:12, staff:3, host:alpha)"
    ordering = ("-pk",)

    @admin.display(description="instance")
    def instance_link(self, line: Transition) -> str:
        return f"{line.instance_id} of {line.instance.customer}"


class ReplacePassword(forms.ModelForm):  # type: ignore[type-arg]
    """The one thing that staff may change of an account. The old password is shown to nobody, nor is the new one."""

    new_password = forms.CharField(
        required=False,
        strip=False,
        min_length=4,
        max_length=32,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        validators=[
            RegexValidator(r"\A[!-~](?:[ -~]*[!-~])?\Z", "Characters of a US keyboard, no blank at either end.")
        ],
        help_text="Replaces the stored one from the next injection on. Leave it empty to change nothing.",
    )

    class Meta:
        model = BrokerAccount
        fields = ()


@admin.register(BrokerAccount)
class BrokerAccountAdmin(ImportsAccounts, LookAtOnly):
    form = ReplacePassword
    fields = ("server", "login", "owner", "created_at", "expires_at", "retired_at", "new_password")
    readonly_fields = fields[:-1]
    list_display = ("login", "server", "owner", "expires_at", "retired_at")
    list_filter = ("server", ("owner", admin.EmptyFieldListFilter), ("retired_at", admin.EmptyFieldListFilter))
    list_select_related = ("owner",)
    search_fields = ("=login",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("farm.change_brokeraccount")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if self.has_change_permission(request, obj) else self.readonly_fields

    @method_decorator(sensitive_post_parameters("new_password"))
    def changeform_view(self, *args: Any, **kwargs: Any) -> HttpResponse:
        return super().changeform_view(*args, **kwargs)

    def save_model(self, request: HttpRequest, obj: BrokerAccount, form: Any, change: bool) -> None:
        if password := form.cleaned_data["new_password"]:
            vault.replace(obj, password)


@admin.register(RefusedLogin)
class RefusedLoginAdmin(LookAtOnly):
    """Only a keyed hash stands for the three values. Deleting a line lets them be tried again."""

    list_display = ("server_key", "refusal", "at")
    list_filter = ("refusal",)
    search_fields = ("server_key",)
    date_hierarchy = "at"
    exclude = ("fingerprint",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("farm.delete_refusedlogin")
