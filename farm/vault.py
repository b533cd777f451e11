"""Broker accounts at rest: encryption, and the demo accounts that a Press Pass is given.

The keys are in the portal worker's environment alone. Everything else may store and count accounts, never read one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils.crypto import salted_hmac
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from farm import clock, errors
from farm.agent import protocol
from farm.models import BrokerAccount, Instance, Orphan, RefusedLogin, Seat
from farm.states import Refusal

_SEALED = "sealed:"

_TAKE = """UPDATE farm_seat SET instance_id = %s
    WHERE id = (
        SELECT seat.id FROM farm_seat seat JOIN farm_brokeraccount account ON account.id = seat.vault_account_id
        WHERE seat.instance_id IS NULL AND seat.vault_account_id IS NOT NULL AND account.retired_at IS NULL
            AND (account.expires_at IS NULL OR account.expires_at > %s)
            AND (seat.rested_until IS NULL OR seat.rested_until <= %s)
            AND NOT EXISTS (SELECT 1 FROM farm_orphan orphan WHERE orphan.gone_at IS NULL
                AND orphan.server_key = seat.server_key AND orphan.login = seat.login)
        ORDER BY seat.id LIMIT 1 {lock})
    AND instance_id IS NULL
    RETURNING vault_account_id"""


def _fernet() -> MultiFernet:
    if not settings.FIELD_KEYS:
        raise errors.KeysMissing("FIELD_KEYS is not set: only the portal worker can read or write broker passwords.")
    return MultiFernet([Fernet(key) for key in settings.FIELD_KEYS])


def encrypted(password: str) -> str:
    """Raise :class:`errors.KeysMissing` in a process without the field keys."""
    return _fernet().encrypt(password.encode()).decode("ascii")


def sealed(password: str) -> str:
    """Close a password in a process that may store one but never read it: to the portal worker's public key."""
    if not settings.INTAKE_KEY:
        raise errors.KeysMissing("INTAKE_KEY is not set: passwords cannot be taken in.")
    return _SEALED + protocol.b64(SealedBox(PublicKey(protocol.unb64(settings.INTAKE_KEY))).encrypt(password.encode()))


def password_of(account: BrokerAccount) -> str:
    """The password in clear. Raise :class:`errors.KeysMissing` if no key of ours opens it."""
    if account.password.startswith(_SEALED):
        return _unsealed(account)
    try:
        return _fernet().decrypt(account.password).decode()
    except InvalidToken:
        raise errors.KeysMissing(f"No key in FIELD_KEYS opens the password of account {account.pk}.") from None


def _unsealed(account: BrokerAccount) -> str:
    raw = protocol.unb64(account.password.removeprefix(_SEALED))
    for key in settings.INTAKE_SECRET_KEYS:
        try:
            return SealedBox(PrivateKey(protocol.unb64(key))).decrypt(raw).decode()
        except CryptoError:
            continue
    raise errors.KeysMissing(f"No key in INTAKE_SECRET_KEYS opens the password of account {account.pk}.")


def replace(account: BrokerAccount, password: str) -> None:
    """Store another password for the account, closed to the portal worker; it counts from the next injection on."""
    changes = {"password": sealed(password), "fingerprint": fingerprint(account.server, account.login, password)}
    BrokerAccount.objects.filter(pk=account.pk).update(**changes)


def settle(account: BrokerAccount) -> str:
    """The password in clear; from now on it is stored under the newest field key, however it came in."""
    password = password_of(account)
    if account.password.startswith(_SEALED):
        BrokerAccount.objects.filter(pk=account.pk, password=account.password).update(password=encrypted(password))
    return password


def rotate() -> int:
    """Encrypt every stored password anew under the newest key, in batches; return how many there were."""
    done = 0
    for account in BrokerAccount.objects.order_by("pk").iterator(chunk_size=500):
        anew = encrypted(password_of(account))
        done += BrokerAccount.objects.filter(pk=account.pk, password=account.password).update(password=anew)
    return done


def fingerprint(server: str, login: int, password: str) -> str:
    """What stands for the three values where a refusal is remembered; keyed, so that it cannot be tried out."""
    text = json.dumps([server_key(server), login, password])
    return salted_hmac("farm.vault.fingerprint", text, algorithm="sha256").hexdigest()


def server_key(server: str) -> str:
    """A server's name as seats compare it."""
    return " ".join(server.casefold().split())


