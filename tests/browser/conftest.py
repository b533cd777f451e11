"""A whole stack of its own for the browser, and eyes on what the browser does besides showing pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe

from bitten_portal.stack import Stack

SCREENSHOTS = Path(__file__).parents[2] / "var" / "screenshots"
SETTINGS = {
    "ACCOUNTS": "80",
    "FARM_SURVEY_SECONDS": "1",
    "LIMIT_SIGNUPS": "1000/h",
    "MASTER_FILES": "200",
    "MASTER_MB": "4",
}


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    with Stack(data_dir=tmp_path_factory.mktemp("browser") / "var", slots=60, env=SETTINGS) as up:
        yield up


@pytest.fixture(scope="session")
def base_url(stack):
    return stack.url


@dataclass
class Eyes:
    """What a visitor would not see: errors on the console, requests that fail or leave the machine."""

    page: object
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._request)

    def _console(self, message):
        if message.type in {"error", "warning"}:
            self.complaints.append(f"console: {message.text}")

    def _failed(self, request):
        if request.failure != "net::ERR_ABORTED":  # the page was left while it was still asking
            self.complaints.append(f"failed: {request.url} {request.failure}")

    def _request(self, request):
        if urlsplit(request.url).hostname != "127.0.0.1":
            self.complaints.append(f"left the machine: {request.url}")


@pytest.fixture
def eyes(page):
    watching = Eyes(page)
    yield watching
    assert watching.complaints == []


@pytest.fixture
def looked_at(page, request):
    """Take a screenshot, and hold the page to what must hold for all of them."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def look(name):
        size = page.viewport_size
        page.screenshot(path=SCREENSHOTS / f"{name}-{size['width']}.png", full_page=True)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
        widest = page.evaluate("document.documentElement.scrollWidth")
        assert widest <= size["width"], f"{name} is {widest} wide on a screen of {size['width']}"

    return look
