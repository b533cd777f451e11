"""A stranger with a browser, without the browser: types an address, looks at the page, again and again."""

from __future__ import annotations

import http.cookiejar
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field

_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_HEADLINE = re.compile(r"<h1[^>]*>(.*?)</h1>", re.S)
_TAG = re.compile(r"<[^>]+>")


@dataclass
class Visitor:
    url: str
    email: str
    last_url: str = field(default="", init=False)
    """Where the last page was in the end."""
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False)

    def __post_init__(self) -> None:
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)

    def page(self, path: str, form: dict[str, str] | None = None) -> str:
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        with self._opener.open(self.url + path, data, timeout=60) as answer:
            text: str = answer.read().decode()
            self.last_url = answer.url
        return text

    def token(self, path: str = "/") -> str:
        found = _TOKEN.search(self.page(path))
        if found is None:
            raise AssertionError(f"{path} has no form")
        return found[1]

    def sign_up(self) -> float:
        """Type the address and press the button; return the seconds until the terminal's page stood there."""
        token = self.token()
        began = time.perf_counter()
        self.page("/", {"csrfmiddlewaretoken": token, "email": self.email})
        return time.perf_counter() - began

    def headline(self) -> str:
        """What the terminal's page says now, in one sentence."""
        found = _HEADLINE.search(self.page("/terminal/"))
        return " ".join(_TAG.sub(" ", found[1]).split()) if found else ""
