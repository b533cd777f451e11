"""One contender for a port, in a process of its own. Preloaded into a fork server, so that fifty of them are cheap."""

from __future__ import annotations

import os
from multiprocessing.synchronize import Barrier

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bitten_portal.settings")
django.setup()

from django.db import connection  # noqa: E402

from farm import errors, ports  # noqa: E402
from farm.models import Host, Instance  # noqa: E402


def reserve(database: str, host_id: int, instance_id: int, start: Barrier) -> int | str:
    """The number that this process got, or the name of the typed error."""
    connection.settings_dict["NAME"] = database
    host, row = Host.objects.get(pk=host_id), Instance.objects.get(pk=instance_id)
    start.wait(timeout=60)
    try:
        return ports.reserve(host, row)
    except errors.NoFreePort as error:
        return type(error).__name__
    finally:
        connection.close()


def report(answers: object, *args: object) -> None:
    answers.put(reserve(*args))  # type: ignore[attr-defined,arg-type]
