"""What can go wrong on a host, as types: each knows the word that the portal understands and who has to do something.

::

    AgentError              unexpected        anything else that a host could not do
      MasterMissing         master_missing
      MasterUnfit           master_unfit
        MasterChanged       master_unfit      it became another one while it was being cloned: once more may help
      CloneMissing          clone_missing
      AlreadyThere          unexpected        a clone of that name stands under Users: the caller decides
      FolderTrouble         unexpected        the host's file system said no
        DiskFull            disk_full
        ReadOnly            read_only
        FilesInUse          files_in_use
        TooManyOpenFiles    unexpected
      TooSlow               too_slow
      TerminalTrouble       terminal_died
        TerminalCommand     terminal_command
        TerminalDied        terminal_died
        CrashLoop           crash_loop
        WillNotStop         will_not_stop
      PortTaken             port_taken
      NotInjected           not_injected
      NoLease               no_lease          a live terminal may not run here now: waited for, never given up
      KeepsakeTrouble       keepsake          what the customer made did not get to the portal, or from it
        BadKeepsake         keepsake          nothing of it was unpacked
      Refused               unexpected        the host did nothing, on purpose
        CannotUnseal        unsealable
        Stale               stale
        Tombstoned          tombstone
        Expired             expired

The docstring of each is its message when none is given.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from farm.agent.protocol import Outcome, Reason

LONGEST_DETAIL = 300


class AgentError(Exception):
    """The host could not do it."""

    reason: ClassVar[Reason] = Reason.UNEXPECTED
    outcome: ClassVar[Outcome] = Outcome.FAILED

    def __init__(self, detail: str = "") -> None:
        self.detail = one_line(detail) if detail else one_line(type(self).__doc__ or "")
        super().__init__(self.detail)

    def __reduce__(self) -> tuple[type[AgentError], tuple[str]]:
        return (type(self), (self.detail,))


class MasterMissing(AgentError):
    """Masters/BITTEN_MASTER is absent or empty."""

    reason = Reason.MASTER_MISSING


class MasterUnfit(AgentError):
    """The master cannot be cloned as it stands."""

    reason = Reason.MASTER_UNFIT


class MasterChanged(MasterUnfit):
    """The master was changed while it was being cloned."""


class CloneMissing(AgentError):
    """No clone of that name stands under Users."""

    reason = Reason.CLONE_MISSING


class AlreadyThere(AgentError):
    """A clone of that name stands under Users already."""


class FolderTrouble(AgentError):
    """The host's file system did not do what it was asked."""


class DiskFull(FolderTrouble):
    """The host's disk or its quota is full."""

    reason = Reason.DISK_FULL


class ReadOnly(FolderTrouble):
    """The farm's folder cannot be written."""

    reason = Reason.READ_ONLY


class FilesInUse(FolderTrouble):
    """Files are held open by a program."""

    reason = Reason.FILES_IN_USE


class TooManyOpenFiles(FolderTrouble):
    """The agent has as many files open as the system lets it."""


class TooSlow(AgentError):
    """The deadline of this step passed."""

    reason = Reason.TOO_SLOW


class TerminalTrouble(AgentError):
    """The terminal did not do what it was told."""

    reason = Reason.TERMINAL_DIED


class TerminalCommand(TerminalTrouble):
    """The terminal's command could not be run."""

    reason = Reason.TERMINAL_COMMAND


class TerminalDied(TerminalTrouble):
    """The terminal ended by itself."""


class CrashLoop(TerminalTrouble):
    """The terminal ended too often in a short time and is not started again."""

    reason = Reason.CRASH_LOOP


class WillNotStop(TerminalTrouble):
    """A process of the terminal is still there after it was killed."""

    reason = Reason.WILL_NOT_STOP


class PortTaken(AgentError):
    """A program that is not ours holds the instance's port."""

    reason = Reason.PORT_TAKEN


class NotInjected(AgentError):
    """The terminal has no account to start with: nothing was injected."""

    reason = Reason.NOT_INJECTED


class NoLease(AgentError):
    """No live terminal may run here now: the host's lease is over, or its watchdog is silent."""

    reason = Reason.NO_LEASE


class KeepsakeTrouble(AgentError):
    """What the customer made could not be brought to the portal, or from it."""

    reason = Reason.KEEPSAKE


class BadKeepsake(KeepsakeTrouble):
    """This is no keepsake that may be unpacked."""


class Refused(AgentError):
    """The host did nothing."""

    outcome = Outcome.REFUSED


class CannotUnseal(Refused):
    """The sealed credentials are not for this host and this order."""

    reason = Reason.UNSEALABLE


class Stale(Refused):
    """A newer order for this instance is known."""

    reason = Reason.STALE


class Tombstoned(Refused):
    """This instance was destroyed before."""

    reason = Reason.TOMBSTONE


class Expired(Refused):
    """The order is too old."""

    reason = Reason.EXPIRED


def one_line(text: str) -> str:
    """Return ``text`` as one printable line that is short enough for a report."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST_DETAIL else line[: LONGEST_DETAIL - 1] + "…"


# --- what the operating system says ----------------------------------------------------------------------------------

_BY_ERRNO: dict[int, type[FolderTrouble]] = {
    errno.ENOSPC: DiskFull,
    getattr(errno, "EDQUOT", -1): DiskFull,
    errno.EFBIG: DiskFull,
    errno.EROFS: ReadOnly,
    errno.EACCES: ReadOnly,
    errno.EPERM: ReadOnly,
    errno.EBUSY: FilesInUse,
    getattr(errno, "ETXTBSY", -2): FilesInUse,
    errno.EMFILE: TooManyOpenFiles,
    errno.ENFILE: TooManyOpenFiles,
}
# Windows says "access denied" (5) of a running program's file and of a folder that is someone's working folder, too;
# that is far more often the case on a host than a missing right, and the same wait helps.
_BY_WINERROR: dict[int, type[FolderTrouble]] = {
    5: FilesInUse,
    19: ReadOnly,
    32: FilesInUse,
    33: FilesInUse,
    39: DiskFull,
    112: DiskFull,
    1224: FilesInUse,
    1295: DiskFull,
}


def from_os_error(error: OSError, doing: str = "") -> FolderTrouble:
    """Return the typed error for ``error``; ``doing`` says what was tried, as in "publishing user_9"."""
    kind = _BY_WINERROR.get(getattr(error, "winerror", None) or 0) or _BY_ERRNO.get(error.errno or 0, FolderTrouble)
    said = f"{error.strerror or type(error).__name__} ({errno.errorcode.get(error.errno or 0, error.errno)})"
    return kind(": ".join(part for part in (doing, said) if part))


@contextmanager
def typed(doing: str) -> Iterator[None]:
    """Turn every OSError of the block into its typed error."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing) from error
