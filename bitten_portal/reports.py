"""The Celery app that hears hosts: `celery -A bitten_portal.reports worker --queues=reports,surveys`.

It knows two tasks and no other, not even Celery's own, so that nothing else can be asked of it, whatever a host puts
into its queues (see farm.letterbox). It needs neither a signing nor a field key. Only the worker's command imports it.
"""

from __future__ import annotations

import os
from typing import Any

import django
from celery import Celery
from celery.app.registry import TaskRegistry
from celery.signals import setup_logging
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bitten_portal.settings")
django.setup()

from farm import letterbox, reports  # noqa: E402  they need the models
from farm.agent import protocol  # noqa: E402

TASKS = {protocol.RECORD_TASK: reports.record, protocol.SURVEY_TASK: reports.record_survey}


class OnlyThese(TaskRegistry):  # type: ignore[misc]  # Celery has no types
    """Refuses, without a word, whatever else is registered: Celery's own tasks and shared ones of other modules."""

    def __setitem__(self, name: str, task: Any) -> None:
        if name in TASKS:
            super().__setitem__(name, task)


app = Celery("bitten_portal.reports", tasks=OnlyThese(), set_as_current=False)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue(name, no_declare=True) for name in letterbox.TASKS]
if app.conf.broker_url.startswith(("redis://", "rediss://")):
    app.conf.broker_transport = letterbox.Transport
for name, function in TASKS.items():
    app.task(name=name)(function)


@setup_logging.connect  # type: ignore[untyped-decorator]
def keep_logging(**kwargs: Any) -> None:
    """As in bitten_portal.celery: LOGGING in the settings has set up logging."""
