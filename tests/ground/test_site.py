"""What holds for every page: health, headers, cookies."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection
from django.test import Client


@pytest.mark.django_db
def test_health_is_said_without_asking_the_broker(settings) -> None:
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    assert Client().get("/healthz").content == b"ok"


@pytest.mark.django_db
def test_a_database_that_does_not_answer_is_503(monkeypatch) -> None:
    def broken() -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(connection, "cursor", broken)
    answer = Client().get("/healthz")
    assert (answer.status_code, answer.content) == (503, b"database")


@pytest.mark.django_db
def test_health_over_http_is_not_sent_elsewhere_where_https_is_forced(settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get("/healthz").status_code == 200
    assert Client().get("/").status_code == 301


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/admin/login/", "/nowhere/"])
def test_every_page_allows_its_own_parts_only(path: str) -> None:
    answer = Client().get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    for directive in ("frame-ancestors 'none'", "base-uri 'none'", "object-src 'none'", "form-action 'self'"):
        assert directive in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] in {"same-origin", "no-referrer"}


@pytest.mark.django_db
def test_cookies_are_kept_from_scripts_and_other_sites() -> None:
    client = Client()
    client.get("/admin/login/")
    cookie = client.cookies["csrftoken"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
