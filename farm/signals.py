"""The one receiver: a line in the journal rings for the step that it makes due."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_save
from django.dispatch import receiver

from farm import doorbell, states
from farm.models import Transition
from farm.states import Status


@receiver(post_save, sender=Transition, dispatch_uid="ring_for_transition")
def ring_for_transition(sender: type[Transition], instance: Transition, created: bool, **kwargs: Any) -> None:
    """Ring on commit. Losing a ring loses nothing but time; see farm.lifecycle.sweeping."""
    if not created:
        return
    became = Status(instance.became)
    if became in states.IN_MOTION:
        doorbell.ring_on_commit(doorbell.DISPATCH, instance.instance_id)
    elif became is Status.DESTROYED:
        doorbell.ring_on_commit(doorbell.ADMIT)
