"""Every setting of the portal, read from the environment (docs/settings.md). Safe for production unless LOCAL is on.

A secret may also come from a file: ``SECRET_KEY_FILE`` names the file that holds ``SECRET_KEY``, and so on. With
``ENV_FILE`` the variables are read from that file first; what is set already stands. What does not fit together is
said by ``manage.py check`` (bitten_portal/checks.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()
if "ENV_FILE" in os.environ:
    env.read_env(os.environ["ENV_FILE"])


def needed(name: str) -> str:
    text: str = env(name, default="")
    if not text:
        raise ImproperlyConfigured(f"{name} is not set. .env.example shows every variable.")
    return text


def number(name: str, default: float) -> float:
    text = env(name, default="")
    try:
        return float(text) if text else default
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is {text!r}, which is not a number.") from error


def words(name: str) -> list[str]:
    return [word.strip() for word in env(name, default="").split(",") if word.strip()]


# --- what this installation is ----------------------------------------------------------------------------------------

LOCAL: bool = env.bool("LOCAL", default=False)
"""One machine, plain http, mail on a page: what `make run` sets. Never on a machine that others reach."""
DEBUG: bool = env.bool("DEBUG", default=False)
SECRET_KEY = needed("SECRET_KEY")
SECRET_KEY_FALLBACKS = words("SECRET_KEY_FALLBACKS")
MAILBOX_KEY: str = env("MAILBOX_KEY", default="") or SECRET_KEY
"""What mailboxes are marked with, so that one gets one Press Pass. With another one all are strangers."""
SITE_URL = needed("SITE_URL").rstrip("/")
ALLOWED_HOSTS = words("ALLOWED_HOSTS")
if not ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS is not set. .env.example shows every variable.")
CSRF_TRUSTED_ORIGINS = words("CSRF_TRUSTED_ORIGINS")
TRUSTED_PROXIES = words("TRUSTED_PROXIES")
"""Addresses and networks whose X-Forwarded-For and -Proto are believed; `unix` for a socket's peer."""

# --- the farm ---------------------------------------------------------------------------------------------------------

ORDER_SIGNING_KEY: str = env("ORDER_SIGNING_KEY", default="")
"""Base64 Ed25519 seed. In the portal worker's environment only."""
FIELD_KEYS = words("FIELD_KEYS")
"""Fernet keys, the newest first. In the portal worker's environment only."""
INTAKE_KEY: str = env("INTAKE_KEY", default="")
"""Base64 X25519 public key that the web closes customers' broker passwords to; it cannot open them again."""
INTAKE_SECRET_KEYS = words("INTAKE_SECRET_KEYS")
"""Its private keys, the newest first. In the portal worker's environment only."""
PROOF_NEEDS_HEARTBEAT: bool = env.bool("PROOF_NEEDS_HEARTBEAT", default=True)
"""Whether a live terminal's EA must confirm the login; without an EA the journal's word alone counts."""
BROKER_PAUSE_REFUSALS = int(number("BROKER_PAUSE_REFUSALS", 10))
BROKER_PAUSE_SECONDS = number("BROKER_PAUSE_SECONDS", 600)
"""So many refusals by one broker within so long: its logins wait until fewer fall into that time."""
CLAIM_SECONDS = number("CLAIM_SECONDS", 30)
READY_SECONDS = number("READY_SECONDS", 90)
SWEEP_SECONDS = number("SWEEP_SECONDS", 5)
RING_ON_TRANSITION: bool = env.bool("RING_ON_TRANSITION", default=True)
"""Off: nothing is rung for at once and the sweep does it all, only later. It proves that rings may be lost."""
RING_AGAIN_SECONDS = number("RING_AGAIN_SECONDS", 30)
SURVEY_FRESH_SECONDS = number("SURVEY_FRESH_SECONDS", 30)
RETRY_FIRST_SECONDS = number("RETRY_FIRST_SECONDS", 5)
RETRY_MOST_SECONDS = number("RETRY_MOST_SECONDS", 300)
RETRY_ATTEMPTS = int(number("RETRY_ATTEMPTS", 8))
HEARTBEAT_RESOLUTION_SECONDS = number("HEARTBEAT_RESOLUTION_SECONDS", 15)

