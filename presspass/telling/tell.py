"""Puts the parts together."""

from __future__ import annotations

from farm.models import Instance
from farm.states import Goal, Kind, Status
from presspass import moments
from presspass.telling import elsewhere, living
from presspass.telling.ending import ends
from presspass.telling.facts import facts, names
from presspass.telling.journal import history
from presspass.telling.saying import saying
from presspass.telling.situation import Action, Mark, Situation, Told
from presspass.telling.steps import steps

IN_MOTION_SECONDS = 1
AT_REST_SECONDS = 5

_AT_REST = frozenset({Status.RUNNING, Status.STOPPED, Status.FAILED, Status.LOST, Status.WAITING})


def tell(row: Instance, its: Situation) -> Told:
    said = elsewhere.saying(row, its) or living.saying(row, its) or saying(row, its)
    came = elsewhere.came_here(row, its) if said.mark == Mark.RUNNING else ()
    return Told(
        headline=said.headline,
        mark=said.mark,
        below=(*said.below, *came),
        steps=() if elsewhere.is_silent(row, its) else steps(row, its),
        facts=facts(row, its),
        names=names(row),
        ends=ends(row, its),
        actions=_actions(row, its),
        history=history(its),
        look_again_seconds=_look_again(Status(row.status)),
        title=said.title or f"{row.status.capitalize()} · your terminal",
    )


def tell_nothing(its: Situation) -> Told:
    """For somebody who is signed in and never had a terminal."""
    if its.trial_ends_at is not None and its.trial_ends_at <= its.now:
        until = moments.at_and_away(its.trial_ends_at, now=its.now, zone=its.zone)
        gone = (f"This mailbox had its Press Pass; its days were over {until}.",)
        go_live = (Action.GO_LIVE,) if its.sold else ()
        actions = go_live if its.verified else (Action.CONFIRM_ADDRESS,)
        return Told(headline="You have no terminal.", mark=Mark.ENDED, below=gone, actions=actions)
    below = (f"It is yours, free for {its.trial_days:g} days, and runs in seconds.",)
    actions = (Action.START_AGAIN,) if its.verified else (Action.CONFIRM_ADDRESS,)
    return Told(headline="You have no terminal yet.", mark=Mark.ENDED, below=below, actions=actions)


def _actions(row: Instance, its: Situation) -> tuple[Action, ...]:
    # A machine that does not hear us restarts nothing, and a new login would wait for it as well.
    unheard = {Action.RESTART, Action.CHANGE_LOGIN} if elsewhere.is_silent(row, its) else set()
    possible = tuple(action for action in _possible(row, its) if action not in unheard)
    if Action.ACCEPT_SLOT in possible:
        return possible if its.verified else (Action.ACCEPT_SLOT,)
    if possible and not its.verified:
        return (Action.CONFIRM_ADDRESS,)
    return possible


def _possible(row: Instance, its: Situation) -> list[Action]:
    if row.kind == Kind.LIVE:
        return living.actions(row, its)
    upgrade = [Action.GO_LIVE] if its.sold and not its.subscribed else []
    if row.goal == Goal.DESTROYED:
        left = its.trial_ends_at is None or its.now < its.trial_ends_at
        return [Action.START_AGAIN, *upgrade] if left else upgrade
    if row.status == Status.WAITING and its.held_until is not None:
        return [Action.ACCEPT_SLOT, Action.END]
    return [*upgrade, Action.RESTART, Action.END] if row.status == Status.RUNNING else [Action.END, *upgrade]


def _look_again(status: Status) -> int | None:
    if status is Status.DESTROYED:
        return None
    return AT_REST_SECONDS if status in _AT_REST else IN_MOTION_SECONDS
