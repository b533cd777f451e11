"""How a moment is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from presspass import moments

NOW = datetime(2026, 11, 22, 14, 40, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "name", ["", "Nowhere/Land", "../etc/passwd", "/etc/passwd", "UTC\n", "x" * 65, "Europe/", "\x00"]
)
def test_what_is_no_zone_is_utc(name):
    assert not moments.is_zone(name)
    assert moments.zone(name) is UTC


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_a_zone_is_known_by_its_name(name):
    assert moments.is_zone(name)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (timedelta(hours=3), "today 18:40 CET, in 3 h"),
        (timedelta(hours=-3), "today 12:40 CET, 3 h ago"),
        (timedelta(hours=10), "tomorrow 01:40 CET, in 10 h"),
        (timedelta(hours=-24), "yesterday 15:40 CET, 24 h ago"),
        (timedelta(days=7), "Sun 29 Nov 15:40 CET, in 7 days"),
        (timedelta(days=60), "Thu 21 Jan 2027 15:40 CET, in 60 days"),
        (timedelta(milliseconds=400), "today 15:40 CET, now"),
    ],
)
def test_a_moment_is_said_in_the_zone_and_relative(after, said):
    assert moments.at_and_away(NOW + after, now=NOW, zone=BERLIN).text == said


def test_a_zone_without_letters_is_named_by_its_distance():
    assert moments.at(NOW, now=NOW, zone=ZoneInfo("Asia/Dubai")).text == "today 18:40 UTC+4"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0234, "23 ms"), (0.42, "0.4 s"), (3, "3 s"), (12.4, "12 s"), (99, "99 s"), (180, "3 min"), (5 * 3600, "5 h"),
     (6 * 86400, "6 days")],
)  # fmt: skip
def test_a_length_has_the_figures_that_matter(seconds, said):
    assert moments.length(seconds) == said
