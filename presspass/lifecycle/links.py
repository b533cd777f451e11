"""Sign-in links: asked for, written by a worker, looked at, and used once.

Staff are never let in by a link: a mailbox would then be worth the whole farm. They log in with their password.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlencode

import sesame.utils
from django.conf import settings
from django.db import transaction
from django.urls import reverse
from sesame.backends import ModelBackend

from farm import clock, doorbell
from presspass.errors import BadLink
from presspass.models import Notice, User, mailbox_mark

SCOPE = "login"
SEND_NOTICES = "presspass.send_notices"


def known_customer(email: str) -> User | None:
    """Who has this address, or another spelling of the same mailbox."""
    known = User.objects.filter(email=email).first()
    return known or User.objects.filter(mailbox=mailbox_mark(email)).first()


def ask(customer: User) -> bool:
    """Have a sign-in link mailed; False if this account is never let in by one."""
    if not _may_use_links(customer):
        return False
    with transaction.atomic():
        Notice.objects.create(customer=customer, kind=Notice.Kind.SIGN_IN_LINK)
        doorbell.ring_on_commit(SEND_NOTICES)
    return True


def url(customer: User) -> str:
    """A fresh link. Its token is as good as a password for a while: write it into the mail and nowhere else."""
    token = sesame.utils.get_token(customer, scope=SCOPE)
    return f"{settings.SITE_URL.rstrip('/')}{reverse('presspass:link')}?{urlencode({'token': token})}"


def look_at(token: str) -> User:
    """Whose link this is, without using it up: mail scanners open links too. Raise :class:`BadLink`."""
    # Asked directly, not through authenticate(): that would hand a token that fails to every listener of its signal.
    customer = ModelBackend().authenticate(None, sesame=token, scope=SCOPE, max_age=settings.LINK_SECONDS)
    if not isinstance(customer, User) or not _may_use_links(customer):
        raise BadLink
    return customer


def use(token: str) -> User:
    """Use the link up and return whom it signs in. Raise :class:`BadLink`, also for all but one of several at once.

    The token hangs on ``last_login``; whoever moves that first has used it. On the first use the address is confirmed,
    and every session from before ends: whoever typed somebody else's address is out.
    """
    customer = look_at(token)
    now = clock.now()
    last = customer.last_login
    used_at = max(now, last + timedelta(microseconds=1)) if last else now
    with transaction.atomic():
        as_read = User.objects.filter(
            pk=customer.pk, last_login=last, email=customer.email, password=customer.password, is_active=True
        )
        if as_read.update(last_login=used_at) != 1:
            raise BadLink
        customer.last_login = used_at
        if not customer.verified:
            customer.email_verified_at = now
            customer.set_unusable_password()  # a new random value, which every session is bound to
            customer.save(update_fields=["email_verified_at", "password"])
    return customer


def _may_use_links(customer: User) -> bool:
    return customer.is_active and customer.leaving_at is None and not customer.is_staff and not customer.is_superuser
