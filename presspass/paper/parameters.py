"""What a request may say: form parameters read as strictly as Stripe reads them, and the refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Json = dict[str, Any]
HALF_HOUR, DAY = 1800, 86400


class Refusal(Exception):
    """An answer that is an error, in Stripe's shape. ``executed``: work had begun, so an idempotency key keeps it."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400,
        kind: str = "invalid_request_error", executed: bool = False, more: Json | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        said = {"code": code, "message": message, "param": param, "type": kind} | (more or {})
        self.body: Json = {"error": {name: value for name, value in said.items() if value is not None}}
        self.status, self.executed = status, executed


def no_such(kind: str, wanted: str, *, param: str = "id") -> Refusal:
    # Named in the path it is a 404, named by a parameter a 400.
    name = kind if kind == "payment_intent" else kind.replace("_", " ")
    status = 404 if param == "id" else 400
    return Refusal(f"No such {name}: '{wanted}'", param=param, code="resource_missing", status=status)


def nested(pairs: Iterable[tuple[str, str]]) -> Json:
    """``a[b][0]=c`` as dictionaries; a list is a dictionary of its indices until it is read as a list."""
    root: Json = {}
    for name, value in pairs:
        *way, last = name.replace("]", "").split("[")
        here = root
        for part in way:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise Refusal(f"Invalid parameter: {name}", param=name)
        here[last or str(len(here))] = value
    return root


class Reader(Protocol):
    def read(self, raw: Any, name: str) -> Any:
        """The value, or a Refusal that names the parameter."""


@dataclass(frozen=True)
class Text:
    most: int = 5000
    pattern: str = ""
    code: str = "parameter_invalid_string"

    def read(self, raw: Any, name: str) -> str:
        if not isinstance(raw, str):
            raise Refusal("Invalid string", param=name, code="parameter_invalid_string")
        if not raw:
            said = (
                f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset a parameter"
            )
            raise Refusal(f"{said}; however '{name}' cannot be unset.", param=name, code="parameter_invalid_empty")
        if len(raw) > self.most:
            raise Refusal(f"Invalid string: must be at most {self.most} characters", param=name)
        if self.pattern and not re.fullmatch(self.pattern, raw):
            said = "Not a valid URL" if self.code == "url_invalid" else f"Invalid email address: {raw}"
            raise Refusal(said, param=name, code=self.code)
        return raw


@dataclass(frozen=True)
class Number:
    least: int = 0
    most: int = 99_999_999_999

    def read(self, raw: Any, name: str) -> int:
        if not isinstance(raw, str) or not re.fullmatch(r"-?\d{1,15}", raw):
            raise Refusal(f"Invalid integer: {raw}", param=name, code="parameter_invalid_integer")
        if not self.least <= int(raw) <= self.most:
            bound = f"greater than or equal to {self.least}" if int(raw) < self.least else f"at most {self.most}"
            raise Refusal(f"This value must be {bound}.", param=name, code="parameter_invalid_integer")
        return int(raw)


@dataclass(frozen=True)
class Flag:
    def read(self, raw: Any, name: str) -> bool:
        if raw not in ("true", "false"):
            raise Refusal(f"Invalid boolean: {raw}", param=name)
        return bool(raw == "true")


@dataclass(frozen=True)
class Choice:
    words: tuple[str, ...]

    def read(self, raw: Any, name: str) -> str:
        if raw not in self.words:
            raise Refusal(f"Invalid {name}: must be one of {', '.join(self.words)}", param=name)
        return str(raw)


@dataclass(frozen=True)
class Each:
    of: Reader

    def read(self, raw: Any, name: str) -> list[Any]:
        if not isinstance(raw, dict) or not all(index.isdigit() for index in raw):
            raise Refusal("Invalid array", param=name)
        return [self.of.read(raw[index], f"{name}[{index}]") for index in sorted(raw, key=int)]


@dataclass(frozen=True)
class Hash:
    fields: Mapping[str, Reader]
    needs: tuple[str, ...] = ()

    def read(self, raw: Any, name: str) -> Json:
        if not isinstance(raw, dict):
            raise Refusal("Invalid object", param=name)
        for key in raw:
            if key not in self.fields:
                full = f"{name}[{key}]" if name else key
                raise Refusal(f"Received unknown parameter: {full}", param=full, code="parameter_unknown")
        for key in self.needs:
            if key not in raw:
                full = f"{name}[{key}]" if name else key
                raise Refusal(f"Missing required param: {full}.", param=full, code="parameter_missing")
        return {key: self.fields[key].read(value, f"{name}[{key}]" if name else key) for key, value in raw.items()}


@dataclass(frozen=True)
class Metadata:
    def read(self, raw: Any, name: str) -> dict[str, str]:
        if raw == "":
            return {}
        if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
            raise Refusal("Invalid object", param=name)
        if len(raw) > 50 or any(len(key) > 40 or len(value) > 500 for key, value in raw.items()):
            raise Refusal("Metadata holds at most 50 keys of 40 characters, with values of at most 500.", param=name)
        return raw


@dataclass(frozen=True)
class Moment:
    """A filter on time: a number, or bounds."""

    bounds = Hash({"gt": Number(), "gte": Number(), "lt": Number(), "lte": Number()})

    def read(self, raw: Any, name: str) -> Json:
        return (
            self.bounds.read(raw, name) if isinstance(raw, dict) else {"gte": Number().read(raw, name), "lte": int(raw)}
        )


TEXT, FLAG, META = Text(), Flag(), Metadata()


URL = Text(pattern=r"https?://[^\s/]+(/\S*)?", code="url_invalid")
EMAIL = Text(most=512, pattern=r"[^@\s]+@[^@\s]+\.[^@\s]+", code="email_invalid")


CURRENCY = Choice(("usd", "eur", "gbp", "chf"))
AMOUNT, QUANTITY = Number(0, 99_999_999), Number(1, 999_999)


RECURRING = Hash(
    {"interval": Choice(("day", "week", "month", "year")), "interval_count": Number(1, 36)}, needs=("interval",)
)


PRODUCT_DATA: dict[str, Reader] = {"name": TEXT, "description": TEXT, "metadata": META}
PRICE_DATA: dict[str, Reader] = {
    "currency": CURRENCY, "unit_amount": AMOUNT, "recurring": RECURRING, "product": TEXT,
    "product_data": Hash(PRODUCT_DATA, needs=("name",)),
}  # fmt: skip
