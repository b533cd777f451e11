"""The secrets of one stack: made on the first run, kept in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from cryptography.fernet import Fernet
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from bitten_portal.stack.places import StackError
from farm.agent import protocol


@dataclass(frozen=True)
class Keys:
    secret_key: str = field(repr=False)
    order_signing_key: str = field(repr=False)
    field_key: str = field(repr=False)
    intake_secret_key: str = field(repr=False)
    broker_password: str = field(repr=False)
    stripe_key: str = field(repr=False)
    stripe_webhook_secret: str = field(repr=False)

    @classmethod
    def make(cls) -> Self:
        return cls(
            secret_key=secrets.token_urlsafe(64),
            order_signing_key=protocol.b64(bytes(SigningKey.generate())),
            field_key=Fernet.generate_key().decode("ascii"),
            intake_secret_key=protocol.b64(bytes(PrivateKey.generate())),
            broker_password=secrets.token_urlsafe(24),
            stripe_key=f"sk_test_paper_{secrets.token_hex(16)}",
            stripe_webhook_secret=f"whsec_{secrets.token_hex(16)}",
        )

    @classmethod
    def kept(cls, path: Path) -> Self:
        """Read them, and make and keep what is missing. A file that cannot be read is left: accounts hang on it."""
        stored = {}
        try:
            if path.exists():
                stored = json.loads(path.read_text("utf-8"))
            keys = cls(**{**asdict(cls.make()), **stored})
        except (OSError, ValueError, TypeError) as error:
            raise StackError(f"{path} is not a secrets file of ours; nothing was changed.") from error
        if asdict(keys) != stored:
            write_private(path, json.dumps(asdict(keys)))
        return keys

    @property
    def verify_key(self) -> str:
        """What hosts check our orders with."""
        return protocol.b64(bytes(SigningKey(protocol.unb64(self.order_signing_key)).verify_key))

    @property
    def intake_key(self) -> str:
        """What the web closes broker passwords to."""
        return protocol.b64(bytes(PrivateKey(protocol.unb64(self.intake_secret_key)).public_key))


def write_private(path: Path, text: str) -> None:
    """Write a whole file at once, readable by its owner only."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
