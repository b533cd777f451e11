"""The admin's page that demo accounts are imported on: looked over line by line first, taken in when confirmed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from farm import errors, intake

WAITING = "demo accounts to take in"
SHOWN = 500


class ImportsAccounts(admin.ModelAdmin):  # type: ignore[type-arg]  # a part of the admin of broker accounts
    """Asks for the right to add broker accounts, which the list itself gives nobody a form for."""

    def may_import(self, request: HttpRequest) -> bool:
        return request.user.has_perm("farm.add_brokeraccount")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.import_view)
        return [path("import/", view, name="farm_brokeraccount_import"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {**(extra_context or {}), "may_import": self.may_import(request)})

    @method_decorator(sensitive_post_parameters())
    def import_view(self, request: HttpRequest) -> HttpResponse:
        if not self.may_import(request):
            raise PermissionDenied
        if request.method == "POST" and "confirmed" in request.POST:
            return self._taken_in(request)
        words: dict[str, Any] = {}
        request.session.pop(WAITING, None)
        file = request.FILES.get("file")
        if request.method == "POST" and file is None:
            words = {"problem": "Choose a file."}
        elif request.method == "POST" and file is not None:
            try:
                words = self._looked_over(request, file.read(intake.MOST_BYTES + 1))
            except (intake.Unreadable, errors.KeysMissing) as error:
                words = {"problem": str(error)}
        context = {**self.admin_site.each_context(request), "title": "Import demo accounts", "opts": self.opts, **words}
        return TemplateResponse(request, "admin/farm/brokeraccount/import.html", context)

    def _looked_over(self, request: HttpRequest, raw: bytes) -> dict[str, Any]:
        lines = intake.read(raw)
        request.session[WAITING] = waiting = intake.sealed(lines)
        if not lines:
            return {"problem": "The file holds no accounts."}
        counts = Counter(line.what.value for line in lines)
        left_out = max(0, len(lines) - SHOWN)
        return {"lines": lines[:SHOWN], "counts": sorted(counts.items()), "new": len(waiting), "left_out": left_out}

    def _taken_in(self, request: HttpRequest) -> HttpResponse:
        added = intake.put(request.session.pop(WAITING, []))
        self.message_user(request, f"{added} demo accounts taken in.", messages.SUCCESS if added else messages.INFO)
        return HttpResponseRedirect(reverse("admin:farm_brokeraccount_changelist"))
