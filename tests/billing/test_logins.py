"""What is typed as a broker login: refused at its field, or kept exactly; and the password is nowhere to be read."""

from __future__ import annotations

import json
import logging

import pytest
from django.core import mail
from django.db import connection

from farm import orders, vault
from farm.models import BrokerAccount, Instance
from presspass import lifecycle, logins
from presspass.billing.logins import Login
from presspass.models import Checkout, Notice, User
from tests.billing.shop import LOGIN, SERVER

CANARY = "Canary-77aZ~q"

HOSTILE = [
    "abc\ndef", "abc\r\nKey=1", "ab[section]\n", "abc\0def", "x" * 10_000, "abc\u202edef", "abc\u2066d\u2069e",
    "abc\u2028def", "abc\u0085def", "\ufeffabcdef", "abc\tdef", "pässword1",
]  # fmt: skip


@pytest.mark.parametrize("text", [*HOSTILE, "", "abc", "x" * 33, " abcd1234", "abcd1234 "])
def test_a_password_that_no_terminal_takes_is_refused(text):
    with pytest.raises(logins.BadLogin) as refused:
        logins.password(text)
    assert text.strip() not in str(refused.value) or not text.strip()


@pytest.mark.parametrize("text", ["a;b#c\"d'e=f[g]h%i", "%(x)s{0}", "[Common]", '"quoted"', "a b c d", "~!@#$%^&*()_+"])
def test_a_password_with_signs_that_only_look_dangerous_is_kept_letter_by_letter(text):
    assert logins.password(text) == text


@pytest.mark.parametrize(
    "text", [*HOSTILE, "", "   ", "[section]", "a=b", 'a"b', "a%b", "two  blanks", "host:", "host:0", "host:99999",
             "-a", ":443", "a;b", "../up"]
)  # fmt: skip
def test_a_server_that_is_no_name_is_refused(text):
    with pytest.raises(logins.BadLogin):
        logins.server(text)


@pytest.mark.parametrize(
    "text", ["MetaQuotes-Demo", "Capital.ComMena-Demo", "VantageInternational-Live 5", "FxPro-MT5 Demo",
             "192.168.0.1:443", "mt5.broker.example:1950"]
)  # fmt: skip
def test_real_servers_are_taken(text):
    assert logins.server(f" {text} ") == text


@pytest.mark.parametrize(
    "text", [*HOSTILE, "", "12", "0123", "-123", "12 34", "1e5", "٣٤٥٦", "9" * 19, "1" * 20, "12.3"]
)
def test_a_login_that_is_no_account_number_is_refused(text):
    with pytest.raises(logins.BadLogin):
        logins.number(text)


def test_the_largest_and_the_smallest_login_are_taken():
    assert (logins.number("100"), logins.number(str(2**63 - 1))) == (100, 2**63 - 1)


@pytest.mark.django_db
@pytest.mark.parametrize("field", ["server", "login", "password"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_credentials_are_told_at_their_field_and_nothing_is_held_or_shown(shop, field, text):
    answer = shop.fill(**{field: text})
    page = answer.content.decode()
    assert answer.status_code == 422
    assert f'id="error_1_id_{field}"' in page or f"id_{field}_error" in page
    assert not Checkout.objects.exists()
    assert not BrokerAccount.objects.filter(owner=shop.customer).exists()
    if field == "password":
        assert text not in page


@pytest.mark.django_db
def test_a_password_is_never_written_into_a_page_again(shop):
    page = shop.fill(server="[bad]", password=CANARY).content.decode()
    assert CANARY not in page
    assert 'value="[bad]"' in page
    assert 'autocomplete="off"' in page


@pytest.mark.django_db
@pytest.mark.parametrize(("password", "warned"), [("Right-1aA", False), ("abcd", True), ("x" * 20, True)])
def test_an_unusual_length_is_a_warning_and_no_refusal(shop, password, warned):
    assert shop.fill(password=password)["Location"].startswith(shop.paper.url)
    assert ("MetaTrader&#x27;s own have 8 to 16" in shop.page("/go-live/")) is warned


@pytest.mark.django_db
def test_the_web_can_store_a_password_and_not_read_it(shop, settings):
    settings.FIELD_KEYS, settings.INTAKE_SECRET_KEYS = [], []
    assert shop.fill(password=CANARY).status_code == 302
    account = BrokerAccount.objects.get(owner=shop.customer)
    with pytest.raises(Exception, match="No key in INTAKE_SECRET_KEYS"):
        vault.password_of(account)


# --- the canary -------------------------------------------------------------------------------------------------------


def in_tables(needle: str) -> list[str]:
    """Every column of every table in which it can be read."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                found += [f"{table}.{name}" for name, value in zip(names, row, strict=True) if needle in str(value)]
    return found


@pytest.fixture
def journey(shop, caplog, monkeypatch):
    """A known password goes the whole way: refused, corrected, live, changed; all that is said meanwhile is kept."""
    caplog.set_level(logging.DEBUG)
    pages, letters = [], []
    sent = orders.letter
    monkeypatch.setattr(orders, "letter", lambda *args, **more: letters.append(sent(*args, **more)) or letters[-1])
    for path, about in (("", {"server": "[bad]"}), ("", {}), ("live", {"login": "7000002"})):
        pages.append(shop.fill(**({"password": CANARY} | about)).content.decode())
        if path == "" and not about:
            shop.pay()
            shop.hear()
            shop.refuse(shop.live())
            pages += [shop.page(), shop.page("/go-live/"), shop.fill(password=CANARY).content.decode()]
            shop.fill(password=CANARY + "2")
            shop.prove(shop.live())
    shop.prove(shop.live())
    pages += [shop.page(), shop.page("/go-live/")]
    shop.news()
    lifecycle.send_due()
    letters_said = [json.dumps(letter.envelope, default=str) for letter in letters]
    mails = [letter.message().as_string() for letter in mail.outbox]
    return shop, {"pages": pages, "orders": letters_said, "mails": mails, "log": [caplog.text]}


@pytest.mark.django_db
def test_a_password_is_in_no_table_page_order_mail_or_log_line(journey):
    shop, said = journey
    assert len(said["orders"]) > 5
    assert len(said["mails"]) >= 3
    assert vault.password_of(shop.live().account) == CANARY
    assert in_tables(CANARY) == []
    for place, texts in said.items():
        assert [text for text in texts if CANARY in text] == [], place


@pytest.mark.django_db
def test_the_search_finds_a_password_in_every_table_it_is_planted_in(shop):
    shop.buy()
    shop.news()
    planted = {
        "farm_transition": Instance.objects.latest("pk").transitions.latest("pk"),
        "presspass_notice": Notice.objects.create(customer=shop.customer, kind="live"),
        "presspass_user": User.objects.get(pk=shop.customer.pk),
    }
    planted["farm_transition"].why = planted["presspass_notice"].data["x"] = planted["presspass_user"].time_zone = (
        CANARY
    )
    for row in planted.values():
        row.save()
    assert {place.partition(".")[0] for place in in_tables(CANARY)} == set(planted)
    assert len(in_tables(SERVER)) >= 2
    assert len(in_tables(str(LOGIN))) >= 2


@pytest.mark.django_db
def test_nothing_that_repr_shows_of_a_login_is_its_password(shop):
    assert CANARY not in repr(Login(SERVER, LOGIN, CANARY))
