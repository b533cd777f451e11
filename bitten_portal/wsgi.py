"""What gunicorn serves."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bitten_portal.settings")

from bitten_portal.celery import app as celery_app

application = get_wsgi_application()

__all__ = ["application", "celery_app"]
