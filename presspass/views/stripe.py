"""Where Stripe tells what happened. Acknowledged at once; a worker asks what is so."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from presspass.billing import events
from presspass.billing.stripe_api import Unsigned
from presspass.middleware import poll

LARGEST_BYTES = 512 * 1024

log = logging.getLogger(__name__)


@poll
@csrf_exempt
@never_cache
@require_POST
def webhook(request: HttpRequest) -> HttpResponse:
    length = request.headers.get("Content-Length") or "0"
    if not length.isdecimal() or int(length) > LARGEST_BYTES:
        return HttpResponse(status=413)
    try:
        events.receive(request.body, request.headers.get("Stripe-Signature", ""))
    except Unsigned as error:
        log.warning("a webhook that is not Stripe's", extra={"error": str(error)})
        return HttpResponse(status=400)
    return HttpResponse(status=200)
