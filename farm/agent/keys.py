"""The two keys of a host: one signs what it says, the other opens what is sealed to it. They live in one file, 0600."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from farm.agent.protocol import Malformed, b64, unb64


class BadKeys(Exception):
    """The key file is absent, readable by others, or not one of ours."""


@dataclass(frozen=True)
class HostKeys:
    """The secret keys of this host; none of them stands in a repr."""

    sign: SigningKey = field(repr=False)
    seal: PrivateKey = field(repr=False)
    previous_seal: PrivateKey | None = field(default=None, repr=False)
    """Still opens what was sealed before the last change of keys: stored orders are kept as they came."""

    @property
    def unsealing(self) -> tuple[PrivateKey, ...]:
        return (self.seal, self.previous_seal) if self.previous_seal else (self.seal,)


def generate(path: Path, *, rotate: bool = False) -> HostKeys:
    """Make keys and write them to ``path``, readable by this user only.

    Keys that stand there are never overwritten: :class:`BadKeys`, unless ``rotate``, which makes a new sealing key,
    keeps the signing key, and keeps the old sealing key as the previous one.
    """
    keys = HostKeys(SigningKey.generate(), PrivateKey.generate())
    if rotate:
        old = load(path)
        keys = HostKeys(old.sign, keys.seal, old.seal)
    elif path.exists():
        raise BadKeys(f"{path} stands already; its keys are pinned by the portal and are not overwritten.")
    _write(path, keys)
    return keys


def _write(path: Path, keys: HostKeys) -> None:
    data = {"sign": b64(bytes(keys.sign)), "seal": b64(bytes(keys.seal))}
    if keys.previous_seal:
        data["previous_seal"] = b64(bytes(keys.previous_seal))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: Path) -> HostKeys:
    """Read the keys; raise :class:`BadKeys` with what is wrong, never with what stands in the file."""
    try:
        if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadKeys(f"{path} can be read by others; it must have mode 0600.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadKeys(f"The key file {path} cannot be read: {error.strerror}.") from error
    except ValueError:
        raise BadKeys(f"{path} is not a key file.") from None
    return _keys(data, path)


def _keys(data: Any, path: Path) -> HostKeys:
    try:
        previous = data.get("previous_seal")
        return HostKeys(
            SigningKey(unb64(data["sign"])),
            PrivateKey(unb64(data["seal"])),
            PrivateKey(unb64(previous)) if previous else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError, Malformed):
        # The cause is left out: it could quote the file.
        raise BadKeys(f"{path} is not a key file.") from None


def public(keys: HostKeys) -> dict[str, str]:
    """Return what the portal pins: the two public keys and a fingerprint to compare over another channel."""
    verify, seal = bytes(keys.sign.verify_key), bytes(keys.seal.public_key)
    return {"verify": b64(verify), "seal": b64(seal), "fingerprint": hashlib.sha256(verify + seal).hexdigest()}
