"""What hosts ask of the portal over HTTP: to take a keepsake, and to give one. No session, no cookie: a ticket."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from farm import errors, keepsakes, lifecycle

DIGEST_HEADER = "X-Keepsake-SHA256"


@csrf_exempt
@never_cache
@require_http_methods(["GET", "PUT"])
def keepsake(request: HttpRequest, token: str) -> HttpResponse:
    try:
        return _given(token) if request.method == "GET" else _taken(request, token)
    except errors.NoTicket:
        return HttpResponse(status=404)
    except errors.TooBig:
        return HttpResponse(status=413)
    except errors.BadKeepsake:
        return HttpResponse(status=400)


def _given(token: str) -> HttpResponse:
    found = keepsakes.hand_out(token)
    headers = {DIGEST_HEADER: found.digest, "X-Content-Type-Options": "nosniff"}
    return HttpResponse(bytes(found.data), content_type="application/zip", headers=headers)


def _taken(request: HttpRequest, token: str) -> HttpResponse:
    keepsakes.check(token)
    most = settings.KEEPSAKE_MOST_BYTES
    # Whoever says that it is too much is not read at all, and nobody is read any further than that.
    said = request.headers.get("Content-Length", "")
    if said.isdecimal() and int(said) > most:
        raise errors.TooBig
    lifecycle.accept_keepsake(token, request.read(most + 1), digest=request.headers.get(DIGEST_HEADER, ""))
    return HttpResponse(status=204)
