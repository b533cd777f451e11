"""How often somebody may ask, also while the cache is gone."""

from __future__ import annotations

import socket
import time
from datetime import timedelta

import pytest
from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisGone
from redis.retry import Retry

from farm import clock
from presspass import limits
from presspass.errors import TooMany
from presspass.limits import Limit

THREE = Limit("test", 3, 3600)


def taken(key="k", limit=THREE):
    try:
        limits.take(limit, key)
    except TooMany as error:
        return error
    return None


@pytest.mark.parametrize("text", ["", "10", "/h", "10/", "10/x", "-1/h", "ten/h", "10/h/h"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ValueError, match="LIMIT_X"):
        Limit.parse("LIMIT_X", text)


@pytest.mark.parametrize(
    ("text", "most", "seconds"), [("10/h", 10, 3600), ("100/5m", 100, 300), ("2000/d", 2000, 86400)]
)
def test_a_limit_is_read(text, most, seconds):
    assert Limit.parse("x", text) == Limit("x", most, seconds)


def test_one_more_than_the_limit_is_refused_and_told_when():
    assert [taken() for _ in range(3)] == [None] * 3
    refusal = taken()
    assert isinstance(refusal, TooMany)
    assert 1 <= refusal.retry_after_seconds <= 3600


def test_keys_and_limits_are_counted_apart():
    for _ in range(3):
        taken("one")
    assert taken("one") is not None
    assert taken("two") is None
    assert taken("one", Limit("other", 3, 3600)) is None


def test_after_the_time_that_was_told_it_is_let_through_again():
    refusal = next(error for error in (taken() for _ in range(9)) if error)
    with clock.moved(timedelta(seconds=refusal.retry_after_seconds + 1)):
        assert taken() is None


@pytest.mark.parametrize(
    ("remote", "block"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("unix:", "unknown"),
    ],
)
def test_an_address_block_is_what_one_line_has(remote, block):
    assert limits.address_block(remote) == block


class Gone:
    def __init__(self):
        self.asked = 0

    def add(self, *args, **kwargs):
        self.asked += 1
        raise RedisGone("no")


def test_without_the_cache_this_process_counts(monkeypatch, caplog):
    gone = Gone()
    monkeypatch.setattr(limits, "cache", gone)
    assert [bool(taken()) for _ in range(5)] == [False, False, False, True, True]
    assert gone.asked == 1, "after a failure the cache is left in peace for a while"
    assert "the cache is gone" in caplog.text


def test_after_a_while_the_cache_is_asked_again(monkeypatch):
    gone = Gone()
    monkeypatch.setattr(limits, "cache", gone)
    taken()
    limits.breaker.quiet_until = time.monotonic() - 1
    taken()
    assert gone.asked == 2
    monkeypatch.undo()
    limits.breaker.quiet_until = time.monotonic() - 1
    taken()
    assert limits.breaker.quiet_until == 0.0


def test_a_cache_that_accepts_and_never_answers_costs_one_timeout_in_all(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        options = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3, "retry": Retry(NoBackoff(), 0)}
        url = f"redis://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setattr(limits, "cache", RedisCache(url, {"OPTIONS": options}))
        began = time.monotonic()
        for number in range(50):
            taken(str(number))
        assert time.monotonic() - began < 2


def test_this_process_memory_does_not_grow_for_ever(monkeypatch):
    monkeypatch.setattr(limits, "_LONGEST_MEMORY", 10)
    for number in range(100):
        limits.memory.counted(str(number))
    assert len(limits.memory.counts) <= 10


@pytest.mark.redis
def test_a_real_redis_counts_for_all_processes(monkeypatch, redis_url):
    monkeypatch.setattr(limits, "cache", RedisCache(redis_url, {}))
    key = f"test-{time.monotonic_ns()}"
    assert [bool(taken(key)) for _ in range(4)] == [False, False, False, True]
    assert not limits.memory.counts


def test_the_portal_has_a_cache_that_is_not_waited_for_longer_than_a_second(settings):
    options = caches.settings["default"].get("OPTIONS", {})
    assert all(options.get(name, 1) <= 1 for name in ("socket_timeout", "socket_connect_timeout"))
