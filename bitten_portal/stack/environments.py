"""What each process of a stack is told. Web has no signing or field key; a host knows nothing of Django."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from bitten_portal.stack.keys import Keys
from bitten_portal.stack.places import HOST, REPOSITORY, HostPlaces, Places

MARK = "BITTEN_STACK"
"""In the environment of every process of a stack, terminals included: its data folder. The reaper looks for it."""

MACHINE = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "TZ", "USER")
PORTAL_OPTIONS = (
    "BRAKE_GRACE_SECONDS",
    "BRAKE_HOSTS",
    "BRAKE_WINDOW_SECONDS",
    "BROKER_PAUSE_REFUSALS",
    "BROKER_PAUSE_SECONDS",
    "CLAIM_SECONDS",
    "DEBUG",
    "DEMO_ACCOUNTS",
    "DRAIN_AT_ONCE",
    "DRIFT_SECONDS",
    "GRACE_DAYS",
    "HEARTBEAT_RESOLUTION_SECONDS",
    "HOLD_LEASES_MOST_HOURS",
    "HOLD_SECONDS",
    "IDLE_HOURS",
    "KEEPSAKE_DAYS",
    "KEEPSAKE_EVERY_HOURS",
    "KEEPSAKE_MOST_BYTES",
    "KEEPSAKE_WAIT_SECONDS",
    "LEASE_SECONDS",
    "LIMIT_LINKS",
    "LIMIT_LOGINS",
    "LIMIT_MAILS",
    "LIMIT_SIGNUPS",
    "LINK_SECONDS",
    "LOG_LEVEL",
    "MOVE_SECONDS",
    "ORPHAN_HOURS",
    "PRESS_PASS_DAYS",
    "PROOF_NEEDS_HEARTBEAT",
    "READY_SECONDS",
    "REFUSE_DISPOSABLE",
    "RETRY_ATTEMPTS",
    "RETRY_FIRST_SECONDS",
    "RETRY_MOST_SECONDS",
    "RING_AGAIN_SECONDS",
    "SUPPORT_EMAIL",
    "SURVEY_FRESH_SECONDS",
    "SWEEP_SECONDS",
    "UNSOLVED_DAYS",
    "WATCH_SECONDS",
)
PAYMENT_OPTIONS = ("STRIPE_API_BASE", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET")
HOST_OPTIONS = (
    "FARM_LINK",
    "FARM_POLICY",
    "FARM_POOL",
    "FARM_READY_SECONDS",
    "FARM_STOP_SECONDS",
    "FARM_SURVEY_SECONDS",
    "PAPER_QUIRKS",
)
STACK_OPTIONS = ("ACCOUNTS", "MASTER_FILES", "MASTER_MB", "WEB_THREADS", "WEB_WORKERS", "WORKER_THREADS")


@dataclass(frozen=True, kw_only=True)
class Environments:
    """``extra`` are options of this stack: the hosts' go there, its own stay here, all others to the portal."""

    places: Places
    keys: Keys
    port: int
    broker_port: int
    extra: Mapping[str, str]
    stripe_port: int = 0
    """Of the paper Stripe; 0 for none."""
    per_host: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What one host is told besides, by its name."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def broker_url(self) -> str:
        return self.extra.get("BROKER_URL") or f"redis://:{self.keys.broker_password}@{HOST}:{self.broker_port}/0"

    @property
    def database_url(self) -> str:
        return self.extra.get("DATABASE_URL") or f"sqlite:///{quote(str(self.places.database))}"

    @property
    def has_own_broker(self) -> bool:
        return "BROKER_URL" not in self.extra

    @property
    def has_paper_stripe(self) -> bool:
        """Payments are played while nobody gave a key of Stripe's."""
        return bool(self.stripe_port) and not self.option("STRIPE_SECRET_KEY", "")

    def stripe(self) -> dict[str, str]:
        secret = {"PAPER_STRIPE_KEY": self.keys.stripe_key, "PAPER_STRIPE_SECRET": self.keys.stripe_webhook_secret}
        return {**self._machine(), **secret}

    def _payment(self) -> dict[str, str]:
        if not self.has_paper_stripe:
            return {}
        return {
            "STRIPE_API_BASE": f"http://{HOST}:{self.stripe_port}",
            "STRIPE_SECRET_KEY": self.keys.stripe_key,
            "STRIPE_WEBHOOK_SECRET": self.keys.stripe_webhook_secret,
        }

    def reports(self) -> dict[str, str]:
        """Of who takes in what hosts say: whatever they make it do, it can neither command a host nor take money."""
        options = {name: value for name, value in self.extra.items() if not _is_hosts(name)}
        told = {
            **self._machine(),
            "LOCAL": "True",
            "SECRET_KEY": self.keys.secret_key,
            "SITE_URL": self.url,
            "ALLOWED_HOSTS": f"{HOST},localhost",
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.broker_url,
            "MAIL_FOLDER": str(self.places.mail),
            "INTAKE_KEY": self.keys.intake_key,
            "DJANGO_SETTINGS_MODULE": "bitten_portal.settings",
            **_from_us(PORTAL_OPTIONS),
            **options,
        }
        return {name: value for name, value in told.items() if not _is_payment(name) and name not in STACK_OPTIONS}

    def web(self) -> dict[str, str]:
        given = {name: value for name, value in self.extra.items() if _is_payment(name)}
        return {**self.reports(), **_from_us(PAYMENT_OPTIONS), **self._payment(), **given}

    def leases(self) -> dict[str, str]:
        return {**self.reports(), "ORDER_SIGNING_KEY": self.keys.order_signing_key}

    def worker(self) -> dict[str, str]:
        return {
            **self.web(),
            "ORDER_SIGNING_KEY": self.keys.order_signing_key,
            "FIELD_KEYS": self.keys.field_key,
            "INTAKE_SECRET_KEYS": self.keys.intake_secret_key,
        }

    def host(self, at: HostPlaces | None = None) -> dict[str, str]:
        """Of one host's processes; the first host's if it is not said whose."""
        at = at or self.places.hosts[0]
        return {
            **self._machine(),
            "FARM_ROOT": str(at.farm),
            "FARM_HOST": at.name,
            "FARM_BROKER_URL": self.broker_url,
            "FARM_KEY_FILE": str(at.keys),
            "FARM_PORTAL_KEYS": self.keys.verify_key,
            "FARM_TERMINAL_COMMAND": terminal_command(),
            "PAPER_ACCOUNTS": str(self.places.accounts),
            **_from_us(HOST_OPTIONS),
            **{name: value for name, value in self.extra.items() if _is_hosts(name)},
            **self.per_host.get(at.name, {}),
        }

    def broker(self) -> dict[str, str]:
        return self._machine()

    def option(self, name: str, default: str) -> str:
        """One of the stack's own options."""
        return self.extra.get(name) or os.environ.get(name) or default

    def _machine(self) -> dict[str, str]:
        return {**_from_us(MACHINE), MARK: str(self.places.data_dir), "PYTHONUNBUFFERED": "1"}


def _from_us(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _is_hosts(name: str) -> bool:
    return name.startswith(("FARM_", "PAPER_"))


def _is_payment(name: str) -> bool:
    return name.startswith("STRIPE_")


def terminal_command() -> str:
    """The paper terminal, in the form of FARM_TERMINAL_COMMAND: split by the shell's rules, then formatted."""
    program = str(REPOSITORY / "farm" / "paper" / "terminal.py").replace("{", "{{").replace("}", "}}")
    return f"{{python}} {shlex.quote(program)} /portable /config:{{ini}}"


PYTHON = sys.executable
