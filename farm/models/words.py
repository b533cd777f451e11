"""The words of farm.states as columns take them."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from farm.agent import protocol
from farm.states import Connection, Goal, Kind, Reason, Refusal, Status


def words(enum: type[Status | Kind | Goal | Connection | Refusal | Reason]) -> list[tuple[str, str]]:
    return [(word.value, word.value.replace("_", " ") or "-") for word in enum]


def one_of(name: str, enum: type[Status | Kind | Goal | Connection]) -> models.CheckConstraint:
    field = name.rsplit("_", 1)[1]
    return models.CheckConstraint(name=name, condition=Q(**{f"{field}__in": [word.value for word in enum]}))


def validate_name(value: str) -> None:
    try:
        protocol.checked_name(value)
    except protocol.BadName as error:
        raise ValidationError(str(error)) from error
