"""A signed-in request is activity: it keeps the customer's terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from farm import lifecycle as farm_lifecycle

View = Callable[..., HttpResponse]

_MARK = "is_poll"


def poll(view: View) -> View:
    """Mark a view that a page asks by itself. It is not activity: a tab left open would keep a terminal for ever."""
    setattr(view, _MARK, True)
    return view


class ActivityMiddleware:
    """Stands below the session and authentication middleware."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: View, args: Any, kwargs: Any) -> None:
        if getattr(view, _MARK, False) or "prefetch" in request.headers.get("Sec-Purpose", ""):
            return
        if request.user.is_authenticated:
            farm_lifecycle.touch(request.user.pk)
