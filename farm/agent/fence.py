"""May a live terminal run here, and who starts it: what the agent has to do with its lease and its watchdog.

On a host under the policy ``static`` none of this applies: :attr:`Fence.is_on` is false.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from farm.agent import errors, intercom, lease_file, processes, pulse
from farm.agent.lease import Lease, Moment
from farm.agent.living import is_live
from farm.agent.processes import Proc
from farm.agent.protocol import Policy
from farm.agent.pulse import Pulse
from farm.agent.settings import Settings
from farm.agent.state import Launch

LAUNCH_SECONDS = 5.0
"""So long the watchdog may take to start a terminal; later it does not, and kills what it did."""
ASK_SECONDS = 1.0
PROMPT_SECONDS = 3.0
"""One that ticked so lately is worth a question that others wait for."""


@dataclass(frozen=True)
class Ending:
    """What is known of how a terminal's process ended."""

    code: int | None = None
    taken_down: bool = False
    """By the lease's end or the watchdog's, which is nobody's crash."""


class Fence:
    def __init__(self, settings: Settings, *, moment: Callable[[], Moment]) -> None:
        self.is_on = settings.policy is Policy.FENCED
        self._folder = settings.state_folder
        self._moment = moment
        self._lock = threading.Lock()
        self._taken: set[str] = set()

    # --- may it run ---------------------------------------------------------------------------------------------------

    def is_for(self, kind: str) -> bool:
        """Whether a terminal of that kind runs here only under a lease."""
        return self.is_on and is_live(kind)

    def bars(self, kind: str) -> bool:
        """Whether a terminal of that kind may not be started now."""
        if not self.is_for(kind):
            return False
        now, mark, lease = self._moment(), self._pulse(), self._lease()
        ticks = mark is not None and not mark.is_silent(now) and not mark.stopping
        return not (ticks and lease is not None and lease.is_fresh(now))

    def check(self, kind: str) -> None:
        """Raise :class:`errors.NoLease` if a terminal of that kind may not be started now."""
        if self.bars(kind):
            raise errors.NoLease

    def watchdog_ok(self) -> bool:
        mark = self._pulse()
        return mark is not None and not mark.is_silent(self._moment())

    def watchdog_stops_within(self) -> float:
        """The longest that the watchdog which ticks may take to stop the live terminals; 0 if none ever ticked."""
        mark = self._pulse()
        return mark.stops_within if mark is not None else 0.0

    def watchdog(self, kind: str) -> str:
        """Which watchdog answers for a terminal of that kind that was found running; "" if none has to."""
        mark = self._pulse() if self.is_for(kind) else None
        return mark.watchdog if mark is not None else ""

    def lease_left(self) -> float | None:
        """Seconds until the lease is over; None without one, or when it is over."""
        lease = self._lease()
        left = lease.left(self._moment()) if lease is not None else 0.0
        return left if left > 0 else None

    def take(self, lease: Lease) -> bool:
        """Keep ``lease`` if it ends after the one that is kept; say whether it was."""
        now, known = self._moment(), self._lease()
        if not lease.is_fresh(now) or (known is not None and known.left(now) >= lease.left(now)):
            return False
        lease_file.save(self._folder, lease)
        return True

    def _lease(self) -> Lease | None:
        return lease_file.load(self._folder)

    def _pulse(self) -> Pulse | None:
        return pulse.load(self._folder)

    # --- starting -----------------------------------------------------------------------------------------------------

    def launch(self, folder: str) -> tuple[Proc, str]:
        """Have the watchdog start the terminal of the clone ``folder``; return its process, and which watchdog it was.

        Raises :class:`errors.NoLease` if it may not run now, or if the watchdog does not answer: whoever holds the
        instance's lock must then stop what may have been started. After LAUNCH_SECONDS nothing is any more.
        """
        question = {"do": "launch", "folder": folder, "until": self._moment().since_boot + LAUNCH_SECONDS}
        try:
            answer = intercom.ask(self._folder, question, seconds=LAUNCH_SECONDS + ASK_SECONDS)
        except intercom.Unanswered as error:
            raise errors.NoLease(error.detail) from error
        if "pid" not in answer:
            raise _refusal(answer)
        with self._lock:
            self._taken.discard(processes.key(folder))
        return Proc(int(answer["pid"]), float(answer["created"])), str(answer["watchdog"])

    # --- ended --------------------------------------------------------------------------------------------------------

    def note_taken(self, folders: Iterable[str]) -> None:
        """Remember that the agent itself took down what ran in these, for want of a watchdog."""
        with self._lock:
            self._taken.update(map(processes.key, folders))

    def ending(self, folder: str, launch: Launch) -> Ending:
        """Return how the terminal of ``launch``, which runs no more, ended. It may take as long as ASK_SECONDS."""
        code = processes.exit_code(launch.pid)
        if not self.is_on or not launch.watchdog:
            return Ending(code)
        with self._lock:
            if processes.key(folder) in self._taken:
                return Ending(code, taken_down=True)
        mark = self._pulse()
        if mark is None or mark.watchdog != launch.watchdog or mark.age(self._moment()) > PROMPT_SECONDS:
            return Ending(code, taken_down=True)
        return self._told(folder, launch)

    def _told(self, folder: str, launch: Launch) -> Ending:
        question = {"do": "ended", "folder": folder, "pid": launch.pid}
        try:
            answer = intercom.ask(self._folder, question, seconds=ASK_SECONDS)
        except intercom.Unanswered:
            return Ending(taken_down=True)
        return Ending(answer["code"], taken_down=bool(answer["stopped"]))


def _refusal(answer: intercom.Answer) -> errors.AgentError:
    known = {kind.reason.value: kind for kind in (errors.NoLease, errors.TerminalCommand)}
    return known.get(str(answer.get("reason")), errors.AgentError)(str(answer.get("detail", "")))
