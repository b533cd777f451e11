"""Mail that was written to a folder instead of being sent. Exists under `make run` only."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

NEWEST = 100
_BETWEEN = re.compile(rb"\n-{79}\n")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.log\Z")


@dataclass(frozen=True)
class Mail:
    name: str
    subject: str
    to: str
    date: str
    body: str


@never_cache
@require_safe
def mails(request: HttpRequest) -> HttpResponse:
    files = sorted((path for path in _folder().glob("*.log") if _NAME.match(path.name)), reverse=True)[:NEWEST]
    found = [mail for path in files for mail in reversed(_read(path))]
    return render(request, "presspass/mails.html", {"mails": found, "folder": _folder()})


@never_cache
@require_safe
def mail(request: HttpRequest, name: str) -> HttpResponse:
    path = _folder() / name
    if not _NAME.match(name) or not path.is_file():
        raise Http404
    return render(request, "presspass/mail.html", {"mails": _read(path)})


def _folder() -> Path:
    if not settings.LOCAL or not settings.MAIL_FOLDER:
        raise Http404
    return Path(settings.MAIL_FOLDER)


def _read(path: Path) -> list[Mail]:
    parts = [part for part in _BETWEEN.split(path.read_bytes() + b"\n") if part.strip()]
    return [_parsed(path.name, part.lstrip(b"\n")) for part in parts]


def _parsed(name: str, raw: bytes) -> Mail:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    text = message.get_body(preferencelist=("plain",))
    return Mail(
        name=name,
        subject=str(message["Subject"] or "(no subject)"),
        to=str(message["To"] or ""),
        date=str(message["Date"] or ""),
        body=text.get_content() if text is not None else "",
    )
