"""How often somebody may ask: counts per window in the cache, or in this process's memory while the cache is gone.

Windows are fixed, and start at another moment for each key, so that not everybody's limit ends at once. Whoever asks at
the end of one and the start of the next gets at most twice the number; that is accepted for one counter a key.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import threading
import time
from dataclasses import dataclass, field

from django.core.cache import cache
from redis.exceptions import RedisError

from farm import clock
from presspass.errors import TooMany

QUIET_SECONDS = 5.0
"""After a failure the cache is not asked again for so long: each try may cost a whole socket timeout."""

_LONGEST_MEMORY = 10_000
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limit:
    name: str
    most: int
    seconds: int

    @classmethod
    def parse(cls, name: str, text: str) -> Limit:
        """Read ``10/h``; raise ValueError for anything else. 0 shuts the door."""
        found = re.fullmatch(r"(\d+)/(\d*)([smhd])", text.strip())
        if found is None:
            raise ValueError(f"{name}: {text!r} is not a limit like 10/h or 100/5m")
        return cls(name, int(found[1]), int(found[2] or 1) * _SECONDS[found[3]])


def take(limit: Limit, key: str) -> None:
    """Count one for ``key``; raise :class:`TooMany` when that is more than ``limit``."""
    digest = hashlib.blake2b(f"{limit.name} {key}".encode(), digest_size=16)
    moment = clock.now().timestamp() + int.from_bytes(digest.digest()[:4]) % limit.seconds
    window, into = divmod(moment, limit.seconds)
    if _counted(f"limit:{digest.hexdigest()}:{int(window)}", limit.seconds) > limit.most:
        raise TooMany(max(1, round(limit.seconds - into)))


def address_block(remote: str) -> str:
    """What one customer's line has: an IPv4 address, or the /64 of an IPv6 one. Unreadable ones share a block."""
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


@dataclass
class _Memory:
    """Counts of this process alone. Forgets all of them when they become too many: the cache is the real place."""

    counts: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def counted(self, key: str) -> int:
        with self.lock:
            if len(self.counts) >= _LONGEST_MEMORY:
                self.counts.clear()
            self.counts[key] = self.counts.get(key, 0) + 1
            return self.counts[key]


@dataclass
class _Breaker:
    """Lets one caller at a time find out whether the cache is back, so that not every page waits for it."""

    quiet_until: float = 0.0

    def lets_through(self) -> bool:
        return time.monotonic() >= self.quiet_until

    def trip(self) -> None:
        self.quiet_until = time.monotonic() + QUIET_SECONDS


memory = _Memory()
breaker = _Breaker()


def _counted(key: str, seconds: int) -> int:
    if not breaker.lets_through():
        return memory.counted(key)
    was_broken = breaker.quiet_until > 0
    if was_broken:
        breaker.trip()  # the others stay quiet while this caller tries
    try:
        cache.add(key, 0, timeout=seconds)
        count = int(cache.incr(key))
    except ValueError:  # evicted between the two: this is the first we know of
        return 1
    except (RedisError, OSError) as error:
        breaker.trip()
        log.warning("the cache is gone; limits are counted per process", extra={"error": type(error).__name__})
        return memory.counted(key)
    breaker.quiet_until = 0.0
    return count
