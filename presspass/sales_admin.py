"""Plans, payments and subscriptions in the admin. Plans are edited; the rest is looked at, and acted on by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from farm import errors
from presspass.billing import staff
from presspass.models import Checkout, Plan, Refund, StripeEvent, Subscription


class LookAtOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # one base for several models
    """Rows that only the program makes and changes."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_refund_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("presspass.refund_payment")

    def confirmed_refund(
        self, request: HttpRequest, queryset: QuerySet[Any], give: Callable[..., Refund]
    ) -> TemplateResponse | None:
        """Show whose money goes back; ask for it when that page is confirmed. Asked twice it is given once."""
        if "confirmed" not in request.POST:
            words = {**self.admin_site.each_context(request), "rows": queryset, "opts": self.model._meta}
            return TemplateResponse(request, "admin/presspass/refund.html", words)
        asked = self._ask(request, queryset, give)
        self.message_user(request, f"{asked} to be refunded; a worker does it.", messages.SUCCESS)
        return None

    def _ask(self, request: HttpRequest, rows: Iterable[Model], give: Callable[..., Refund]) -> int:
        asked = 0
        for row in rows:
            try:
                give(row, who=f"staff:{request.user.pk}")
                asked += 1
            except errors.Refused as refusal:
                self.message_user(request, f"{row}: {refusal}", messages.WARNING)
        return asked


@admin.register(Plan)
class PlanAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "price", "active", "stripe_price", "position")
    prepopulated_fields = {"key": ("name",)}

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # what was bought keeps its plan; take it out of sight instead


class NeedsAPerson(admin.SimpleListFilter):
    title = "needs a person"
    parameter_name = "unsolved"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", staff.UNSOLVED), ("back", "money taken back by a bank or at Stripe")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> QuerySet[Subscription]:
        if self.value() == "yes":
            return staff.unsolved(queryset)
        if self.value() == "back":
            return queryset.filter(why__in=["disputed", "refunded"], stopped_at__isnull=False, ended_at__isnull=True)
        return queryset


@admin.register(Subscription)
class SubscriptionAdmin(LookAtOnly):
    list_display = ("customer", "plan", "status", "period_end", "cancel_at_period_end", "grace_until", "stopped_at",
                    "ends_at", "ended_at", "instance")  # fmt: skip
    list_filter = (NeedsAPerson, "status", "plan", ("ended_at", admin.EmptyFieldListFilter))
    list_select_related = ("customer", "plan", "instance")
    search_fields = ("customer__email", "=stripe_subscription", "=stripe_customer")
    search_help_text = "Part of the e-mail address, or an id of Stripe's"
    actions = ("refund_selected",)

    @admin.action(description="Cancel and give the last payment back", permissions=["refund"])
    def refund_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> TemplateResponse | None:
        return self.confirmed_refund(request, queryset, staff.refund_subscription)


@admin.register(Checkout)
class CheckoutAdmin(LookAtOnly):
    list_display = ("id", "customer", "plan", "cents", "status", "problem", "created_at", "expires_at", "instance")
    list_filter = ("status", "plan")
    list_select_related = ("customer", "plan", "instance")
    search_fields = ("customer__email", "=stripe_session", "=stripe_subscription")
    search_help_text = "Part of the e-mail address, or an id of Stripe's"
    exclude = ("url",)
    actions = ("refund_selected",)

    @admin.action(description="Give the payment back", permissions=["refund"])
    def refund_selected(self, request: HttpRequest, queryset: QuerySet[Checkout]) -> TemplateResponse | None:
        return self.confirmed_refund(request, queryset, staff.refund_checkout)


@admin.register(Refund)
class RefundAdmin(LookAtOnly):
    list_display = ("customer", "why", "who", "created_at", "done_at", "cents", "attempts", "error", "next_at")
    list_filter = (("done_at", admin.EmptyFieldListFilter),)
    list_select_related = ("customer",)
    search_fields = ("customer__email", "=stripe_subscription")


@admin.register(StripeEvent)
class StripeEventAdmin(LookAtOnly):
    list_display = ("event", "type", "created", "received_at", "handled_at", "attempts", "error", "next_at")
    list_filter = (("handled_at", admin.EmptyFieldListFilter), "type")
    search_fields = ("=event",)
    date_hierarchy = "received_at"
