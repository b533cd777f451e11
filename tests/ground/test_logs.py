"""What a log line holds, and what it never does."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from django.test import Client

from bitten_portal.logs import Line

TOKEN = "AAAAAQbW1kZ2x4bm9wcXJzdHV2d3h5"


def line(message: str, *args: object, logger: str = "farm", error: BaseException | None = None, **extra: Any) -> str:
    trace = (type(error), error, error.__traceback__) if error else None
    record = logging.getLogger(logger).makeRecord(logger, logging.INFO, "f", 1, message, args, trace, extra=extra)
    return Line().format(record)


def test_an_event_is_one_line_of_json_with_its_extras() -> None:
    told = json.loads(line("moved", event="move", instance=17))
    assert (told["message"], told["event"], told["instance"], told["level"]) == ("moved", "move", 17, "info")


def test_a_traceback_stays_in_the_same_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        text = line("failed", error=sys.exc_info()[1])
    assert "\n" not in text
    assert "ValueError: two" in json.loads(text)["traceback"]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("mail to ann@example.com failed", "ann@example.com"),
        ("Key (email)=(ann@example.com) already exists", "ann@example.com"),
        (f"Not Found: /sign-in/link/{TOKEN}/", TOKEN),
        (f"GET /sign-in/link/?sesame={TOKEN}", TOKEN),
        ("cannot reach redis://:hush@127.0.0.1:6379/0", "hush"),
        ("cannot reach postgres://bitten:hush@db/bitten", "hush"),
    ],
)
def test_addresses_tokens_and_passwords_are_cut_out(text: str, secret: str) -> None:
    assert secret not in line(text)
    assert secret not in line("event", detail=text)
    assert secret not in line("event", error=ValueError(text))


@pytest.mark.parametrize("name", ["data", "email", "envelope", "kwargs", "password", "request", "token"])
def test_an_extra_that_holds_what_no_log_may_is_left_out(name: str) -> None:
    assert "hush" not in line("event", **{name: "hush"})


def test_what_celery_adds_of_a_message_below_its_first_line_is_left_out() -> None:
    text = line("Received unregistered task %r.\nbody: %s", "farm.none", "hush", logger="celery.worker.consumer")
    assert "hush" not in text
    assert "farm.none" in text


def test_ordinary_paths_stay_readable() -> None:
    assert "/terminal/17/restart/" in json.loads(line("Not Found: /terminal/17/restart/"))["message"]


@pytest.mark.django_db
def test_a_request_is_logged_by_its_route_and_never_by_its_query(caplog) -> None:
    with caplog.at_level(logging.INFO, "bitten_portal.access"):
        Client().get("/sign-in/link/", {"sesame": TOKEN})
    [record] = [record for record in caplog.records if record.name == "bitten_portal.access"]
    assert (record.route, record.method) == ("/sign-in/link/", "GET")
    assert TOKEN not in caplog.text + str(vars(record))
