"""What settings must not say together, as Django system checks: `manage.py check` names each with a hint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.http.request import validate_host

from bitten_portal.proxies import Trusted
from farm import fencing
from farm.agent import protocol

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
POSITIVE = (
    "CLAIM_SECONDS",
    "READY_SECONDS",
    "SWEEP_SECONDS",
    "RING_AGAIN_SECONDS",
    "SURVEY_FRESH_SECONDS",
    "RETRY_FIRST_SECONDS",
    "RETRY_ATTEMPTS",
    "HEARTBEAT_RESOLUTION_SECONDS",
    "PRESS_PASS_DAYS",
    "IDLE_HOURS",
    "LINK_SECONDS",
    "BROKER_PAUSE_REFUSALS",
    "BROKER_PAUSE_SECONDS",
    "GRACE_DAYS",
    "HOLD_SECONDS",
    "UNSOLVED_DAYS",
    "WARN_HOURS",
    "OFFER_MINUTES",
    "RECYCLE_SECONDS",
    "RECYCLE_LATE_SECONDS",
    "LEASE_SECONDS",
    "DRIFT_SECONDS",
    "MOVE_SECONDS",
    "WATCH_SECONDS",
    "BRAKE_HOSTS",
    "BRAKE_WINDOW_SECONDS",
    "BRAKE_GRACE_SECONDS",
    "ORPHAN_HOURS",
    "DRAIN_AT_ONCE",
)
IN_ORDER = (
    ("SWEEP_SECONDS", "RING_AGAIN_SECONDS", "or the sweep would ring anew before the first ring could be answered"),
    ("SWEEP_SECONDS", "SURVEY_FRESH_SECONDS", "or hosts would fall silent between two sweeps"),
    ("RETRY_FIRST_SECONDS", "RETRY_MOST_SECONDS", "or the first retry would wait longer than the last"),
    ("RECYCLE_SECONDS", "RECYCLE_LATE_SECONDS", "or staff would be told between any two runs"),
    ("WATCH_SECONDS", "SURVEY_FRESH_SECONDS", "or a host would be silent and back between two looks"),
    ("SURVEY_FRESH_SECONDS", "MOVE_SECONDS", "or terminals would leave a host that counts as well"),
    ("SURVEY_FRESH_SECONDS", "LEASE_SECONDS", "or live terminals would stop on a host that counts as well"),
    ("CLAIM_SECONDS", "READY_SECONDS", "or a start would be given less time than a copy"),
)
RANDOM = "python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"
PUBLIC = "It is the public half of the first of INTAKE_SECRET_KEYS; .env.example shows how to make both."
HOW = {"ORDER_SIGNING_KEY": RANDOM, "INTAKE_SECRET_KEYS": RANDOM, "INTAKE_KEY": PUBLIC}
LIMIT = re.compile(r"[1-9]\d*/[smhd]\Z")


@register
def places(**kwargs: Any) -> list[CheckMessage]:
    """LOCAL, SITE_URL, ALLOWED_HOSTS and the mail page."""
    return list(_places())


def _places() -> Iterator[CheckMessage]:
    site = urlsplit(settings.SITE_URL)
    host = site.hostname or ""
    if site.scheme not in {"http", "https"} or not host or site.path or site.query:
        yield Error(
            f"SITE_URL is {settings.SITE_URL!r}, which is not the address of a site.",
            hint="Give scheme and host only, as in https://portal.example.com.",
            id="bitten.E001",
        )
    elif settings.LOCAL and host not in LOOPBACK:
        yield Error(
            f"LOCAL is on, but SITE_URL names {host}.",
            hint="LOCAL serves mail on a page and cookies over plain http; on a machine that others reach turn it off.",
            id="bitten.E002",
        )
    elif not settings.LOCAL and site.scheme != "https":
        yield Error("SITE_URL is not https.", hint="Sign-in links must not travel in the clear.", id="bitten.E003")
    if host and not validate_host(host, settings.ALLOWED_HOSTS):
        yield Error(
            f"ALLOWED_HOSTS does not hold {host}, the host of SITE_URL.",
            hint="Links in mail would lead to a page that refuses its own name.",
            id="bitten.E004",
        )
    if settings.MAIL_FOLDER and not settings.LOCAL:
        yield Error(
            "MAIL_FOLDER is set without LOCAL.",
            hint="Mail as a page is for one's own machine; unset MAIL_FOLDER and set EMAIL_URL.",
            id="bitten.E005",
        )


@register
def times(**kwargs: Any) -> list[CheckMessage]:
    """Every span is a span, and those that nest do."""
    found: list[CheckMessage] = [
        Error(f"{name} is {getattr(settings, name):g}.", hint="It must be more than 0.", id="bitten.E006")
        for name in POSITIVE
        if not 0 < getattr(settings, name) < float("inf")
    ]
    for less, more, why in IN_ORDER:
        if getattr(settings, less) > getattr(settings, more):
            found.append(Error(f"{less} is more than {more}.", hint=f"It must not be, {why}.", id="bitten.E007"))
    longest = max(settings.LEASE_SECONDS, settings.HOLD_LEASES_MOST_HOURS * 3600)
    if not fencing.drift_covers(settings.DRIFT_SECONDS, longest_lease=longest):
        found.append(
            Error(
                f"DRIFT_SECONDS ({settings.DRIFT_SECONDS:g}) is not more than two clocks may drift apart in a lease of "
                f"{longest / 3600:g} h.",
                hint="Raise it, or lower HOLD_LEASES_MOST_HOURS: else an account could run twice.",
                id="bitten.E021",
            )
        )
    return found


@register
def keys(**kwargs: Any) -> list[CheckMessage]:
    """The portal worker's keys, if this process has them. No message says what stands in them."""
    found: list[CheckMessage] = []
    for name in ("ORDER_SIGNING_KEY", "INTAKE_KEY", "INTAKE_SECRET_KEYS"):
        value = getattr(settings, name)
        if not all(_is_key(key) for key in ([value] if isinstance(value, str) else value) if key):
            found.append(Error(f"{name} is not 32 bytes in base64.", hint=HOW[name], id="bitten.E009"))
    if not all(_is_fernet(key) for key in settings.FIELD_KEYS):
        found.append(
            Error(
                "FIELD_KEYS holds something that is not a Fernet key.",
                hint="python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'",
                id="bitten.E010",
            )
        )
    return found


