"""Going live: choose a plan, hand in a broker login, pay; hand in another login later."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from farm import clock, doorbell, errors
from presspass import limits, moments
from presspass import logins as rules
from presspass.billing import checkout as checkouts
from presspass.billing import doors, logins, refunds, stripe_api
from presspass.billing.logins import Login
from presspass.errors import StripeRefused, StripeSilent
from presspass.forms import GoLiveForm, LoginForm
from presspass.models import Checkout, Subscription, User
from presspass.views.refusals import error_404, limited
from presspass.views.terminal import customer_of, signed_in, zone_of

NO_ANSWER = (
    "The payment page can’t be reached at the moment. Nothing was charged, and your slot stays held: try again in a "
    "minute."
)


@sensitive_post_parameters("password")
@sensitive_variables("form", "login")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@limited
def go_live(request: HttpRequest) -> HttpResponse:
    customer = customer_of(request)
    if not customer.verified:
        return render(request, "presspass/golive/confirm.html", {"customer": customer})
    opened = checkouts.open_checkout(customer)
    if opened is not None:
        return _open(request, opened)
    if logins.attempt_under_way(customer) is not None:
        return redirect("presspass:terminal")
    bought = checkouts.subscription_of(customer)
    if bought is not None and bought.status != Subscription.Status.CANCELED:
        return _another_login(request, customer, bought)
    if not checkouts.is_sold():
        return render(request, "presspass/golive/not_sold.html", {"support": settings.SUPPORT_EMAIL})
    return _buy(request, customer)


def _buy(request: HttpRequest, customer: User) -> HttpResponse:
    form = GoLiveForm(request.POST or None)
    if request.method == "POST" and (login := _login(form, customer)) is not None:
        try:
            opened = checkouts.begin(customer, form.cleaned_data["plan"], login)
        except errors.NoFreePort:
            return _form(request, form, no_slot=True)
        except errors.Refused as refusal:
            form.add_error(None, str(refusal))
        else:
            _warn(request, login)
            return _pay(request, opened)
    return _form(request, form)


def _another_login(request: HttpRequest, customer: User, bought: Subscription) -> HttpResponse:
    words = {"bought": bought, "works": logins.working(customer), "may_refund": refunds.may_ask(customer, bought)}
    if not bought.is_paid or bought.stopped_at is not None:
        return render(request, "presspass/golive/owing.html", words)
    form = LoginForm(request.POST or None)
    if request.method == "POST" and (login := _login(form, customer)) is not None:
        try:
            checkouts.retry(customer, login)
        except errors.Refused as refusal:
            form.add_error(None, str(refusal))
        else:
            _warn(request, login)
            return redirect("presspass:terminal")
    return _form(request, form, **words)


def _login(form: LoginForm, customer: User) -> Login | None:
    """What was typed, if it may be tried; else None, and the form says at the field what is wrong."""
    limits.take(limits.Limit.parse("LIMIT_LOGINS", settings.LIMIT_LOGINS), f"customer {customer.pk}")
    if not form.is_valid():
        return None
    said = form.cleaned_data
    login = Login(logins.as_offered(said["server"]), said["login"], said["password"])
    if logins.is_somebody_elses(login, customer):
        form.add_error(None, f"This account cannot be connected now. Write to {settings.SUPPORT_EMAIL}, and we look.")
    elif logins.was_refused(login):
        form.add_error(
            "password",
            "Your broker has refused just these three before, so we don’t try them again. Correct what is wrong, or "
            f"write to {settings.SUPPORT_EMAIL} if it is right now.",
        )
    elif logins.runs_already(login, customer):
        form.add_error("password", "Your terminal runs with just these three already.")
    return None if form.errors else login


def _form(request: HttpRequest, form: LoginForm, **words: Any) -> HttpResponse:
    status = 200 if not form.errors and not words.get("no_slot") else 422 if form.errors else 503
    return render(
        request, "presspass/golive/form.html", {"form": form, "servers": logins.servers(), **words}, status=status
    )


def _warn(request: HttpRequest, login: Login) -> None:
    if doubt := rules.doubt(login.password):
        messages.info(request, doubt)


def _open(request: HttpRequest, opened: Checkout) -> HttpResponse:
    until = moments.at_and_away(opened.instance.held_until or opened.expires_at, now=clock.now(), zone=zone_of(request))
    return render(request, "presspass/golive/open.html", {"opened": opened, "until": until})


@never_cache
@require_POST
@signed_in
def pay(request: HttpRequest) -> HttpResponse:
    opened = checkouts.open_checkout(customer_of(request))
    return redirect("presspass:go_live") if opened is None else _pay(request, opened)


def _pay(request: HttpRequest, opened: Checkout) -> HttpResponse:
    try:
        return redirect(checkouts.pay_url(opened))
    except StripeSilent:
        messages.info(request, NO_ANSWER)
    except StripeRefused as refusal:
        messages.info(request, f"The payment page could not be made: {refusal}")
    return redirect("presspass:go_live")


@never_cache
@require_POST
@signed_in
def cancel(request: HttpRequest) -> HttpResponse:
    customer = customer_of(request)
    opened = checkouts.open_checkout(customer)
    if opened is None:
        return redirect("presspass:go_live")
    try:
        if checkouts.cancel(opened, who=f"customer:{customer.pk}"):
            messages.info(request, "Cancelled. Nothing was charged, and the login you typed is deleted.")
            return redirect("presspass:go_live")
        messages.info(request, "It was paid just before. Your live terminal is on its way.")
    except (StripeSilent, StripeRefused):
        messages.info(request, "It can’t be cancelled at the moment. Left alone, it ends by itself and costs nothing.")
    return redirect("presspass:terminal")


@never_cache
@require_safe
@signed_in
def paid(request: HttpRequest, checkout_id: int) -> HttpResponse:
    """Back from the pay page. That alone proves nothing: a worker asks Stripe."""
    if not Checkout.objects.filter(pk=checkout_id, customer=customer_of(request)).exists():
        return error_404(request)
    doorbell.ring(doors.CHECK, checkout_id)
    return redirect("presspass:terminal")


@never_cache
@require_POST
@signed_in
def billing(request: HttpRequest) -> HttpResponse:
    """To Stripe's own page for card, invoices and cancelling."""
    bought = checkouts.subscription_of(customer_of(request))
    if bought is None:
        return redirect("presspass:terminal")
    try:
        there = stripe_api.portal_url(
            bought.stripe_customer, return_url=settings.SITE_URL + reverse("presspass:terminal")
        )
    except (StripeSilent, StripeRefused):
        messages.info(request, "The page for payments can’t be reached at the moment. Try again in a minute.")
        return redirect("presspass:terminal")
    return redirect(there)


@never_cache
@require_POST
@signed_in
def money_back(request: HttpRequest) -> HttpResponse:
    try:
        refunds.ask_mine(customer_of(request))
        messages.info(request, "Your money is on its way back. We mail you when it has left us.")
    except errors.Refused as refusal:
        messages.info(request, str(refusal))
    return redirect("presspass:terminal")
