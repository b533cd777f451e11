"""The clocks of one machine, as functions of the true time that only the simulation knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from farm.agent.lease import Moment

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Both clocks run at ``rate``; the wall's can be set, the other begins anew with each boot."""

    def __init__(self, rate: float, *, off: float = 0.0, counts_sleep: bool = True):
        self.rate, self.off, self.counts_sleep = rate, off, counts_sleep
        self.boots, self.booted_at, self.slept = 1, -10_000.0, 0.0

    def since_boot(self, t: float) -> float:
        return (t - self.booted_at - self.slept) * self.rate

    def wall(self, t: float) -> float:
        return t * self.rate + self.off

    def now(self, t: float) -> datetime:
        return EPOCH + timedelta(seconds=self.wall(t))

    def moment(self, t: float) -> Moment:
        return Moment(boot_id=str(self.boots), since_boot=self.since_boot(t), wall=self.wall(t))

    def set_by(self, seconds: float) -> None:
        self.off += seconds

    def boot(self, t: float) -> None:
        self.boots, self.booted_at, self.slept = self.boots + 1, t, 0.0

    def sleep(self, seconds: float) -> None:
        if not self.counts_sleep:
            self.slept += seconds