def take_seat(account: BrokerAccount, instance: Instance) -> bool:
    """Give ``instance`` the seat of ``account``; False if another instance has it. Having it already is success.

    An orphan that may run the account has it as well, as far as anybody knows.
    """
    seat, _ = Seat.objects.get_or_create(server_key=server_key(account.server), login=account.login)
    if seat.instance_id == instance.pk:
        return True
    if _orphan_may_run(seat.server_key, seat.login):
        return False
    return Seat.objects.filter(pk=seat.pk, instance__isnull=True).update(instance=instance) == 1


def is_haunted(instance: Instance) -> bool:
    """Whether something that no row accounts for may run the account of ``instance``."""
    if instance.account is None:
        return False
    return _orphan_may_run(server_key(instance.account.server), instance.account.login)


def _orphan_may_run(key: str, login: int) -> bool:
    orphans = Orphan.objects.filter(server_key=key, login=login, gone_at__isnull=True).select_related("host")
    return not all(orphan.is_fenced_off for orphan in orphans)


def seat_of(account: BrokerAccount) -> Seat | None:
    seats = Seat.objects.filter(server_key=server_key(account.server), login=account.login)
    return seats.select_related("instance").first()


def move_seat(old: Instance, new: Instance) -> bool:
    """Hand the seat of ``old`` to ``new``. Only when ``old``'s host reported its process gone, or was given up."""
    return Seat.objects.filter(instance=old).update(instance=new) == 1


def remember_refusal(account: BrokerAccount, refusal: Refusal) -> None:
    if account.fingerprint:
        RefusedLogin.objects.update_or_create(
            fingerprint=account.fingerprint,
            defaults={"server_key": server_key(account.server), "refusal": refusal, "at": clock.now()},
        )


def was_refused(account_fingerprint: str) -> bool:
    return RefusedLogin.objects.filter(fingerprint=account_fingerprint).exists()


def is_paused(server: str) -> bool:
    """Whether a broker refused so many of ours lately that it is left alone for a while."""
    since = clock.now() - timedelta(seconds=settings.BROKER_PAUSE_SECONDS)
    lately = RefusedLogin.objects.filter(server_key=server_key(server), at__gte=since)
    return lately.count() >= settings.BROKER_PAUSE_REFUSALS


@transaction.atomic
def put(accounts: Iterable[tuple[str, int, str, datetime | None]]) -> int:
    """Add demo accounts (server, login, password, expires at) to the vault; known ones are left as they are."""
    added = 0
    for server, login, password, expires_at in accounts:
        account, new = BrokerAccount.objects.get_or_create(
            server=server,
            login=login,
            owner=None,
            defaults={"password": encrypted(password), "expires_at": expires_at},
        )
        if new:
            Seat.objects.update_or_create(
                server_key=server_key(server), login=login, defaults={"vault_account": account}
            )
            added += 1
    return added


def take_demo(instance: Instance, *, now: datetime) -> BrokerAccount:
    """Give ``instance`` a free demo account and its seat, or raise :class:`errors.NoFreeAccount`."""
    lock = "FOR UPDATE OF seat SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
    with connection.cursor() as cursor:
        cursor.execute(_TAKE.format(lock=lock), [instance.pk, now, now])
        row = cursor.fetchone()
    if row is None:
        raise errors.NoFreeAccount
    return BrokerAccount.objects.get(pk=row[0])


def leave(instance: Instance) -> None:
    """Give the seat back. Only for an instance that its host reported gone, or that never ran.

    A demo account that a terminal may have used rests for a while before it is given to the next.
    """
    mine = Seat.objects.filter(instance=instance)
    if instance.generation:
        until = clock.now() + timedelta(hours=settings.REST_HOURS)
        mine.filter(vault_account__isnull=False).update(rested_until=until)
    mine.update(instance=None)


def free_demos() -> QuerySet[Seat]:
    """The seats of demo accounts that a terminal may be given now."""
    now = clock.now()
    return Seat.objects.filter(
        Q(rested_until__isnull=True) | Q(rested_until__lte=now),
        Q(vault_account__expires_at__isnull=True) | Q(vault_account__expires_at__gt=now),
        instance__isnull=True,
        vault_account__isnull=False,
        vault_account__retired_at__isnull=True,
    )


def forget(instance: Instance) -> None:
    """Delete the credentials of an instance that is gone, unless another one runs on them or they are the vault's."""
    account = instance.account
    if account is None or account.owner_id is None:
        return
    Instance.objects.filter(pk=instance.pk).update(account=None)
    instance.account = None
    if not account.instances.exists():
        account.delete()
