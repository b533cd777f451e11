"""The first page, sign-in links, and signing out."""

from __future__ import annotations

import hashlib

from django.conf import settings
from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from presspass import addresses, lifecycle, limits
from presspass.errors import BadLink
from presspass.forms import AddressForm, SignUpForm
from presspass.models import User
from presspass.views.refusals import limited

BACKEND = "django.contrib.auth.backends.ModelBackend"
ASKED = "asked"
"""A signed cookie with the address that a link was just asked for, so that the page after can name it."""

either = require_http_methods(["GET", "HEAD", "POST"])


@never_cache
@either
@limited
def start(request: HttpRequest) -> HttpResponse:
    """A new address gets its terminal at once; a known one a link by mail."""
    if request.user.is_authenticated:
        return redirect("presspass:terminal")
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_robot:
        return _check_your_mail(request, request.POST.get("email", ""))
    if not form.is_valid():
        words = {"days": f"{settings.PRESS_PASS_DAYS:g}", "hours": f"{settings.IDLE_HOURS:g}"}
        return render(request, "presspass/start.html", {"form": form, **words})
    email = form.cleaned_data["email"]
    _count(request, email)
    joined = lifecycle.join(email, mark=_mark(request), time_zone=request.COOKIES.get("zone", ""))
    if joined.signs_in:
        login(request, joined.customer, backend=BACKEND)
        return redirect("presspass:terminal")
    _ask(joined.customer)
    return _check_your_mail(request, email)


@never_cache
@either
@limited
def sign_in(request: HttpRequest) -> HttpResponse:
    """The answer is the same whether the address is known or not."""
    if request.user.is_authenticated:
        return redirect("presspass:terminal")
    form = AddressForm(request.POST or None)
    if request.method == "POST" and form.is_robot:
        return _check_your_mail(request, request.POST.get("email", ""))
    if not form.is_valid():
        return render(request, "presspass/sign_in.html", {"form": form})
    email = form.cleaned_data["email"]
    _count(request, email)
    customer = lifecycle.known_customer(email)
    if customer is not None:
        _ask(customer)
    return _check_your_mail(request, email)


@never_cache
@require_safe
def sent(request: HttpRequest) -> HttpResponse:
    email = request.get_signed_cookie(ASKED, default="", salt=ASKED, max_age=settings.LINK_SECONDS) or ""
    words = {"email": email, "minutes": settings.LINK_SECONDS // 60, "local": settings.LOCAL}
    return render(request, "presspass/check_your_mail.html", words)


@never_cache
@either
def link(request: HttpRequest) -> HttpResponse:
    """Opening the link shows a button; only pressing it signs in, because mail scanners open links."""
    token = (request.POST if request.method == "POST" else request.GET).get("token", "")
    try:
        if request.method == "POST":
            login(request, lifecycle.use(token), backend=BACKEND)
            response: HttpResponse = redirect("presspass:terminal")
            response.delete_cookie(ASKED)
        else:
            response = render(request, "presspass/link.html", {"customer": lifecycle.look_at(token), "token": token})
    except BadLink:
        response = render(request, "presspass/bad_link.html", status=403)
    # Not no-referrer: browsers then post with `Origin: null`, which the CSRF check must refuse. This one tells nobody
    # more than the host either.
    response["Referrer-Policy"] = "strict-origin"
    return response


@never_cache
@require_POST
@limited
def confirm_address(request: HttpRequest) -> HttpResponse:
    """Mail a link to whoever is signed in without ever having used one."""
    if not isinstance(request.user, User):
        return redirect("presspass:sign_in")
    _count(request, request.user.email)
    _ask(request.user)
    return _check_your_mail(request, request.user.email)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("presspass:start")


def _count(request: HttpRequest, email: str) -> None:
    """Raise :class:`TooMany` when this line or this mailbox has asked too often."""
    limits.take(
        limits.Limit.parse("LIMIT_SIGNUPS", settings.LIMIT_SIGNUPS),
        limits.address_block(request.META.get("REMOTE_ADDR", "")),
    )
    limits.take(
        limits.Limit.parse("LIMIT_LINKS", settings.LIMIT_LINKS),
        addresses.mailbox_key(email, secret=settings.SECRET_KEY),
    )


def _ask(customer: User) -> None:
    limits.take(limits.Limit.parse("LIMIT_MAILS", settings.LIMIT_MAILS), "all")
    lifecycle.ask(customer)


def _check_your_mail(request: HttpRequest, email: str) -> HttpResponse:
    response = redirect("presspass:sent")
    response.set_signed_cookie(
        ASKED,
        email[: addresses.LONGEST],
        salt=ASKED,
        max_age=settings.LINK_SECONDS,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    return response


def _mark(request: HttpRequest) -> str:
    """Stands for this browser before it is signed in; signing in gives it another CSRF secret, and so another mark."""
    secret = str(request.META.get("CSRF_COOKIE", ""))
    return hashlib.sha256(f"sign up {secret}".encode()).hexdigest() if secret else ""