# --- many hosts: leases, failover, drain (farm/fencing.py) ------------------------------------------------------------

LEASE_SECONDS = number("LEASE_SECONDS", 120)
"""So long a fenced host may run live terminals after it was last heard."""
DRIFT_SECONDS = number("DRIFT_SECONDS", 20)
"""What clocks may be wrong by; waited on top of lease and longest stop before anything comes up elsewhere."""
HOLD_LEASES_MOST_HOURS = number("HOLD_LEASES_MOST_HOURS", 4)
"""So long at most `hold_leases` may keep leases alive. DRIFT_SECONDS must cover what clocks drift in it."""
MOVE_SECONDS = number("MOVE_SECONDS", 60)
"""After so long a silence a terminal that runs no broker account may come up elsewhere."""
WATCH_SECONDS = number("WATCH_SECONDS", 5)
"""So often the hosts are looked at."""
BRAKE_HOSTS = int(number("BRAKE_HOSTS", 3))
BRAKE_WINDOW_SECONDS = number("BRAKE_WINDOW_SECONDS", 300)
"""So many hosts, or more than a third of them, silent within so long: nothing is failed over until staff looked."""
BRAKE_GRACE_SECONDS = number("BRAKE_GRACE_SECONDS", 60)
"""So long all must have gone well before the brake lets go by itself."""
ORPHAN_HOURS = number("ORPHAN_HOURS", 24)
"""So long what nobody knows is left alone before its host is told to destroy it."""
DRAIN_AT_ONCE = int(number("DRAIN_AT_ONCE", 2))
"""So many terminals of a draining host are on their way at a time."""
KEEPSAKE_EVERY_HOURS = number("KEEPSAKE_EVERY_HOURS", 6)
"""So often the keepsake of a running live terminal is fetched, for the day its host is lost; 0 for never."""

# --- keepsakes --------------------------------------------------------------------------------------------------------

KEEPSAKE_DAYS = number("KEEPSAKE_DAYS", 30)
"""So long what a customer made is kept for their next terminal."""
KEEPSAKE_MOST_BYTES = int(number("KEEPSAKE_MOST_BYTES", 5 << 20))
"""Hosts pack at most 5 MiB; a smaller limit refuses some of theirs."""
KEEPSAKE_WAIT_SECONDS = number("KEEPSAKE_WAIT_SECONDS", 10)
"""So long a terminal that goes live waits for the demo's keepsake, before it is made without; 0 asks for none."""
PORTAL_URL_FOR_HOSTS: str = env("PORTAL_URL_FOR_HOSTS", default="").rstrip("/") or SITE_URL
"""Where hosts reach the portal, if not as browsers do. Its name must be one of ALLOWED_HOSTS."""

# --- the Press Pass ---------------------------------------------------------------------------------------------------

PRESS_PASS_DAYS = number("PRESS_PASS_DAYS", 7)
IDLE_HOURS = number("IDLE_HOURS", 24)
DEMO_ACCOUNTS: str = env("DEMO_ACCOUNTS", default="without")
"""What a Press Pass does when the vault holds no free demo account: `wait` for one, or start `without`."""
WARN_HOURS = number("WARN_HOURS", 6)
"""So long before a terminal is recycled its customer is told."""
OFFER_MINUTES = number("OFFER_MINUTES", 60)
"""So long a slot is held for somebody in line who is not there when it comes free."""
REST_HOURS = number("REST_HOURS", 24)
"""So long a demo account is given to nobody after a terminal that ran on it."""
VAULT_LOW = int(number("VAULT_LOW", 10))
"""With fewer free demo accounts than this staff are told; 0 for never."""
RECYCLE_BY_BEAT: bool = env.bool("RECYCLE_BY_BEAT", default=LOCAL)
"""Whether beat runs recycle_idle; where cron does, this stays off."""
RECYCLE_SECONDS = number("RECYCLE_SECONDS", 60 if LOCAL else 300)
"""How often beat does, and cron is meant to."""
RECYCLE_LATE_SECONDS = number("RECYCLE_LATE_SECONDS", 1800)
"""After so long without a run staff are told."""
ALERT_EMAILS = words("ALERT_EMAILS")
"""Who is told by mail of what a person must see to."""
LINK_SECONDS = int(number("LINK_SECONDS", 900))
REFUSE_DISPOSABLE: bool = env.bool("REFUSE_DISPOSABLE", default=True)
LIMIT_SIGNUPS: str = env("LIMIT_SIGNUPS", default="10/h")
LIMIT_LINKS: str = env("LIMIT_LINKS", default="5/h")
LIMIT_MAILS: str = env("LIMIT_MAILS", default="2000/h")
LIMIT_STAFF: str = env("LIMIT_STAFF", default="20/h")
"""How often one line, and one login, may try to sign in to the admin."""
HONEYPOT_FIELD = "website"