def _is_key(text: str) -> bool:
    try:
        return len(protocol.unb64(text)) == 32
    except protocol.Malformed:
        return False


def _is_fernet(text: str) -> bool:
    try:
        Fernet(text)
    except ValueError:
        return False
    return True


@register
def words(**kwargs: Any) -> list[CheckMessage]:
    """Settings that are one of a few words, or have a form."""
    found: list[CheckMessage] = [
        Error(f"{name} is {getattr(settings, name)!r}.", hint="Write it as in 10/h: s, m, h or d.", id="bitten.E011")
        for name in ("LIMIT_SIGNUPS", "LIMIT_LINKS", "LIMIT_LOGINS", "LIMIT_MAILS", "LIMIT_STAFF")
        if not LIMIT.match(getattr(settings, name))
    ]
    if settings.DEMO_ACCOUNTS not in {"wait", "without"}:
        found.append(
            Error(f"DEMO_ACCOUNTS is {settings.DEMO_ACCOUNTS!r}.", hint="Say wait or without.", id="bitten.E012")
        )
    try:
        Trusted(settings.TRUSTED_PROXIES)
    except ValueError as error:
        found.append(
            Error(
                f"TRUSTED_PROXIES cannot be read: {error}.",
                hint="Give addresses and networks, as in 10.0.0.0/8, or unix for a socket.",
                id="bitten.E013",
            )
        )
    return found


@register
def payment(**kwargs: Any) -> list[CheckMessage]:
    """What is sold must be paid for, and what Stripe tells must be believed only from Stripe."""
    return list(_payment())


def _payment() -> Iterator[CheckMessage]:
    if settings.STRIPE_SECRET_KEY and not settings.STRIPE_WEBHOOK_SECRET:
        yield Error(
            "STRIPE_WEBHOOK_SECRET is not set, but STRIPE_SECRET_KEY is.",
            hint="Payments would come in unheard. Stripe shows it beside the webhook endpoint (docs/stripe.md).",
            id="bitten.E017",
        )
    if settings.STRIPE_SECRET_KEY and not settings.INTAKE_KEY:
        yield Error("INTAKE_KEY is not set, but STRIPE_SECRET_KEY is.", hint=PUBLIC, id="bitten.E018")
    if settings.HOLD_SECONDS < 1840:
        yield Error(
            f"HOLD_SECONDS is {settings.HOLD_SECONDS:g}.",
            hint="Stripe keeps a pay page open for 30 minutes at least: give 1840 or more.",
            id="bitten.E019",
        )
    if settings.STRIPE_API_BASE and not settings.LOCAL:
        yield Error(
            "STRIPE_API_BASE is set without LOCAL.",
            hint="Payments would go to a stand-in, where no money moves.",
            id="bitten.E020",
        )


@register
def scale(**kwargs: Any) -> list[CheckMessage]:
    """What works on a laptop and does not carry an installation."""
    if settings.LOCAL:
        return []
    found: list[CheckMessage] = []
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        found.append(
            Warning(
                "The database is SQLite.",
                hint="It is for LOCAL: one machine, one writer at a time. Set DATABASE_URL to PostgreSQL.",
                id="bitten.W014",
            )
        )
    if not settings.CACHE_URL:
        found.append(
            Warning(
                "CACHE_URL is not set.",
                hint="Rate limits then hold per web process only. Set it to a Redis.",
                id="bitten.W015",
            )
        )
    if "*" in settings.ALLOWED_HOSTS:
        found.append(Warning("ALLOWED_HOSTS holds *.", hint="Name the hosts that are ours.", id="bitten.W016"))
    return found
