"""What a host does about keepsakes: brought to a new clone, sent from an old one."""

from __future__ import annotations

import logging

from farm.agent import courier, errors, faults, keepsake, manifest
from farm.agent import master as masters
from farm.agent.context import Context
from farm.agent.keepsake import Packed
from farm.agent.manifest import Manifest
from farm.agent.protocol import Order
from farm.agent.state import State

TRIES = 2

log = logging.getLogger(__name__)


def bring(context: Context, order: Order) -> str:
    """Fetch the keepsake of ``order`` into its clone, and return what staff should know: "" if it is there.

    A terminal without its keepsake is better than none, so only what is wrong with this host itself is raised.
    """
    try:
        data = _fetched(order.keepsake)
        files = keepsake.unpack(data, context.settings.clone(order.folder))
    except errors.KeepsakeTrouble as error:
        log.warning("no keepsake", extra={"event": "keepsake", "instance": order.instance, "detail": error.detail})
        return f"without its keepsake: {error.detail}"
    log.info("keepsake brought", extra={"event": "keepsake", "instance": order.instance, "files": files})
    return ""


def _fetched(url: str) -> bytes:
    for left in reversed(range(TRIES)):
        try:
            return courier.download(url)
        except errors.KeepsakeTrouble:
            if not left:
                raise
    raise AssertionError("unreachable")


def packed(context: Context, state: State) -> Packed:
    """Pack what was made in the clone of ``state``. Raises :class:`errors.AgentError`."""
    known = _manifest(context)
    same = known is not None and known.digest == state.digest
    with errors.typed("packing the keepsake"):
        return keepsake.pack(context.settings.clone(state.folder), known, same_master=same)


def _manifest(context: Context) -> Manifest | None:
    """The master's manifest, or what is remembered of it: a keepsake does not wait until a master is mended."""
    try:
        return masters.load(context.settings.root).manifest
    except errors.AgentError:
        return manifest.saved(masters.folder(context.settings.root))


def send(order: Order, made: Packed) -> str:
    """Bring ``made`` to the portal and return what staff should know. Raises :class:`errors.KeepsakeTrouble`."""
    courier.upload(order.keepsake, made.data)
    faults.point("keepsake sent")
    log.info("keepsake sent", extra={"event": "keepsake", "instance": order.instance, "files": made.files})
    return f"{len(made.left_out)} file(s) left out of the keepsake" if made.left_out else ""
