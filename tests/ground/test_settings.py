"""The settings: what is missing is named, what does not fit together is said, and production is silent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import current_app
from django.conf import settings as live
from django.core.checks import run_checks

from bitten_portal import checks
from bitten_portal.celery import app

ROOT = Path(live.BASE_DIR)
EXAMPLE = ROOT / ".env.example"
NEEDED = ("SECRET_KEY", "DATABASE_URL", "BROKER_URL", "SITE_URL", "ALLOWED_HOSTS", "EMAIL_URL")


def example() -> dict[str, str]:
    lines = [line for line in EXAMPLE.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def python(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "bitten_portal.settings", **env}
    return subprocess.run([sys.executable, *words], env=clean, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_variable_ends_the_start_and_is_named(name: str) -> None:
    env = example()
    del env[name]
    done = python("-c", "import bitten_portal.settings", env=env)
    assert done.returncode != 0
    assert f"{name} is not set" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", NEEDED)
def test_an_empty_variable_counts_as_missing(name: str) -> None:
    done = python("-c", "import bitten_portal.settings", env={**example(), name: ""})
    assert f"{name} is not set" in done.stderr


def test_a_number_that_is_none_is_named() -> None:
    done = python("-c", "import bitten_portal.settings", env={**example(), "IDLE_HOURS": "a day"})
    assert "IDLE_HOURS is 'a day', which is not a number." in done.stderr


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    env = example()
    (tmp_path / "key").write_text(env.pop("SECRET_KEY"), "utf-8")
    env["SECRET_KEY_FILE"] = str(tmp_path / "key")
    assert python("-c", "import bitten_portal.settings", env=env).returncode == 0


def test_the_production_example_is_silent_under_check_deploy() -> None:
    done = python("-W", "error", "manage.py", "check", "--deploy", env={"ENV_FILE": str(EXAMPLE)})
    assert (done.stdout, done.stderr) == ("System check identified no issues (0 silenced).\n", "")


def test_production_is_what_one_gets_without_asking() -> None:
    words = "LOCAL, DEBUG, SESSION_COOKIE_SECURE, CSRF_COOKIE_SECURE, SECURE_SSL_REDIRECT, SECURE_HSTS_SECONDS > 0"
    done = python("-c", f"from bitten_portal.settings import *; print({words.replace(' > 0', '')})", env=example())
    assert done.stdout.split() == ["False", "False", "True", "True", "True", "31536000"]


def test_the_tests_settings_fit_together() -> None:
    assert run_checks() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"SITE_URL": "portal.example.com"}, "bitten.E001"),
        ({"SITE_URL": "http://127.0.0.1:8000/app"}, "bitten.E001"),
        ({"SITE_URL": "http://portal.example.com", "ALLOWED_HOSTS": ["portal.example.com"]}, "bitten.E002"),
        ({"LOCAL": False, "MAIL_FOLDER": ""}, "bitten.E003"),
        ({"ALLOWED_HOSTS": ["elsewhere.example.com"]}, "bitten.E004"),
        ({"LOCAL": False, "MAIL_FOLDER": "/tmp/mail"}, "bitten.E005"),
        ({"IDLE_HOURS": 0}, "bitten.E006"),
        ({"IDLE_HOURS": -1}, "bitten.E006"),
        ({"PRESS_PASS_DAYS": float("nan")}, "bitten.E006"),
        ({"CLAIM_SECONDS": float("inf")}, "bitten.E006"),
        ({"SWEEP_SECONDS": 60, "RING_AGAIN_SECONDS": 30}, "bitten.E007"),
        ({"DRIFT_SECONDS": 5}, "bitten.E021"),
        ({"HOLD_LEASES_MOST_HOURS": 8}, "bitten.E021"),
        ({"HOLD_LEASES_MOST_HOURS": 1, "LEASE_SECONDS": 8 * 3600}, "bitten.E021"),
        ({"CLAIM_SECONDS": 100, "READY_SECONDS": 90}, "bitten.E007"),
        ({"ORDER_SIGNING_KEY": "AAAA"}, "bitten.E009"),
        ({"ORDER_SIGNING_KEY": "no base64!"}, "bitten.E009"),
        ({"INTAKE_SECRET_KEYS": ["AAAA"]}, "bitten.E009"),
        ({"FIELD_KEYS": ["not a key"]}, "bitten.E010"),
        ({"LIMIT_SIGNUPS": "many"}, "bitten.E011"),
        ({"LIMIT_LINKS": "0/h"}, "bitten.E011"),
        ({"DEMO_ACCOUNTS": "perhaps"}, "bitten.E012"),
        ({"TRUSTED_PROXIES": ["10.0.0.0/99"]}, "bitten.E013"),
        ({"LOCAL": False, "CACHE_URL": ""}, "bitten.W015"),
        ({"LOCAL": False, "ALLOWED_HOSTS": ["*"]}, "bitten.W016"),
    ],
)
def test_what_does_not_fit_is_said_with_a_hint(settings, changes: dict[str, object], expected: str) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)
    every = (checks.places, checks.times, checks.keys, checks.words, checks.scale)
    found = {message.id: message for check in every for message in check()}
    assert expected in found
    assert found[expected].hint


def test_sqlite_is_said_to_be_for_one_machine(settings, monkeypatch) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    assert "bitten.W014" not in {message.id for message in checks.scale()}
    settings.LOCAL = False
    assert "bitten.W014" in {message.id for message in checks.scale()}


def test_no_check_tells_what_a_key_holds(settings) -> None:
    settings.ORDER_SIGNING_KEY, settings.FIELD_KEYS = "hush-hush", ["hush-hush"]
    messages = checks.keys()
    assert len(messages) == 2
    assert "hush" not in str(messages)


def test_the_database_is_asked_for_the_lock_before_it_reads() -> None:
    if live.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        options = live.DATABASES["default"]["OPTIONS"]
        assert (options["transaction_mode"], options["timeout"]) == ("IMMEDIATE", 20)
        assert "journal_mode=WAL" in options["init_command"]
    else:
        assert live.DATABASES["default"]["CONN_HEALTH_CHECKS"]


def test_every_scheduled_task_is_registered() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)


def test_the_queue_takes_json_only_and_keeps_no_results() -> None:
    conf = app.conf
    assert (conf.accept_content, conf.task_serializer) == (["json"], "json")
    assert (conf.task_ignore_result, conf.result_backend) == (True, None)
    assert (conf.worker_send_task_events, conf.worker_enable_remote_control) == (False, False)


def test_a_thread_that_did_not_import_the_app_rings_at_our_broker() -> None:
    """A web thread does not inherit what the importing thread had as its current app."""
    script = (
        "import threading, celery, bitten_portal.celery\n"
        "t = threading.Thread(target=lambda: print(celery.current_app.main)); t.start(); t.join()"
    )
    assert python("-c", script, env=example()).stdout.strip() == "bitten_portal"
    assert current_app.main == "bitten_portal"
