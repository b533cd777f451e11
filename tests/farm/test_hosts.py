"""Hosts: enrolled with their keys, and which of them gets the next terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from nacl.signing import SigningKey

from farm import clock, hosts, lifecycle, orders
from farm.agent import protocol
from farm.agent.protocol import Connection, Process
from farm.agent.settings import Settings
from farm.models import Host, HostEvent
from farm.states import Status
from tests.factories import AnsweringHost, HostFactory, instance

pytestmark = pytest.mark.django_db

NEW_KEY = SigningKey(b"n" * 32)


def enrolled(host, verify_key):
    return hosts.enrol(
        hosts.Enrolment(
            name=host.name, slots=host.slots, port_first=host.port_first, port_last=host.port_last,
            verify_key=verify_key, seal_key=host.seal_key,
        )
    )  # fmt: skip


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValidationError):
        enrolled(HostFactory.create(), protocol.b64(b"short"))


def test_no_two_hosts_in_use_have_one_key():
    """The one could speak for the other, and open what is sealed to it."""
    one = HostFactory.create()
    other = HostFactory.create(verify_key=protocol.b64(bytes(NEW_KEY.verify_key)), seal_key=protocol.b64(b"s" * 32))
    with pytest.raises(ValidationError, match="Another host has that key"):
        enrolled(other, one.verify_key)
    Host.objects.filter(pk=one.pk).update(state=Host.State.RETIRED)
    enrolled(other, one.verify_key)


def test_a_retired_host_is_not_enrolled_again():
    host = HostFactory.create(state=Host.State.RETIRED)
    with pytest.raises(ValidationError, match="under a new name"):
        enrolled(host, protocol.b64(bytes(NEW_KEY.verify_key)))
    host.refresh_from_db()
    assert host.verify_key != protocol.b64(bytes(NEW_KEY.verify_key))


def test_what_was_signed_with_the_key_before_counts_while_keys_change():
    host = HostFactory.create()
    row = AnsweringHost(host).obey(instance())
    enrolled(host, protocol.b64(bytes(NEW_KEY.verify_key)))
    for answering, said in ((AnsweringHost(host), Connection.LOST), (AnsweringHost(host, NEW_KEY), Connection.UNKNOWN)):
        answering.survey(answering.line(row, connection=said))
        row.refresh_from_db()
        assert row.connection == said
        Host.objects.update(survey_sent_at=None)


@pytest.mark.parametrize("state", [Host.State.DRAINING, Host.State.RETIRED])
def test_a_host_that_is_given_up_gets_no_new_terminal_and_goes_on_with_those_it_has(state):
    host = HostFactory.create()
    row = instance()
    Host.objects.update(state=state)
    assert instance().status == Status.WAITING
    assert AnsweringHost(host).obey(row).status == Status.RUNNING
    lifecycle.restart(row.pk, who="customer:1")
    assert AnsweringHost(host).obey(row).status == Status.RUNNING


def test_the_first_start_is_the_one_that_is_remembered():
    answering = AnsweringHost(HostFactory.create())
    row = answering.obey(instance())
    first = row.first_running_at
    lifecycle.restart(row.pk, who="customer:1")
    assert answering.obey(row).first_running_at == first
    answering.survey(answering.line(row, process=Process.STOPPED))
    answering.survey(answering.line(row))
    row.refresh_from_db()
    assert (row.status, row.first_running_at) == (Status.RUNNING, first)


def test_the_page_shows_the_newest_terminal():
    answering = AnsweringHost(HostFactory.create())
    old = answering.obey(instance())
    lifecycle.end(old.pk, why="left", who="customer:1")
    new = instance(old.customer)
    assert lifecycle.current(old.customer_id) == new


# --- what is put on the host, and on the broker -----------------------------------------------------------------------


def add_host(*args):
    out = StringIO()
    keys = ["--verify", protocol.b64(bytes(NEW_KEY.verify_key)), "--seal", protocol.b64(b"s" * 32)]
    call_command("add_host", "alpha", *keys, *args, stdout=out)
    return Host.objects.get(), out.getvalue()


def test_a_host_is_fenced_unless_it_is_said_otherwise_and_stays_what_it_was():
    assert add_host()[0].policy == "fenced"
    assert add_host("--policy", "static")[0].policy == "static"
    assert add_host()[0].policy == "static"
    assert add_host("--policy", "fenced")[0].policy == "fenced"


def test_what_is_put_on_the_host_holds_no_secret_and_can_be_read_by_the_agent(settings):
    settings.CELERY_BROKER_URL = "rediss://portal:hush@broker.example:6380/1?ssl_ca_certs=/etc/ca.pem"
    host, said = add_host()
    assert "hush" not in said
    assert settings.ORDER_SIGNING_KEY not in said
    variables = dict(line.strip().split("=", 1) for line in said.splitlines() if line.startswith("  FARM_"))
    assert variables["FARM_BROKER_URL"] == "rediss://host.alpha:PASSWORD@broker.example:6380/1?ssl_ca_certs=/etc/ca.pem"
    found = Settings.from_environment({"FARM_ROOT": "/farm", **variables})
    assert (found.host, found.policy) == ("alpha", "fenced")
    Host.objects.update(surveyed_at=clock.now())
    letter = orders.letter(instance(), protocol.Verb.CLONE, password=None)
    assert protocol.opened(letter.envelope, found.portal_keys)
    assert hosts.acl(host) in said


def test_without_the_signing_key_it_says_where_the_public_half_is_to_be_had(settings):
    settings.ORDER_SIGNING_KEY = ""
    assert "FARM_PORTAL_KEYS=...   # run this again in the portal worker's environment" in add_host()[1]


def test_enrolling_and_new_keys_stand_in_the_journal_and_the_same_again_does_not():
    host = add_host()[0]
    add_host()
    enrolled(host, protocol.b64(bytes(SigningKey(b"m" * 32).verify_key)))
    assert list(HostEvent.objects.order_by("pk").values_list("what", "why")) == [
        ("enrolled", "slots 20, ports 9000-9999, fenced"),
        ("keys changed", "verify_key"),
    ]
