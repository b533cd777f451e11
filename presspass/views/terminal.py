"""The customer's terminal: how it is, and what they may do with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import tzinfo
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from farm import clock, errors
from farm import lifecycle as farm_lifecycle
from farm.models import Instance
from farm.states import Kind
from presspass import lifecycle, moments
from presspass.errors import NotTheirs
from presspass.middleware import poll
from presspass.models import User
from presspass.telling import Mark
from presspass.views.refusals import error_404

signed_in = login_required(login_url="presspass:sign_in")


@never_cache
@require_safe
@signed_in
def terminal(request: HttpRequest) -> HttpResponse:
    customer = customer_of(request)
    lifecycle.remember_zone(customer, request.COOKIES.get("zone", ""))
    return render(request, "presspass/terminal.html", _words(request, customer))


@poll
@never_cache
@require_safe
def state(request: HttpRequest) -> HttpResponse:
    """The part of the page that changes. Nothing is sent back while it says what the page says already."""
    if "HX-Request" not in request.headers:
        return redirect("presspass:terminal")
    if not request.user.is_authenticated:
        return HttpResponse(headers={"HX-Redirect": reverse("presspass:sign_in")})
    words = _words(request, customer_of(request))
    if request.GET.get("seen") == words["seen"]:
        return HttpResponse(status=204)
    return render(request, "presspass/_state.html", {**words, "is_part": True})


@require_POST
@signed_in
def restart(request: HttpRequest, instance_id: int) -> HttpResponse:
    return _asked(request, lambda customer: lifecycle.restart(customer, instance_id))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def end(request: HttpRequest, instance_id: int) -> HttpResponse:
    """Looking at this page ends nothing."""
    if request.method == "POST":
        return _asked(request, lambda customer: lifecycle.end(customer, instance_id))
    row = Instance.objects.filter(pk=instance_id, customer=customer_of(request), kind=Kind.PRESS_PASS).first()
    if row is None:
        return error_404(request)
    return render(request, "presspass/end.html", {"instance": row})


@require_POST
@signed_in
def accept_slot(request: HttpRequest, instance_id: int) -> HttpResponse:
    return _asked(request, lambda customer: lifecycle.accept_slot(customer, instance_id))


@require_POST
@signed_in
def start_again(request: HttpRequest) -> HttpResponse:
    return _asked(request, lifecycle.start_again)


def _asked(request: HttpRequest, ask: Callable[[User], Any]) -> HttpResponse:
    """Do it and show the terminal; a refusal is told there in its own words."""
    try:
        ask(customer_of(request))
    except NotTheirs:
        return error_404(request)
    except errors.Refused as refusal:
        messages.info(request, str(refusal))
    except errors.ClaimLost:
        messages.info(request, "Your terminal was just changing by itself. Look at how it is now, then ask again.")
    return redirect("presspass:terminal")


def customer_of(request: HttpRequest) -> User:
    if not isinstance(request.user, User):
        raise TypeError("only for views that ask for a signed-in customer")
    return request.user


def _words(request: HttpRequest, customer: User) -> dict[str, Any]:
    zone = zone_of(request)
    page = lifecycle.shown(customer, zone=zone)
    if page.told.mark is Mark.WAITING and page.instance_id is not None:
        farm_lifecycle.watch(page.instance_id)
    return {
        "page": page,
        "told": page.told,
        "instance_id": page.instance_id,
        "customer": customer,
        "seen": hashlib.sha256(repr(page).encode()).hexdigest()[:16],
        "looked_at": moments.clock_time(clock.now(), now=clock.now(), zone=zone),
    }


def zone_of(request: HttpRequest) -> tzinfo:
    """The browser's, as its script says; without scripts the one it last said, or UTC."""
    said = request.COOKIES.get("zone", "")
    return moments.zone(said if moments.is_zone(said) else customer_of(request).time_zone)
