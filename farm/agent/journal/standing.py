"""What the facts since a checkpoint add up to, as a pure fold, and what silence adds up to.

::

    (begin) -> unknown -> connecting -> connected <-> lost
                              |             |          |
                              +-> refused <-+----------+        and back to connected, whenever the broker says so

A verdict is drawn only from words that are one. ``no connection`` and the refusals that MetaTrader tries again by
itself leave it *connecting* (or *lost*), with the words kept; :func:`decided_without_network` makes a refusal of them,
and of silence, when the time for it has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from farm.agent.journal.facts import Fact, Kind
from farm.agent.protocol import Connection, Refusal

_TRIED_AGAIN = ("common error", "service is not available", "no connection", "timeout", "timed out")
_UNREACHABLE = ("service is not available", "no connection")


@dataclass(frozen=True, kw_only=True)
class Standing:
    connection: Connection = Connection.UNKNOWN
    refusal: Refusal = Refusal.NONE
    """Also set while connected, to ``investor`` or ``trading disabled``: let in, but not to trade."""
    refusal_text: str = ""
    """The broker's own words; while connecting, the last ones that were no verdict yet."""
    synchronized: bool = False
    trading: bool | None = None
    started: bool = False
    ini_read: bool = False
    updating: bool = False
    """An update runs; the process may vanish and come back under another number."""
    updated: bool = False
    """An update was made since the checkpoint: the terminal came back by itself, perhaps without its expert."""
    expert_loaded: bool = False
    algo_trading: bool | None = None
    network_seen: bool = False
    build: int | None = None
    since: float | None = None
    """When ``connection`` last changed, in Unix seconds; None while it never did."""

    @classmethod
    def begin(cls, *, login: int | None) -> Self:
        return cls(connection=Connection.NO_ACCOUNT if login is None else Connection.UNKNOWN)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_dict` gave, e.g. back from JSON; raise :class:`ValueError` on anything else."""
        if not isinstance(data, Mapping) or data.keys() != {field.name for field in fields(cls)}:
            raise ValueError("not a standing")
        words = {"connection": Connection(data["connection"]), "refusal": Refusal(data["refusal"])}
        return cls(**{**data, **words})


def fold(standing: Standing, fact: Fact) -> Standing:
    """Return what ``standing`` becomes by one more fact."""
    after = _FOLDS[fact.kind](standing, fact)
    if standing.connection is Connection.NO_ACCOUNT:
        return replace(after, connection=Connection.NO_ACCOUNT, since=None)
    return after if after.connection is standing.connection else replace(after, since=fact.at)


def decided_without_network(
    standing: Standing, *, started_at: float, now: float, seconds: float, answer_seconds: float | None = None
) -> Standing:
    """Return ``standing`` with what the silence means by now.

    No ``Network`` line within ``seconds`` of the start: MetaTrader does not know the server's name and does not even
    try. Network lines, but no verdict within ``answer_seconds`` (else ``seconds``): the broker could not be reached or
    did not answer. Nothing is decided of a terminal that has not started, did not read its ini or updated itself: its
    silence has another reason, and the customer's server is not to be blamed for it.
    """
    waiting = standing.connection in (Connection.UNKNOWN, Connection.CONNECTING)
    if not (waiting and standing.started and standing.ini_read) or standing.updating or standing.updated:
        return standing
    began = max(started_at, standing.since) if standing.since and standing.since <= now else started_at
    patience = answer_seconds if standing.network_seen and answer_seconds is not None else seconds
    if now - began < patience:
        return standing
    refusal = _silence(standing) if standing.network_seen else Refusal.SERVER_UNKNOWN
    return replace(standing, connection=Connection.REFUSED, refusal=refusal, since=now)


def _silence(standing: Standing) -> Refusal:
    said = standing.refusal_text.casefold()
    if any(word in said for word in _UNREACHABLE):
        return Refusal.SERVER_UNREACHABLE
    return Refusal.OTHER if said else Refusal.NO_ANSWER


# --- one function for each kind of fact -------------------------------------------------------------------------------


def _started(standing: Standing, fact: Fact) -> Standing:
    """A terminal that starts has forgotten everything but what happened to its files."""
    return Standing(
        connection=Connection.CONNECTING,
        started=True,
        ini_read=standing.ini_read,
        updated=standing.updated,
        build=fact.build,
        since=standing.since,
    )


def _from_ini(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, ini_read=True)


def _network(standing: Standing, fact: Fact) -> Standing:
    if standing.connection is Connection.UNKNOWN or standing.refusal is Refusal.SERVER_UNKNOWN:
        standing = replace(standing, connection=Connection.CONNECTING, refusal=Refusal.NONE)
    return replace(standing, network_seen=True)


def _authorised(standing: Standing, fact: Fact) -> Standing:
    standing = replace(standing, connection=Connection.CONNECTED, refusal=Refusal.NONE, refusal_text="")
    return replace(standing, network_seen=True, trading=None)


def _synchronised(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, synchronized=True, network_seen=True)


def _trading_enabled(standing: Standing, fact: Fact) -> Standing:
    if standing.refusal in (Refusal.INVESTOR, Refusal.TRADING_DISABLED):
        standing = replace(standing, refusal=Refusal.NONE, refusal_text="")
    return replace(standing, trading=True, network_seen=True)


def _investor(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, trading=False, refusal=Refusal.INVESTOR, refusal_text=fact.text, network_seen=True)


def _trading_disabled(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, trading=False, refusal=Refusal.TRADING_DISABLED, refusal_text=fact.text, network_seen=True)


def _refused(standing: Standing, fact: Fact) -> Standing:
    said = fact.text.casefold()
    if any(word in said for word in _TRIED_AGAIN):
        return _not_yet(standing, fact.text)
    refusal = Refusal.CREDENTIALS if "invalid account" in said else Refusal.OTHER
    return replace(
        standing,
        connection=Connection.REFUSED,
        refusal=refusal,
        refusal_text=fact.text,
        synchronized=False,
        network_seen=True,
    )


def _no_connection(standing: Standing, fact: Fact) -> Standing:
    return _not_yet(standing, f"no connection to {fact.text}")


def _not_yet(standing: Standing, said: str) -> Standing:
    standing = _network(standing, Fact(Kind.NETWORK))
    if standing.connection is Connection.REFUSED:  # a verdict is not taken back by a failure to ask again
        return standing
    if standing.connection is Connection.CONNECTED:
        standing = replace(standing, connection=Connection.LOST, synchronized=False)
    return replace(standing, refusal_text=said)


def _lost(standing: Standing, fact: Fact) -> Standing:
    if standing.connection is Connection.REFUSED:
        return replace(standing, network_seen=True)
    return replace(standing, connection=Connection.LOST, synchronized=False, network_seen=True)


def _updating(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, updating=True)


def _updated(standing: Standing, fact: Fact) -> Standing:
    """The relaunch is still to come: it ends with the line that the terminal started."""
    return replace(standing, updating=True, updated=True)


def _expert_loaded(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, expert_loaded=True)


def _expert_gone(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, expert_loaded=False)


def _algo_enabled(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, algo_trading=True)


def _algo_disabled(standing: Standing, fact: Fact) -> Standing:
    return replace(standing, algo_trading=False)


def _stopped(standing: Standing, fact: Fact) -> Standing:
    """A refusal is still worth knowing after the terminal ended; anything else of its connection is over."""
    ended = replace(standing, started=False, synchronized=False, expert_loaded=False)
    if standing.connection is Connection.REFUSED:
        return ended
    return replace(ended, connection=Connection.UNKNOWN, trading=None)


_FOLDS: dict[Kind, Callable[[Standing, Fact], Standing]] = {
    Kind.STARTED: _started,
    Kind.FROM_INI: _from_ini,
    Kind.NETWORK: _network,
    Kind.AUTHORISED: _authorised,
    Kind.SYNCHRONISED: _synchronised,
    Kind.TRADING_ENABLED: _trading_enabled,
    Kind.INVESTOR: _investor,
    Kind.TRADING_DISABLED: _trading_disabled,
    Kind.REFUSED: _refused,
    Kind.NO_CONNECTION: _no_connection,
    Kind.CONNECTION_LOST: _lost,
    Kind.DISCONNECTED: _lost,
    Kind.UPDATING: _updating,
    Kind.UPDATED: _updated,
    Kind.EXPERT_LOADED: _expert_loaded,
    Kind.EXPERT_REMOVED: _expert_gone,
    Kind.EXPERT_FAILED: _expert_gone,
    Kind.ALGO_ENABLED: _algo_enabled,
    Kind.ALGO_DISABLED: _algo_disabled,
    Kind.STOPPED: _stopped,
}
