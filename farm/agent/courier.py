"""A keepsake's way between this host and the portal: one HTTP request to the one-time address of an order.

The address is a ticket: it stands in no log, no exception and no detail.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from farm.agent import errors
from farm.agent.archive import MOST_BYTES

TIMEOUT_SECONDS = 10.0
"""For connecting, for sending all of it, and for each piece that is read."""
LONGEST_SECONDS = 20.0
"""For reading all of it."""
DIGEST_HEADER = "X-Keepsake-SHA256"
_CHUNK = 64 << 10


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def upload(url: str, data: bytes) -> None:
    """Bring ``data`` to the portal. Raise :class:`errors.KeepsakeTrouble` if that cannot be done."""
    digest = hashlib.sha256(data).hexdigest()
    headers = {"Content-Type": "application/zip", DIGEST_HEADER: digest}
    with _answer(url, method="PUT", data=data, headers=headers):
        pass


def download(url: str) -> bytes:
    """Fetch a keepsake from the portal. Raise :class:`errors.KeepsakeTrouble` if that cannot be done."""
    end = time.monotonic() + LONGEST_SECONDS
    with _answer(url, method="GET", data=None, headers={}) as answer:
        data = b""
        while chunk := answer.read(_CHUNK):
            data += chunk
            if len(data) > MOST_BYTES:
                raise errors.KeepsakeTrouble("the portal sent a keepsake that is too big")
            if time.monotonic() > end:
                raise errors.KeepsakeTrouble("the portal sent its keepsake too slowly")
        if answer.headers.get(DIGEST_HEADER) != hashlib.sha256(data).hexdigest():
            raise errors.KeepsakeTrouble("the keepsake was changed on its way")
    return data


@contextmanager
def _answer(url: str, *, method: str, data: bytes | None, headers: dict[str, str]) -> Iterator[Any]:
    """Ask, and give the portal's answer to the block. Errors name no cause: theirs would name the address."""
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise errors.KeepsakeTrouble("the order names an address that is not HTTP")
        request = urllib.request.Request(url, data=data, method=method, headers=headers)
        with _opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        raise errors.KeepsakeTrouble(f"the portal answered {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise errors.KeepsakeTrouble(f"the portal was not reached: {type(reason).__name__}") from None
