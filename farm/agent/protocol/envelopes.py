"""How each proves who said it, and how a password reaches the one host that may use it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey, VerifyKey

from farm.agent.protocol.messages import Message, Order
from farm.agent.protocol.names import Forged, Malformed, Unsealable, checked_name


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def unb64(text: str) -> bytes:
    """Raise :class:`Malformed` if ``text`` is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise Malformed("not base64") from error


class Envelope(TypedDict):
    """What is put on the broker: the text as it was signed, and the signature over its UTF-8 bytes."""

    body: str
    signature: str


def sign(message: Message, key: SigningKey) -> Envelope:
    body = message.body()
    return {"body": body, "signature": b64(key.sign(body.encode()).signature)}


def opened(envelope: Mapping[str, Any], keys: Iterable[VerifyKey]) -> str:
    """Return the signed text if one of ``keys`` signed it; else raise :class:`Forged` or :class:`Malformed`."""
    if not isinstance(envelope, Mapping):
        raise Malformed("not an envelope")
    body, signature = envelope.get("body"), envelope.get("signature")
    if not isinstance(body, str) or not isinstance(signature, str):
        raise Malformed("an envelope without body and signature")
    raw = unb64(signature)
    for key in keys:
        try:
            key.verify(body.encode(), raw)
        except (BadSignatureError, ValueError):
            continue
        return body
    raise Forged("no pinned key made this signature")


def claimed_host(envelope: Mapping[str, Any]) -> str:
    """Whom the *unverified* text names as its host: only good for looking up the keys to verify it with."""
    try:
        host = json.loads(envelope["body"])["host"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Malformed("no host is named") from error
    return checked_name(host)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A broker account's login, on its way to the one host and order that may use it."""

    host: str
    instance: int
    epoch: int
    generation: int
    server: str
    login: int
    password: str = field(repr=False)

    def seal(self, key: PublicKey) -> str:
        return b64(SealedBox(key).encrypt(json.dumps(asdict(self)).encode()))


def unseal(order: Order, keys: Iterable[PrivateKey]) -> Credentials:
    """Open ``order.sealed``; raise :class:`Unsealable` unless it was sealed for exactly this order.

    The comparison stops whoever lifts the sealed text of one order into another, for instance to start one customer's
    account in another customer's terminal.
    """
    raw = unb64(order.sealed)
    for key in keys:
        try:
            found = Credentials(**json.loads(SealedBox(key).decrypt(raw)))
        except CryptoError:
            continue
        except (ValueError, TypeError) as error:
            raise Unsealable("the sealed text is not credentials") from error
        theirs = (found.host, found.instance, found.epoch, found.generation, found.server, found.login)
        if theirs != (order.host, order.instance, order.epoch, order.generation, order.server, order.login):
            raise Unsealable("sealed for another order")
        return found
    raise Unsealable("not sealed to a key of this host")
