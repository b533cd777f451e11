"""Pages for what did not work, in the look of the others."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from farm import clock
from presspass import moments
from presspass.errors import TooMany

log = logging.getLogger(__name__)

_BARE = "<!doctype html><html lang=en><title>Not now</title><h1>Something on our side does not work.</h1>"


def error_403(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "403.html", status=403)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return render(request, "403.html", {"form_was_stale": True}, status=403)


def error_404(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "404.html", status=404)


def error_429(request: HttpRequest, *, retry_after_seconds: int) -> HttpResponse:
    words = {"wait": moments.length(retry_after_seconds), "now": clock.now()}
    response = render(request, "429.html", words, status=429)
    response["Retry-After"] = str(retry_after_seconds)
    return response


def error_500(request: HttpRequest) -> HttpResponse:
    """Asks nothing of the database, the session or the cache: one of them may be what is broken."""
    try:
        body: str = render_to_string("500.html")
    except Exception:
        log.exception("the page for errors does not work either")
        body = _BARE
    return HttpResponse(body, status=500)


def limited(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Whoever asks too often gets the page that says when to ask again."""

    @functools.wraps(view)
    def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except TooMany as error:
            return error_429(request, retry_after_seconds=error.retry_after_seconds)

    return answered
