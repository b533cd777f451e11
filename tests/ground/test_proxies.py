"""Whose word is taken for where a request comes from."""

from __future__ import annotations

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from bitten_portal.proxies import TrustedProxies


def seen(peer: str, **headers: str) -> HttpRequest:
    """The request as views get it."""
    met: list[HttpRequest] = []

    def view(request: HttpRequest) -> HttpResponse:
        met.append(request)
        return HttpResponse()

    extra = {f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in headers.items()}
    TrustedProxies(view)(RequestFactory().get("/", REMOTE_ADDR=peer, **extra))
    return met[0]


@pytest.fixture(autouse=True)
def proxies(settings) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/8", "::1"]


def test_a_stranger_cannot_say_who_it_is() -> None:
    request = seen("203.0.113.9", **{"for": "1.2.3.4"}, proto="https")
    assert request.META["REMOTE_ADDR"] == "203.0.113.9"
    assert not request.is_secure()
    assert "X-Forwarded-For" not in request.headers


def test_nobody_is_believed_when_no_proxy_is_named(settings) -> None:
    settings.TRUSTED_PROXIES = []
    assert seen("127.0.0.1", **{"for": "1.2.3.4"}).META["REMOTE_ADDR"] == "127.0.0.1"


def test_what_the_client_itself_wrote_into_the_header_is_passed_over() -> None:
    assert seen("10.0.0.2", **{"for": "1.2.3.4, 198.51.100.7, 10.0.0.1"}).META["REMOTE_ADDR"] == "198.51.100.7"


def test_an_unreadable_hop_stops_the_search_at_the_peer() -> None:
    assert seen("10.0.0.2", **{"for": "198.51.100.7, not an address"}).META["REMOTE_ADDR"] == "10.0.0.2"


@pytest.mark.parametrize(
    ("hop", "expected"),
    [
        ("198.51.100.7:4711", "198.51.100.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
    ],
)
def test_a_hop_is_read_in_every_form_that_proxies_write(hop: str, expected: str) -> None:
    assert seen("::1", **{"for": hop}).META["REMOTE_ADDR"] == expected


def test_a_chain_of_our_own_ends_at_its_first() -> None:
    assert seen("10.0.0.3", **{"for": "10.0.0.1, 10.0.0.2"}).META["REMOTE_ADDR"] == "10.0.0.1"


def test_a_trusted_proxy_says_that_the_request_came_over_https() -> None:
    assert seen("10.0.0.2", proto="https").is_secure()


def test_a_scheme_that_is_none_is_not_taken() -> None:
    assert seen("10.0.0.2", proto="https, http").scheme == "http"


def test_the_peer_of_a_socket_is_believed_only_if_named(settings) -> None:
    assert seen("", **{"for": "198.51.100.7"}).META["REMOTE_ADDR"] == ""
    settings.TRUSTED_PROXIES = ["unix"]
    assert seen("", **{"for": "198.51.100.7"}).META["REMOTE_ADDR"] == "198.51.100.7"
