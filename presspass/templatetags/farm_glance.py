"""The farm at a glance for the front page of the admin; nothing for staff who may not look at terminals."""

from __future__ import annotations

from typing import Any

from django import template

from presspass import glance

register = template.Library()


@register.inclusion_tag("admin/glance.html", takes_context=True)
def farm_glance(context: dict[str, Any]) -> dict[str, Any]:
    request = context.get("request")
    if request is None or not request.user.has_perm("farm.view_instance"):
        return {}
    return {"glance": glance.look()}
