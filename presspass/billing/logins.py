"""A broker login that a customer hands in: may it be tried, and where it is kept until it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db.models import Q

from farm import vault
from farm.models import BrokerAccount, Host, Instance, Seat
from farm.states import Goal, Kind
from presspass.models import Attempt, User


@dataclass(frozen=True)
class Login:
    server: str
    login: int
    password: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        return vault.fingerprint(self.server, self.login, self.password)


def servers() -> list[str]:
    """Broker servers that our terminals know, by name."""
    names: dict[str, str] = {}
    for offered in Host.objects.filter(state=Host.State.ONLINE).values_list("servers", flat=True):
        for name in offered if isinstance(offered, list) else []:
            if isinstance(name, str):
                names.setdefault(vault.server_key(name), name)
    return sorted(names.values(), key=str.casefold)


def as_offered(server: str) -> str:
    """The server's name as our terminals spell it, if it is one of theirs: they compare letter by letter."""
    wanted = vault.server_key(server)
    return next((name for name in servers() if vault.server_key(name) == wanted), server)


def is_somebody_elses(login: Login, customer: User) -> bool:
    """Whether another customer's terminal, or a demo account of ours, has this account's seat."""
    seats = Seat.objects.filter(server_key=vault.server_key(login.server), login=login.login)
    others = Q(instance__isnull=False) & ~Q(instance__customer_id=customer.pk)
    return seats.filter(others | Q(vault_account__isnull=False)).exists()


def was_refused(login: Login) -> bool:
    """Whether a broker has said no to just these three values."""
    return vault.was_refused(login.fingerprint)


def runs_already(login: Login, customer: User) -> bool:
    """Whether the customer's live terminal runs on just these three values."""
    mine = Instance.objects.filter(customer_id=customer.pk, kind=Kind.LIVE, goal=Goal.RUNNING)
    return mine.filter(account__fingerprint=login.fingerprint).exists()


def kept(login: Login, customer: User) -> BrokerAccount:
    """Store it, closed to the portal worker's key: this process cannot open it again."""
    return BrokerAccount.objects.create(
        owner=customer,
        server=login.server,
        login=login.login,
        password=vault.sealed(login.password),
        fingerprint=login.fingerprint,
    )


def note(row: Instance, login: Login) -> Attempt:
    return Attempt.objects.create(instance=row, server=login.server, login=login.login)


def replaced_by_next(customer: User) -> Instance | None:
    """What the customer's next live terminal takes the place of: the proven live one, else the demo."""
    mine = Instance.objects.filter(customer_id=customer.pk).exclude(goal=Goal.DESTROYED).order_by("-pk")
    return mine.filter(kind=Kind.LIVE, proven_at__isnull=False).first() or mine.filter(kind=Kind.PRESS_PASS).first()


def attempt_under_way(customer: User) -> Instance | None:
    """A live terminal that is on its way, and not yet proven or refused.

    One that was refused and is on its way out keeps nobody from the next try: that waits for the seat by itself.
    """
    mine = Instance.objects.filter(customer_id=customer.pk, kind=Kind.LIVE, proven_at__isnull=True)
    return mine.exclude(goal=Goal.DESTROYED).select_related("host", "port", "account").order_by("-pk").first()


def working(customer: User) -> Instance | None:
    """The live terminal that was proven and is not on its way out."""
    mine = Instance.objects.filter(customer_id=customer.pk, kind=Kind.LIVE, proven_at__isnull=False)
    return mine.exclude(goal=Goal.DESTROYED).select_related("host", "port", "account").order_by("-pk").first()
