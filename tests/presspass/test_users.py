"""The e-mail is the login, whatever its case."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from presspass.addresses import BadAddress
from presspass.models import User

pytestmark = pytest.mark.django_db


def test_an_address_in_another_case_is_refused_as_taken():
    User.objects.create_user("ann@example.com")
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("ANN@Example.com")


def test_the_database_refuses_capitals_that_went_round_the_manager():
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.bulk_create([User(email="Ann@example.com", password="!")])


def test_a_bad_address_makes_no_user():
    with pytest.raises(BadAddress):
        User.objects.create_user("ann@example.com\nBcc: eve@example.com")
    assert not User.objects.exists()


def test_a_form_tells_a_bad_address_at_its_field():
    with pytest.raises(ValidationError) as refusal:
        User(email="nonsense", password="!").full_clean()
    assert "email" in refusal.value.message_dict


def test_a_customer_has_no_password_that_works():
    assert not User.objects.create_user("ann@example.com").has_usable_password()


def test_staff_log_in_with_whatever_case_they_type():
    made = User.objects.create_superuser("Boss@Example.com", "a long password")
    assert made.email == "boss@example.com"
    assert User.objects.get_by_natural_key(" BOSS@example.com") == made
