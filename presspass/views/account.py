"""What is stored about a customer: to have all of it, and to have it deleted."""

from __future__ import annotations

import json

from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from farm import clock, errors
from presspass.lifecycle import leaving
from presspass.views.terminal import customer_of, signed_in


@never_cache
@require_safe
@signed_in
def account(request: HttpRequest) -> HttpResponse:
    return render(request, "presspass/account.html", {"customer": customer_of(request)})


@never_cache
@require_safe
@signed_in
def export(request: HttpRequest) -> HttpResponse:
    try:
        found = leaving.export(customer_of(request))
    except errors.Refused as refusal:
        messages.info(request, str(refusal))
        return redirect("presspass:account")
    response = HttpResponse(json.dumps(found, indent=2, ensure_ascii=False), content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="bitten-{clock.now():%Y-%m-%d}.json"'
    return response


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def delete(request: HttpRequest) -> HttpResponse:
    """Looking at this page deletes nothing."""
    customer = customer_of(request)
    if request.method != "POST":
        return render(request, "presspass/delete.html", {"customer": customer, "kept": leaving.kept()})
    try:
        leaving.ask(customer)
    except errors.Refused as refusal:
        messages.info(request, str(refusal))
        return redirect("presspass:account")
    logout(request)
    return render(request, "presspass/deleted.html")
