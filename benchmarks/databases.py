"""A PostgreSQL database for a measurement, and what a portal process on it is told."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

SERVER = "postgres://postgres@127.0.0.1:5432"


@contextmanager
def a_database(name: str) -> Iterator[str]:
    """The URL of BENCH_DATABASE_URL, or of a database that is made on 127.0.0.1:5432 and dropped afterwards."""
    given = os.environ.get("BENCH_DATABASE_URL")
    if given:
        yield given
        return
    name = f"{name}_{os.getpid()}"
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{SERVER}/{name}"
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def environment(url: str) -> dict[str, str]:
    """Of a portal worker whose broker keeps what it is told in the process, and forgets it."""
    return {
        "DJANGO_SETTINGS_MODULE": "bitten_portal.settings",
        "DATABASE_URL": url,
        "BROKER_URL": "memory://",
        "EMAIL_URL": "dummymail://",
        "SITE_URL": "http://127.0.0.1:8000",
        "ALLOWED_HOSTS": "127.0.0.1",
        "LOCAL": "True",
        "LOG_LEVEL": "ERROR",
        "SECRET_KEY": secrets.token_urlsafe(64),
        "ORDER_SIGNING_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "FIELD_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
