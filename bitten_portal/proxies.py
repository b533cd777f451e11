"""Who is really asking, when proxies of ours stand in between.

Only a peer named in TRUSTED_PROXIES is believed. From its X-Forwarded-For the right-most address that is not one of
ours is the client: everything further left was written by the client itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import cached_property

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix"
"""In TRUSTED_PROXIES: the peer of a Unix socket, which has no address."""


def address(text: str) -> Address | None:
    """Read one hop, with or without port and brackets; None if it is no address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


class Trusted:
    """The proxies that are ours. Raises ``ValueError`` for a word that is neither address nor network."""

    def __init__(self, words: Iterable[str]) -> None:
        words = list(words)
        self.sockets = UNIX in words
        self.networks: list[Network] = [ipaddress.ip_network(word) for word in words if word != UNIX]

    def peer(self, text: str) -> bool:
        return self.sockets if not text else self.hop(address(text))

    def hop(self, found: Address | None) -> bool:
        return found is not None and any(found in network for network in self.networks)

    def client(self, forwarded: str) -> Address | None:
        """The right-most hop that is not ours; None if a hop before it cannot be read."""
        found: Address | None = None
        for hop in reversed(forwarded.split(",")):
            found = address(hop)
            if not self.hop(found):
                return found
        return found


class TrustedProxies:
    """Middleware: sets REMOTE_ADDR and the scheme by what trusted proxies say, and drops what others say."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    @cached_property
    def trusted(self) -> Trusted:
        return Trusted(settings.TRUSTED_PROXIES)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        meta = request.META
        forwarded, scheme = meta.pop("HTTP_X_FORWARDED_FOR", ""), meta.pop("HTTP_X_FORWARDED_PROTO", "")
        if self.trusted.peer(meta.get("REMOTE_ADDR", "")):
            client = self.trusted.client(forwarded) if forwarded else None
            if client is not None:
                meta["REMOTE_ADDR"] = str(client)
            if scheme.strip() in {"http", "https"}:
                meta["wsgi.url_scheme"] = scheme.strip()
        return self.get_response(request)
