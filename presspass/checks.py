"""Settings that must fit together, said before the first customer comes."""

from __future__ import annotations

from typing import Any

import sesame.settings
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

from presspass.limits import Limit

LIMITS = ("LIMIT_SIGNUPS", "LIMIT_LINKS", "LIMIT_MAILS")


@register(Tags.security)
def limits_are_readable(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in LIMITS:
        try:
            Limit.parse(name, getattr(settings, name))
        except ValueError as error:
            found.append(Error(str(error), hint="A number, a stroke and a span: 10/h, 100/5m.", id="presspass.E001"))
    return found


@register(Tags.security, deploy=True)
def links_work_once(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    wanted = ("ONE_TIME", "INVALIDATE_ON_EMAIL_CHANGE", "MAX_AGE")
    return [
        Error(f"SESAME_{name} is not set.", hint="Sign-in links would work again and again.", id="presspass.E002")
        for name in wanted
        if not getattr(sesame.settings, name)
    ]
