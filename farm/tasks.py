"""Shells around farm.lifecycle for the queue: parse, call, send. No decision is made here."""

from __future__ import annotations

from celery import shared_task

from farm import doorbell, keepsakes, lifecycle
from farm.agent import protocol


@shared_task(name=doorbell.DISPATCH)
def dispatch(instance_id: int) -> None:
    letter = lifecycle.claim(instance_id)
    if letter is not None:
        sent = doorbell.ring(protocol.OBEY_TASK, letter.envelope, queue=letter.queue, behind=letter.behind)
        if not sent:
            lifecycle.put_back(letter)


@shared_task(name=doorbell.SWEEP)
def sweep() -> None:
    lifecycle.sweep()
    lifecycle.replace_refused()
    lifecycle.withdraw_expired()
    lifecycle.sweep_orphans()
    lifecycle.fetch_keepsakes()
    lifecycle.drain_on()
    lifecycle.admit()


@shared_task(name=doorbell.ADMIT)
def admit() -> None:
    lifecycle.admit()


@shared_task(name=doorbell.KEEP)
def keep(instance_id: int) -> None:
    letter = lifecycle.ask_for_keepsake(instance_id)
    if letter is not None:
        doorbell.ring(protocol.OBEY_TASK, letter.envelope, queue=letter.queue)


@shared_task(name=doorbell.DESTROY_ORPHAN)
def destroy_orphan(orphan_id: int) -> None:
    letter = lifecycle.claim_orphan(orphan_id)
    if letter is not None:
        doorbell.ring(protocol.OBEY_TASK, letter.envelope, queue=letter.queue)


@shared_task(name="farm.watch_hosts")
def watch_hosts() -> None:
    lifecycle.watch_hosts()


@shared_task(name="farm.expire_keepsakes")
def expire_keepsakes() -> None:
    keepsakes.expire()
