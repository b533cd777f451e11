"""What can go wrong in the farm, by whose side it is on.

    FarmError
        Refused             the caller asked for what cannot be; says why in a sentence for that caller
            IllegalMove     the status does not allow it
            StillHeard      the host speaks, so it is not given up
            FenceStands     its lease may still run, so it is not given up yet
            NoFreePort      the host has no free slot or port
            NoFreeAccount   the vault has no free demo account
            NoTicket        a keepsake was asked for or brought without a ticket that is good for it
            BadKeepsake     what was brought is no keepsake
                TooBig      or a bigger one than is kept
        ClaimLost           somebody else moved the row first: log it and stop
        KeysMissing         this process was not given the keys for what it was asked to do
        Untrusted           a message that is not by the host it claims to be from

A docstring is the default message.
"""

from __future__ import annotations


class FarmError(Exception):
    """The farm could not do it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class Refused(FarmError):
    """That cannot be done now."""


class IllegalMove(Refused):
    """The terminal's status does not allow that."""


class StillHeard(Refused):
    """The host speaks: it is not off."""


class FenceStands(Refused):
    """Live terminals may still run on that host."""


class NoFreePort(Refused):
    """The host has no free slot."""


class NoFreeAccount(Refused):
    """No free demo account is left in the vault."""


class NoTicket(Refused):
    """No ticket that is good for this."""


class BadKeepsake(Refused):
    """That is not a keepsake as it was packed."""


class TooBig(BadKeepsake):
    """That is bigger than a keepsake may be."""


class ClaimLost(FarmError):
    """Somebody else moved the instance first."""


class KeysMissing(FarmError):
    """This process was not given the keys for that; only the portal worker has them."""


class Untrusted(FarmError):
    """The message does not come from the host that it names."""

    def __init__(self, message: str = "", *, host: str = "") -> None:
        """``host``: the enrolled host in whose name it came, if that is known."""
        super().__init__(message)
        self.host = host
