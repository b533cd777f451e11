"""The portal's Celery app. Entry points import it (wsgi.py, manage.py, the worker); nothing else does."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bitten_portal.settings")

app = Celery("bitten_portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect  # type: ignore[untyped-decorator]
def keep_logging(**kwargs: Any) -> None:
    """A receiver here keeps Celery from setting up logging of its own: LOGGING in the settings has done it."""
