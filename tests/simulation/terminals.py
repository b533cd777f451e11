"""What stands and runs on a host: clones, and the processes in them."""

from __future__ import annotations

from farm.agent.protocol import Connection, Observation, Process, Refusal
from farm.states import Goal, Kind


class Terminal:
    """A process. It may be in the middle of being stopped, and is there until it is gone."""

    __slots__ = ("account", "decided", "host", "instance", "kind", "tied")

    def __init__(self, *, host: int, instance: int, kind: Kind, account: str | None, tied: bool):
        self.host, self.instance, self.kind, self.account = host, instance, kind, account
        self.tied = tied
        """It dies with the watchdog that started it. One that forked away does not."""
        self.decided = False

    def __str__(self) -> str:
        return f"instance {self.instance} on host {self.host}"


class Clone:
    """One instance as its host has it; all but the process is on the disk."""

    __slots__ = ("_seen", "account", "age", "buried", "busy", "goal", "instance", "kind", "present", "process")

    def __init__(self, instance: int, kind: Kind):
        self.instance, self.kind = instance, kind
        self.age = (0, 0)
        self.present = self.buried = False
        self.account: str | None = None
        self.goal: Goal | None = None
        self.process: Terminal | None = None
        self.busy: int | None = None
        """The life of the agent that is acting on it."""
        self._seen: tuple[tuple, Observation] | None = None

    def observed(self) -> Observation:
        """As a survey tells it; made anew only when something changed, for making one is dear."""
        process = self.process
        up = process is not None
        now = (self.age, self.present, up, up and process.decided, self.account)
        if self._seen is None or self._seen[0] != now:
            self._seen = (now, self._made(up, up and process.decided))
        return self._seen[1]

    def _made(self, up: bool, decided: bool) -> Observation:
        refused = decided and is_wrong(self.account)
        let_in = Connection.NO_ACCOUNT if self.account is None else Connection.CONNECTED
        return Observation(
            instance=self.instance,
            folder=f"user_{self.instance}",
            present=self.present,
            process=Process.RUNNING if up else Process.STOPPED,
            connection=Connection.REFUSED if refused else let_in if decided else Connection.UNKNOWN,
            refusal=Refusal.CREDENTIALS if refused else Refusal.NONE,
            synchronized=decided,
            trading=True if decided else None,
            epoch=self.age[0],
            generation=self.age[1],
        )


def is_wrong(account: str | None) -> bool:
    """Whether the broker will not let this one in."""
    return account is not None and account.startswith("wrong")
