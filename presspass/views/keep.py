"""The page that a warning's link opens: it shows a button, and the button keeps the terminal."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from farm import clock
from presspass import moments
from presspass.errors import BadLink
from presspass.lifecycle import keep_alive
from presspass.middleware import poll


@poll
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def keep(request: HttpRequest) -> HttpResponse:
    """Opening it keeps nothing, whoever is signed in: mail scanners open links, and so do other tabs."""
    posted = request.method == "POST"
    token = (request.POST if posted else request.GET).get("token", "")
    try:
        kept = keep_alive.use(token) if posted else keep_alive.look_at(token)
    except BadLink:
        response = render(request, "presspass/keep_gone.html", status=410)
    else:
        zone = moments.zone(kept.instance.customer.time_zone)
        words = {
            "token": token,
            "is_kept": posted and kept.is_good,
            "is_good": kept.is_good,
            "goes_at": moments.at_and_away(kept.goes_at, now=clock.now(), zone=zone),
        }
        response = render(request, "presspass/keep.html", words, status=200 if kept.is_good else 410)
    response["Referrer-Policy"] = "same-origin"
    return response
