"""Customers, staff and mails for staff. What a terminal hangs on can't be deleted; mails can only be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from presspass import (
    addresses,
    instance_admin,  # noqa: F401  shows presspass's judgement on the farm's own page
    lifecycle,
    sales_admin,  # noqa: F401  registers the rest of the tables
    watch_admin,  # noqa: F401
)
from presspass.models import Notice, User, mailbox_mark

if TYPE_CHECKING:  # Django's own are not generic when they run
    UserModelForm = forms.ModelForm[User]
    UserModelAdmin = DjangoUserAdmin[User]
    NoticeModelAdmin = admin.ModelAdmin[Notice]
    UserCreation = AdminUserCreationForm[User]
    UserChange = UserChangeForm[User]
else:
    UserModelForm = forms.ModelForm
    UserModelAdmin = DjangoUserAdmin
    NoticeModelAdmin = admin.ModelAdmin
    UserCreation = AdminUserCreationForm
    UserChange = UserChangeForm


class RenewalForm(forms.Form):
    days = forms.IntegerField(min_value=1, max_value=366, initial=7)


class Verified(admin.SimpleListFilter):
    title = "address"
    parameter_name = "verified"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "confirmed"), ("no", "not confirmed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        if self.value() in {"yes", "no"}:
            return queryset.filter(email_verified_at__isnull=self.value() == "no")
        return queryset


class _Normalised(UserModelForm):
    def clean_email(self) -> str:
        return addresses.normalised(str(self.cleaned_data["email"]))


class AddUserForm(_Normalised, UserCreation):
    class Meta:
        model = User
        fields = ("email",)
        field_classes: dict[str, type[forms.Field]] = {}


class ChangeUserForm(_Normalised, UserChange):
    class Meta:
        model = User
        fields = ("email", "password", "is_active", "is_staff", "is_superuser", "groups", "user_permissions")
        field_classes: dict[str, type[forms.Field]] = {}


@admin.register(User)
class UserAdmin(UserModelAdmin):
    """Staff are made here too: with a password, which customers don't have."""

    add_form = AddUserForm
    form = ChangeUserForm
    ordering = ("-id",)
    list_display = ("email", "is_verified", "date_joined", "last_login", "is_staff", "is_active")
    list_filter = (Verified, "is_staff", "is_active")
    search_fields = ("email",)
    search_help_text = "Part of the e-mail address"
    date_hierarchy = "date_joined"
    readonly_fields = ("email_verified_at", "time_zone", "pass_ends_at", "date_joined", "last_login")
    actions = ("renew_selected",)
    filter_horizontal = ("groups", "user_permissions")
    fieldsets = (
        (None, {"fields": ("email", "email_verified_at", "time_zone", "pass_ends_at", "date_joined", "last_login")}),
        ("Staff", {"fields": ("password", "is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ("email", "usable_password", "password1", "password2")}),)

    @admin.display(boolean=True, description="confirmed", ordering="email_verified_at")
    def is_verified(self, user: User) -> bool:
        return user.verified

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """Only a superuser makes people staff and gives rights; else whoever may change users may become anybody."""
        fields = tuple(super().get_readonly_fields(request, obj))
        if getattr(request.user, "is_superuser", False):
            return fields
        return (*fields, "is_staff", "is_superuser", "groups", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        if obj is not None and (obj.is_staff or obj.is_superuser) and not getattr(request.user, "is_superuser", False):
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Not while the farm knows a terminal of theirs: its folder, port and journal are theirs."""
        if obj is None or obj.instances.exists() or obj.notices.exists():
            return False
        return self.has_change_permission(request, obj) and super().has_delete_permission(request, obj)

    def has_renew_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("presspass.renew_press_pass")

    @admin.action(description="Renew the Press Pass", permissions=["renew"])
    def renew_selected(self, request: HttpRequest, queryset: QuerySet[User]) -> TemplateResponse | None:
        """Ask for how many days; then give them, from now or from when the days would have ended."""
        form = RenewalForm(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            context = {**self.admin_site.each_context(request), "title": "Renew the Press Pass", "form": form}
            context |= {"rows": queryset, "opts": self.opts}
            return TemplateResponse(request, "admin/presspass/renew.html", context)
        days = form.cleaned_data["days"]
        for customer in queryset:
            ends_at = lifecycle.renew(customer, days=days, who=f"staff:{request.user.pk}")
            self.log_change(
                request, customer, f"Renewed the Press Pass by {days} days, until {ends_at:%Y-%m-%d %H:%M} UTC"
            )
        self.message_user(request, f"Renewed by {days} days: {queryset.count()}.", messages.SUCCESS)
        return None

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """A new address is nobody's until a link sent there was used."""
        if change and "email" in form.changed_data:
            obj.email_verified_at = None
        if not obj.mailbox or "email" in form.changed_data:
            mark = mailbox_mark(obj.email)
            # Two accounts of one mailbox may be made by staff alone; the first keeps the mark.
            obj.mailbox = "" if User.objects.filter(mailbox=mark).exclude(pk=obj.pk).exists() else mark
        super().save_model(request, obj, form, change)


@admin.register(Notice)
class NoticeAdmin(NoticeModelAdmin):
    list_display = ("customer", "kind", "created_at", "sent_at", "attempts", "next_at")
    list_filter = ("kind", ("sent_at", admin.EmptyFieldListFilter))
    search_fields = ("customer__email",)
    search_help_text = "Part of the e-mail address"
    list_select_related = ("customer",)
    date_hierarchy = "created_at"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Notice | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Notice | None = None) -> bool:
        return False
