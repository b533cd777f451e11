"""The farm's page of an instance, and on it when the instance would be recycled, and on which evidence."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib import admin

from farm import clock
from farm.admin import InstanceAdmin
from farm.models import Instance
from presspass import idleness
from presspass.lifecycle import looking

admin.site.unregister(Instance)


@admin.register(Instance)
class JudgedInstanceAdmin(InstanceAdmin):
    def get_fieldsets(self, request, obj=None):  # type: ignore[no-untyped-def]  # Django's own words for it are private
        words = ("ends_at", "held_until", "would_be_recycled")
        return (*super().get_fieldsets(request, obj), ("Recycling", {"fields": words}))

    @admin.display(description="would be recycled")
    def would_be_recycled(self, row: Instance) -> str:
        judged = looking.passes().filter(pk=row.pk).first()
        its = idleness.known(row) if judged is None else looking.known(judged)
        return idleness.evidence(
            its,
            now=clock.now(),
            idle_after=timedelta(hours=settings.IDLE_HOURS),
            host_fresh=timedelta(seconds=settings.SURVEY_FRESH_SECONDS),
        )
