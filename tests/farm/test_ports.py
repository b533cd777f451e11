"""Slots and ports: who gets which number, and what a full host says."""

from __future__ import annotations

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from farm import errors, ports
from farm.models import Host, Instance, Port
from farm.states import Status
from tests.factories import HostFactory, UserFactory

pytestmark = pytest.mark.django_db


def waiting(customer=None):
    customer = customer or UserFactory.create()
    count = Instance.objects.filter(customer=customer).count()
    return Instance.objects.create(
        customer=customer, kind="live", status=Status.WAITING, folder=f"user_{customer.pk}-{count}"
    )


def test_a_host_without_free_slots_says_so_and_takes_nothing():
    host = HostFactory.create(slots=1)
    ports.reserve(host, waiting())
    row = waiting()
    with pytest.raises(errors.NoFreePort, match="All 1 slots"):
        ports.reserve(host, row)
    assert not Port.objects.filter(instance=row).exists()


def test_a_host_without_free_ports_says_so_and_takes_no_slot():
    host = HostFactory.create(port_first=9000, port_last=9000)
    ports.reserve(host, waiting())
    with pytest.raises(errors.NoFreePort, match="No port"):
        ports.reserve(host, waiting())
    assert Host.objects.get(pk=host.pk).taken == 1


def test_an_instance_that_has_a_port_gets_no_second():
    host = HostFactory.create()
    row = waiting()
    ports.reserve(host, row)
    with pytest.raises(Exception, match=r"(?i)unique"), transaction.atomic():
        ports.reserve(host, row)


@given(customer=st.integers(1, 2**62), first=st.integers(1024, 65535), span=st.integers(0, 5000))
def test_the_preferred_number_is_in_the_range_and_always_the_same(customer, first, span):
    host = Host(port_first=first, port_last=first + span)
    assert first <= ports.preferred(host, customer) <= first + span
    assert ports.preferred(host, customer) == ports.preferred(host, customer)


def test_the_preferred_number_does_not_depend_on_the_process():
    host = Host(port_first=9000, port_last=9999)
    assert [ports.preferred(host, customer) for customer in (1, 2, 3)] == [9910, 9100, 9561]


def test_the_preferred_number_is_given_if_it_is_free():
    host = HostFactory.create()
    row = waiting()
    assert ports.reserve(host, row) == ports.preferred(host, row.customer_id) == row.port_number


def test_a_taken_one_gives_the_next_and_the_last_wraps_round_to_the_first():
    host = HostFactory.create(port_first=9000, port_last=9002)
    customer = UserFactory.create()
    start = ports.preferred(host, customer.pk)
    given_ = [ports.reserve(host, waiting(customer)) for _ in range(3)]
    assert given_ == [9000 + (start - 9000 + step) % 3 for step in range(3)]


def test_a_released_port_is_free_again_and_releasing_twice_gives_back_once():
    host = HostFactory.create()
    row = waiting()
    row.host = host
    number = ports.reserve(host, row)
    assert ports.release(row)
    assert not ports.release(row)
    assert Host.objects.get(pk=host.pk).taken == 0
    assert Port.objects.get(host=host, number=number).instance is None


def test_a_quarantined_port_is_given_to_nobody():
    host = HostFactory.create(port_first=9000, port_last=9000)
    Port.objects.update(quarantined_at=host.surveyed_at)
    with pytest.raises(errors.NoFreePort):
        ports.reserve(host, waiting())


def test_a_narrowed_range_keeps_the_numbers_in_use():
    host = HostFactory.create(port_first=9000, port_last=9009)
    row = waiting()
    used = ports.reserve(host, row)
    host.port_first, host.port_last = 9100, 9109
    host.save()
    assert ports.provide(host) == 10
    assert set(host.ports.values_list("number", flat=True)) == {used, *range(9100, 9110)}


def test_reserving_takes_two_statements(django_assert_num_queries):
    host = HostFactory.create()
    row = waiting()
    with django_assert_num_queries(4):  # savepoint, slot, port, release
        ports.reserve(host, row)
