"""Where staff sign in with a password: guessed at no oftener than a person mistypes."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache

from presspass import limits
from presspass.views.refusals import limited


@never_cache
@limited
def sign_in(request: HttpRequest) -> HttpResponse:
    """The admin's own page. Tries are counted for a line and for a login, known or not, right or wrong."""
    if request.method == "POST":
        limit = limits.Limit.parse("LIMIT_STAFF", settings.LIMIT_STAFF)
        limits.take(limit, limits.address_block(request.META.get("REMOTE_ADDR", "")))
        limits.take(limit, f"login {request.POST.get('username', '').strip().casefold()}")
    return admin.site.login(request)
