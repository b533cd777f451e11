"""The ground that every test stands on: an environment of its own, and what a test may ask of the machine.

Nothing here touches a service of the machine unless a variable names it: DATABASE_URL a PostgreSQL, REDIS_URL a Redis.
With REQUIRE_ALL=1 a test that lacks what it needs fails instead of being skipped.
"""

from __future__ import annotations

import atexit
import base64
import gc
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from nacl.public import PrivateKey

FOLDER = Path(tempfile.mkdtemp(prefix="bitten-tests-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
INTAKE = PrivateKey.generate()

# Before Django reads its settings. pytest-django would read them earlier if its option named them.
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "bitten_portal.settings",
    "DJANGO_ALLOW_ASYNC_UNSAFE": "true",
    "LOCAL": "True",
    "SECRET_KEY": secrets.token_urlsafe(64),
    "SITE_URL": "http://127.0.0.1:8000",
    "ALLOWED_HOSTS": "127.0.0.1,localhost",
    "DATABASE_URL": f"sqlite:///{FOLDER}/portal.sqlite3",
    "BROKER_URL": "memory://",
    "EMAIL_URL": "memorymail://",
    "KEEPSAKE_WAIT_SECONDS": "0",  # a go-live waits for no host's upload, but where a test is about that
    "ORDER_SIGNING_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
    "FIELD_KEYS": Fernet.generate_key().decode(),
    "INTAKE_KEY": base64.b64encode(bytes(INTAKE.public_key)).decode(),
    "INTAKE_SECRET_KEYS": base64.b64encode(bytes(INTAKE)).decode(),
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

from django.conf import settings  # noqa: E402  it must find the environment above
from django.db import OperationalError, connection  # noqa: E402
from django.db.backends.base.operations import BaseDatabaseOperations  # noqa: E402

from bitten_portal.celery import app as celery_app  # noqa: E402

__all__ = ["celery_app"]

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-pings",
]


def pytest_configure(config: pytest.Config) -> None:
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        # A file, not memory: threads and processes of a test must see one database, as they do in life.
        database.setdefault("TEST", {})["NAME"] = str(FOLDER / "test.sqlite3")


def lacking(item: pytest.Item) -> str | None:
    """Why ``item`` cannot run here, or None."""
    if item.get_closest_marker("postgres") and "postgresql" not in settings.DATABASES["default"]["ENGINE"]:
        return "needs PostgreSQL: set DATABASE_URL=postgres://…"
    if item.get_closest_marker("redis") and not os.environ.get("REDIS_URL"):
        return "needs Redis: set REDIS_URL=redis://…"
    if item.get_closest_marker("browser") and CHROMIUM is None:
        return "needs Chromium: apt-get install chromium fonts-dejavu-core"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = lacking(item)
    if reason and os.environ.get("REQUIRE_ALL"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """PostgreSQL keeps a database that anybody is still connected to; a thread of a test that ended may be."""
    yield
    gc.collect()
    if connection.vendor == "postgresql":
        connection.close()  # the last test may have had it cut
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT query, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            for query, _ in cursor.fetchall():
                print(f"A connection was left behind; its last statement: {query}", file=sys.stderr)


@pytest.fixture(scope="session", autouse=True)
def emptying_is_asked_again() -> Iterator[None]:
    """A module's own process may read two tables while a test's are emptied: PostgreSQL then ends one of both."""
    empty = BaseDatabaseOperations.execute_sql_flush

    def patient(self: BaseDatabaseOperations, statements: list[str], tries: int = 5) -> None:
        try:
            empty(self, statements)
        except OperationalError as error:
            if "deadlock" not in str(error) or tries == 1:
                raise
            patient(self, statements, tries - 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDatabaseOperations, "execute_sql_flush", patient)
        yield


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": CHROMIUM_FLAGS}


@pytest.fixture
def redis_url() -> str:
    """A Redis for this test alone to write into; only for tests marked so."""
    return os.environ["REDIS_URL"]
