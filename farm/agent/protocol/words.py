"""The words of orders, reports and surveys."""

from __future__ import annotations

from enum import StrEnum


class Verb(StrEnum):
    CLONE = "clone"
    INJECT = "inject"
    START = "start"
    STOP = "stop"
    DESTROY = "destroy"
    KEEP = "keep"
    """Upload a keepsake of the running instance. Changes nothing, so it takes no number of its own."""


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    """The host tried and could not; ``reason`` says why and whether a retry can help is the portal's to decide."""
    REFUSED = "refused"
    """The host did nothing: a newer order is known to it, or the order is not for it."""


class Reason(StrEnum):
    """Why a host could not do what it was told. The portal turns these into words for people."""

    NONE = ""
    MASTER_MISSING = "master_missing"
    MASTER_UNFIT = "master_unfit"
    CLONE_MISSING = "clone_missing"
    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    FILES_IN_USE = "files_in_use"
    TOO_SLOW = "too_slow"
    TERMINAL_COMMAND = "terminal_command"
    TERMINAL_DIED = "terminal_died"
    CRASH_LOOP = "crash_loop"
    WILL_NOT_STOP = "will_not_stop"
    PORT_TAKEN = "port_taken"
    NOT_INJECTED = "not_injected"
    UNSEALABLE = "unsealable"
    NO_LEASE = "no_lease"
    """A live terminal may not run there at the moment: the host's lease is over, or its watchdog is silent."""
    KEEPSAKE = "keepsake"
    """What the customer made could not be brought to the portal, or from it."""
    STALE = "stale"
    TOMBSTONE = "tombstone"
    EXPIRED = "expired"
    FORGOTTEN = "forgotten"
    """Said by the portal: the host knows no longer what stands there, and so nobody knows what runs."""
    UNEXPECTED = "unexpected"


class Process(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    """The host could not tell. Never read as stopped."""


class Connection(StrEnum):
    NO_ACCOUNT = "no account"
    UNKNOWN = "unknown"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    LOST = "lost"


class Refusal(StrEnum):
    """Why the broker did not let the terminal in, as far as the journal tells."""

    NONE = ""
    CREDENTIALS = "credentials"
    """``Invalid account``: wrong login, password or server name, or an expired demo."""
    INVESTOR = "investor"
    TRADING_DISABLED = "trading disabled"
    SERVER_UNKNOWN = "server unknown"
    SERVER_UNREACHABLE = "server unreachable"
    NO_ANSWER = "no answer"
    SEAT_TAKEN = "seat taken"
    """The portal's own: another instance holds the seat of this account. Never said by a host."""
    OTHER = "other"


class Policy(StrEnum):
    """What a host runs live terminals under."""

    FENCED = "fenced"
    STATIC = "static"
