"""The spec grammar, one everywhere: `name`, `name:key=value,key=value`, and `+` between defenses.

A value that contains one of `, + : = '` or is empty or padded stands in single quotes; a quote inside is doubled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gibench.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEEDS_QUOTES = re.compile(r"[,+:='\"\n\r\t]|^\s|\s$|^$")


@dataclass(frozen=True)
class Spec:
    """A plugin's name with settings as text, sorted by key. `str(spec)` is the canonical form."""

    name: str
    settings: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, settings: Mapping[str, str] | None = None) -> Spec:
        return cls(name, tuple(sorted((settings or {}).items())))

    def __str__(self) -> str:
        if not self.settings:
            return self.name
        return self.name + ":" + ",".join(f"{key}={_quote(value)}" for key, value in self.settings)


def parse(text: str) -> Spec:
    """Read one spec.

    Raises:
        UsageError: the text does not follow the grammar.
    """
    name, *rest = _split(text, ":", limit=1)
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{text}' is no spec: it starts with a name, as in name:key=value,key=value")
    settings: dict[str, str] = {}
    for item in _split(rest[0], ",") if rest else ():
        key, *value = _split(item, "=", limit=1)
        key = key.strip()
        if not value or not _KEY.fullmatch(key):
            raise UsageError(
                f"'{item}' in '{text}' is no setting: write key=value, and quote values with , + : = in ' '"
            )
        if key in settings:
            raise UsageError(f"'{text}' sets {key} twice: keep one of them")
        settings[key] = _unquote(value[0].strip(), text)
    return Spec.of(name, settings)


def parse_chain(text: str) -> tuple[Spec, ...]:
    """Read specs joined by `+`, as defenses are composed."""
    return tuple(parse(part) for part in _split(text, "+"))


def format_chain(specs: Iterable[Spec]) -> str:
    """The canonical text of composed specs."""
    return "+".join(str(spec) for spec in specs)


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    """Split outside single quotes, at most `limit` times (-1: everywhere)."""
    parts: list[str] = []
    start, quoted = 0, False
    for position, character in enumerate(text):
        if character == "'":
            quoted = not quoted
        elif character == separator and not quoted and len(parts) != limit:
            parts.append(text[start:position])
            start = position + 1
    if quoted:
        raise UsageError(f"'{text}' has an unclosed single quote: close it, and double a quote inside a value")
    return [*parts, text[start:]]


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'" if _NEEDS_QUOTES.search(value) else value


def _unquote(value: str, text: str) -> str:
    if "'" not in value:
        if _NEEDS_QUOTES.search(value):
            raise UsageError(f"the value '{value}' in '{text}' needs single quotes around it")
        return value
    inner = value[1:-1]
    if len(value) < 2 or value[0] != "'" or value[-1] != "'" or "'" in inner.replace("''", ""):
        raise UsageError(
            f"the value {value} in '{text}' mixes quotes: quote the whole value, and double a quote inside it"
        )
    return inner.replace("''", "'")
