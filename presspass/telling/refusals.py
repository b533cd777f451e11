"""When a broker says no to a customer's own login: which of the reasons it was, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from farm.states import Refusal

_SAID: Mapping[Refusal, str] = MappingProxyType(
    {
        Refusal.CREDENTIALS: "{server} refused the login: wrong login or password",
        Refusal.INVESTOR: "{server} let it in with the investor password: it can watch, not trade",
        Refusal.TRADING_DISABLED: "{server} let it in, but trading is switched off for this account",
        Refusal.SERVER_UNKNOWN: "Our terminals do not know the server {server}",
        Refusal.SERVER_UNREACHABLE: "{server} can't be reached from our machines",
        Refusal.NO_ANSWER: "{server} gave no answer in time",
        Refusal.SEAT_TAKEN: "That account cannot be connected now",
    }
)
_DO: Mapping[Refusal, str] = MappingProxyType(
    {
        Refusal.CREDENTIALS: "Check login, password and the exact name of the server in your broker's mail. Some "
        "brokers say the same of a demo account that has expired.",
        Refusal.INVESTOR: "Use the main password, the one that may trade.",
        Refusal.TRADING_DISABLED: "Ask your broker to switch trading on, then try again.",
        Refusal.SERVER_UNKNOWN: "Pick the server from the list, or copy its name letter by letter from your broker's "
        "mail.",
        Refusal.SERVER_UNREACHABLE: "Try again in a while; the broker may be closed for maintenance.",
        Refusal.NO_ANSWER: "Try again in a while. If it stays so, check the name of the server.",
    }
)


def said_of(refusal: Refusal, *, server: str) -> str:
    return _SAID.get(refusal, "{server} refused the login").format(server=server)


def to_do(refusal: Refusal, *, support: str) -> str:
    return _DO.get(refusal, f"Write to {support}, and we look at it together.")