# --- live terminals and payment ---------------------------------------------------------------------------------------

STRIPE_SECRET_KEY: str = env("STRIPE_SECRET_KEY", default="")
"""Empty: nothing is sold here."""
STRIPE_WEBHOOK_SECRET = words("STRIPE_WEBHOOK_SECRET")
"""What Stripe signs its webhooks with; two while one is being replaced."""
STRIPE_API_BASE: str = env("STRIPE_API_BASE", default="").rstrip("/")
"""Empty: Stripe itself. Else the stand-in's address."""
STRIPE_PAGES = [STRIPE_API_BASE] if STRIPE_API_BASE else ["https://checkout.stripe.com", "https://billing.stripe.com"]
"""Where browsers are sent to pay: a form of ours may lead there."""
HOLD_SECONDS = number("HOLD_SECONDS", 1860)
"""So long a slot is held for a payment. Stripe's pay page is open for half a minute less, and at least 30 minutes."""
GRACE_DAYS = number("GRACE_DAYS", 7)
"""After a failed payment a terminal runs on so long, and is then kept stopped so long before it is destroyed."""
UNSOLVED_DAYS = number("UNSOLVED_DAYS", 3)
"""Who has paid and after so long has no working terminal stands before staff."""
LIMIT_LOGINS: str = env("LIMIT_LOGINS", default="10/h")
"""How often one customer may hand in a broker login."""
SUPPORT_EMAIL: str = env("SUPPORT_EMAIL", default="support@localhost")
"""Whom customers are told to write to."""

# --- Django -----------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "bitten_portal",
    "presspass",
    "farm",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "csp",
    "crispy_forms",
    "crispy_bootstrap5",
    "django_htmx",
]
MIDDLEWARE = [
    "bitten_portal.proxies.TrustedProxies",
    "bitten_portal.access.AccessLog",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "presspass.middleware.ActivityMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "bitten_portal.urls"
WSGI_APPLICATION = "bitten_portal.wsgi.application"
CRISPY_ALLOWED_TEMPLATE_PACKS = "bootstrap5"
CRISPY_TEMPLATE_PACK = "bootstrap5"
LANGUAGE_CODE = "en-gb"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# --- database and cache -----------------------------------------------------------------------------------------------

needed("DATABASE_URL")
DATABASES = {"default": {**env.db_url("DATABASE_URL"), "CONN_HEALTH_CHECKS": True}}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # IMMEDIATE is what keeps "database is locked" away where a web process and workers write at once; WAL lets
    # readers go on meanwhile.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = int(number("CONN_MAX_AGE", 60))
    # A server that is gone without a word is noticed within seconds, not a quarter of an hour: leases wait for it.
    quick = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    DATABASES["default"]["OPTIONS"] = {
        **quick,
        "tcp_user_timeout": 20_000,
        **DATABASES["default"].get("OPTIONS", {}),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHE_URL: str = env("CACHE_URL", default="")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": CACHE_URL,
        "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
    }
    if CACHE_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}

# --- people -----------------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "presspass.User"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
SESAME_MAX_AGE = LINK_SECONDS
SESAME_INVALIDATE_ON_EMAIL_CHANGE = True
SESAME_ONE_TIME = True
SESAME_TOKENS = ["sesame.tokens_v2"]
LOGIN_URL = "presspass:sign_in"
SESSION_COOKIE_AGE = 30 * 24 * 3600

# --- mail -------------------------------------------------------------------------------------------------------------

