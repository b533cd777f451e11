"""All pages: nothing inline, nothing from elsewhere, refusals in our look; mail on a page under `make run` only."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.conf import settings as real_settings
from django.core.mail import EmailMultiAlternatives
from django.template import TemplateDoesNotExist
from django.test import Client, RequestFactory

from presspass import views
from presspass.lifecycle import links
from tests.factories import UserFactory, instance

TEMPLATES = Path(real_settings.BASE_DIR) / "templates"
STATIC = Path(views.__file__).parents[1] / "static" / "presspass"
ANONYMOUS = ["/", "/sign-in/", "/sign-in/sent/", "/sign-in/link/?token=x", "/nothing/here/"]
SIGNED_IN = ["/terminal/", "/terminal/{}/end/"]


class Inline(HTMLParser):
    """Everything that a strict policy would refuse."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.script_without_source = False

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.found += [f"<{tag} {name}>" for name in names if name == "style" or name.startswith(("on", "hx-on"))]
        self.found += [f"<{tag}>" for _ in [0] if tag == "style" or (tag == "script" and "src" not in names)]
        for name in ("src", "href", "action", "srcset"):
            if re.match(r"(https?:)?//|javascript:|data:", names.get(name) or "", re.I):
                self.found.append(f"{name}={names[name]}")


def inline(page):
    reader = Inline()
    reader.feed(page.content.decode())
    return reader.found


@pytest.mark.django_db
@pytest.mark.parametrize("path", ANONYMOUS)
def test_nothing_inline_and_nothing_from_elsewhere(client, path):
    assert inline(client.get(path)) == []


@pytest.mark.django_db
@pytest.mark.parametrize("path", SIGNED_IN)
def test_nor_on_the_pages_behind_the_sign_in(signed_in, answering, customer, path):
    row = answering.obey(instance(customer))
    page = signed_in.get(path.format(row.pk))
    assert page.status_code == 200
    assert inline(page) == []


@pytest.mark.django_db
def test_nor_on_the_pages_for_links_and_refusals(client, customer):
    pages = [
        client.get(links.url(customer).partition("8000")[2]),
        client.post("/", {"email": "nonsense"}),
        views.error_500(RequestFactory().get("/")),
    ]
    assert [inline(page) for page in pages] == [[], [], []]


def test_no_template_of_a_page_holds_a_style_or_a_script_of_its_own():
    pages = [path for path in TEMPLATES.rglob("*.html") if not {"mail", "admin"} & set(path.parts)]
    assert len(pages) > 10
    offenders = [
        path.name
        for path in pages
        if re.search(
            r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son[a-z]+=|\|safe\b|autoescape off", path.read_text("utf-8")
        )
    ]
    assert offenders == []


def test_static_files_ask_nothing_of_elsewhere():
    for path in [*STATIC.rglob("*.css"), *STATIC.rglob("*.js")]:
        words = path.read_text("utf-8")
        assert "sourceMappingURL" not in words, path.name
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", words), path.name


@pytest.mark.django_db
def test_what_a_customer_typed_is_shown_as_text(client):
    page = client.post("/", {"email": '"><script>alert(1)</script>'}).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/sign-in/", "/sign-in/sent/", "/terminal/"])
def test_no_page_is_kept_by_caches(signed_in, path):
    assert "no-store" in signed_in.get(path).headers["Cache-Control"]


@pytest.mark.django_db
def test_the_policy_allows_ourselves_only(client):
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "status", "words"), [("/nothing/", 404, "There is no such page.")])
def test_a_page_that_is_none_is_told_in_our_look(client, path, status, words):
    page = client.get(path)
    assert (page.status_code, words in page.content.decode(), "portal.css" in page.content.decode()) == (
        status,
        True,
        True,
    )


@pytest.mark.django_db
def test_the_page_for_what_is_forbidden_is_in_our_look(rf):
    request = rf.get("/")
    request.user = UserFactory.create()
    page = views.error_403(request)
    assert page.status_code == 403
    assert "That is not open to you." in page.content.decode()


def test_the_page_for_our_own_mistakes_asks_nothing_of_the_database(rf):
    """No database mark: a query would fail the test."""
    page = views.error_500(rf.get("/"))
    assert page.status_code == 500
    assert "It is not you." in page.content.decode()


def test_and_answers_even_when_its_template_is_broken(rf, monkeypatch, caplog):
    def broken(name):
        raise TemplateDoesNotExist(name)

    monkeypatch.setattr("presspass.views.refusals.render_to_string", broken)
    page = views.error_500(rf.get("/"))
    assert page.status_code == 500
    assert "does not work" in page.content.decode()
    assert "TemplateDoesNotExist" in caplog.text


@pytest.mark.django_db
def test_a_bug_in_a_view_gets_that_page(monkeypatch, host, django_assert_num_queries):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("presspass.lifecycle.join", broken)
    page = Client(raise_request_exception=False).post("/", {"email": "ann@example.com"})
    assert page.status_code == 500
    assert "Something on our side does not work." in page.content.decode()


# --- mail on a page -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(settings, tmp_path):
    settings.LOCAL = True
    settings.MAIL_FOLDER = settings.EMAIL_FILE_PATH = str(tmp_path)
    settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    return tmp_path


def posted(subject="Your link", body="Open http://127.0.0.1:8000/sign-in/link/?token=abc now"):
    mail = EmailMultiAlternatives(subject, body, "portal@example.com", ["ann@example.com"])
    mail.attach_alternative("<p>in HTML</p>", "text/html")
    mail.send()


@pytest.mark.django_db
@pytest.mark.parametrize(("local", "there"), [(False, True), (True, False)])
def test_there_is_no_such_page_in_production(client, settings, folder, local, there):
    posted()
    settings.LOCAL = local
    settings.MAIL_FOLDER = str(folder) if there else ""
    name = next(folder.iterdir()).name
    assert client.get("/mail/").status_code == 404
    assert client.get(f"/mail/{name}/").status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name", ["..", "%2e%2e%2fsecret.log", "..%2fsecret.log", "a.txt", "none.log", ".hidden.log", "x%00.log"]
)
def test_only_mails_of_the_folder_are_shown(client, folder, name):
    (folder.parent / "secret.log").write_text("secret")
    (folder / "a.txt").write_text("secret")
    (folder / ".hidden.log").write_text("secret")
    page = client.get(f"/mail/{name}/")
    assert page.status_code == 404
    assert b"secret" not in page.content


@pytest.mark.django_db
def test_mails_are_listed_and_their_links_can_be_pressed(client, folder):
    posted()
    listing = client.get("/mail/").content.decode()
    assert "Your link" in listing
    path = re.search(r'href="(/mail/[^"]+\.log/)"', listing)[1]
    page = client.get(path).content.decode()
    assert '<a href="http://127.0.0.1:8000/sign-in/link/?token=abc"' in page


@pytest.mark.django_db
def test_a_mail_with_markup_in_it_is_shown_as_text(client, folder):
    posted("<b>bold</b>", "<script>alert(1)</script>")
    listing = client.get("/mail/").content.decode()
    path = re.search(r'href="(/mail/[^"]+\.log/)"', listing)[1]
    assert "<b>bold" not in listing
    assert "<script>alert" not in client.get(path).content.decode()
