"""For staff: when recycle_idle last ran, and what they were told of by mail."""

from __future__ import annotations

from django.contrib import admin

from presspass.models import Alert, Run
from presspass.sales_admin import LookAtOnly


@admin.register(Run)
class RunAdmin(LookAtOnly):
    list_display = ("name", "started_at", "finished_at", "counts")


@admin.register(Alert)
class AlertAdmin(LookAtOnly):
    list_display = ("text", "since", "told_at")