MAIL_FOLDER: str = env("MAIL_FOLDER", default="")
if LOCAL and MAIL_FOLDER:
    EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    EMAIL_FILE_PATH = MAIL_FOLDER
else:
    needed("EMAIL_URL")
    vars().update(env.email_url("EMAIL_URL"))
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL: str = env("DEFAULT_FROM_EMAIL", default="BITTEN <portal@localhost>")

# --- the browser ------------------------------------------------------------------------------------------------------

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not LOCAL
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
if not LOCAL:
    # Browsers take such a cookie only over https, from this very host and for all of it.
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
CSRF_FAILURE_VIEW = "presspass.views.csrf_failure"
SECURE_SSL_REDIRECT = not LOCAL
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]
if PORTAL_URL_FOR_HOSTS.startswith("http://"):
    SECURE_REDIRECT_EXEMPT.append(r"^keepsake/")  # hosts in a network of our own; they follow no redirect
SECURE_HSTS_SECONDS = 0 if LOCAL else int(number("HSTS_SECONDS", 365 * 24 * 3600))
SECURE_HSTS_INCLUDE_SUBDOMAINS: bool = env.bool("HSTS_SUBDOMAINS", default=True)
SECURE_HSTS_PRELOAD: bool = env.bool("HSTS_PRELOAD", default=True)
# Not `no-referrer`: from such a page browsers post with `Origin: null`, which the CSRF check must refuse. This one
# tells other sites as little, and a page whose address holds a token sends it nowhere but here.
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF, *STRIPE_PAGES],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}

# --- static files -----------------------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = None if LOCAL else env("STATIC_ROOT", default=str(BASE_DIR / "staticfiles"))
WHITENOISE_USE_FINDERS = LOCAL
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if LOCAL
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# --- the queue --------------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = needed("BROKER_URL")
CELERY_BROKER_USE_SSL = {"ssl_cert_reqs": "required"} if CELERY_BROKER_URL.startswith("rediss:") else None
"""Without this kombu takes any certificate. Options in the URL, as ?ssl_ca_certs=/path, stand in its place."""
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_DEFAULT_QUEUE = "portal"
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TASK_SEND_SENT_EVENT = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # No copy is kept of what a worker has taken: what a dead one had, the sweep asks for again anyhow. To drop its copy
    # each thread would write to the broker, and if that goes away meanwhile, the worker lives on and never takes
    # anything again (github.com/celery/celery/issues/8091; tests/acceptance/test_broker_outage.py shows it).
    "ack_emulation": False,
    "socket_connect_timeout": 5,
    "socket_timeout": 30,
    "socket_keepalive": True,
    "health_check_interval": 25,
}
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "farm.sweep", "schedule": SWEEP_SECONDS},
    "watch over hosts": {"task": "farm.watch_hosts", "schedule": WATCH_SECONDS},
    "expire keepsakes": {"task": "farm.expire_keepsakes", "schedule": 3600.0},
    "send notices": {"task": "presspass.send_notices", "schedule": 30.0},
    "look at payments": {"task": "presspass.look_at_payments", "schedule": 15.0},
    "news": {"task": "presspass.notice_news", "schedule": 15.0},
    "watch": {"task": "presspass.watch", "schedule": 60.0},
    "let go": {"task": "presspass.finish_leaving", "schedule": 60.0},
}
if RECYCLE_BY_BEAT:
    CELERY_BEAT_SCHEDULE["recycle"] = {"task": "presspass.recycle_idle", "schedule": RECYCLE_SECONDS}

# --- logs -------------------------------------------------------------------------------------------------------------

LOG_LEVEL: str = env("LOG_LEVEL", default="INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "bitten_portal.logs.Line"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # Django would add a handler of its own here, which prints whole paths.
        "django": {"handlers": [], "level": LOG_LEVEL, "propagate": True},
        "django.server": {"handlers": [], "propagate": False},
        # Scanners send wrong Host headers all day; they are answered with 400, and that is all.
        "django.security.DisallowedHost": {"handlers": [], "propagate": False},
        # It tells every request, and with DEBUG what was in it: customers' addresses.
        "stripe": {"level": "WARNING"},
    },
}
