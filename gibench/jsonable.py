"""Any value as strict JSON of bounded size. Whatever other people's code made the value of, nothing raises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from gibench.text import LONGEST, text_of

DEEPEST = 20  # levels of lists and mappings
MOST_VALUES = 20_000  # in all
MOST_KEYS = 1_000  # in all: a diagnostic that is a number is a metric, which costs more
MOST_CHARACTERS = 1_000_000  # in all
LEFT_OUT = "..."  # how the word begins that stands in place of what was left out, and its key in a mapping
_LONGEST_KEY = 200  # characters
_FLAT = json.JSONEncoder(separators=(",\n    ", ": "), allow_nan=False)  # with `indent` it is Python that encodes
_LARGEST = 2**63  # whole numbers from here on are few readers'


def jsonable(value: Any) -> Any:
    """The value made of JSON's own types, its text UTF-8; a mapping stays one.

    NaN and infinity become null, whole numbers beyond 64 bits floats, tensors and arrays lists, the rest text. What is
    too deep, too much, circular or cannot be read is left out, with a word in its place.
    """
    return _Conversion().of(value, ())


def array_of(objects: Iterable[Mapping[str, Any]]) -> str:
    """A JSON array of flat objects, a line a value: what `json.dumps` gives with `indent=2`, in a tenth of its time.

    Raises:
        ValueError: a value is NaN or infinity.
    """
    bodies = (_FLAT.encode(each)[1:-1] for each in objects)
    text = ",\n  ".join(f"{{\n    {body}\n  }}" if body else "{}" for body in bodies)
    return f"[\n  {text}\n]" if text else "[]"


class _Conversion:
    """How much may still be taken of one value."""

    def __init__(self) -> None:
        self._values, self._keys, self._characters = MOST_VALUES, MOST_KEYS, MOST_CHARACTERS

    def of(self, value: Any, above: tuple[int, ...]) -> Any:
        """The value; `above` is what it lies in, by identity."""
        self._values -= 1
        try:
            return self._plain(value, above)
        except (Exception, SystemExit):  # what a plugin's object raises is no reason to lose its row
            return self._text(value)

    def _plain(self, value: Any, above: tuple[int, ...]) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return _number(value)
        if isinstance(value, Mapping | list | tuple | Set):
            return self._container(value, above)
        if not hasattr(value, "tolist"):
            return self._text(value)
        shape = getattr(value, "shape", ())  # numpy and torch, scalars included
        if math.prod(shape) > MOST_VALUES:
            return f"{LEFT_OUT} {type(value).__name__} of shape {list(shape)}"
        return self.of(value.tolist(), above)

    def _container(self, value: Any, above: tuple[int, ...]) -> Any:
        if id(value) in above:
            return f"{LEFT_OUT} circular"
        if len(above) == DEEPEST:
            return f"{LEFT_OUT} deeper than {DEEPEST} levels"
        inside = (*above, id(value))
        return self._mapping(value, inside) if isinstance(value, Mapping) else self._list(value, inside)

    def _mapping(self, value: Mapping[Any, Any], inside: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for pair, problem in self._read(_pairs(value)):
            if problem or self._keys <= 0:
                found[LEFT_OUT] = problem or "more keys"
                break
            self._keys -= 1
            found[text_of(pair[0], _LONGEST_KEY)] = self.of(pair[1], inside)
        return found

    def _list(self, value: Iterable[Any], inside: tuple[int, ...]) -> list[Any]:
        items = self._read(value)
        return [f"{LEFT_OUT} {problem}" if problem else self.of(item, inside) for item, problem in items]

    def _read(self, items: Iterable[Any]) -> Iterator[tuple[Any, str]]:
        """The items, each beside an empty word; then, if there are more, why they were left out."""
        try:
            for item in items:
                if self._values <= 0:
                    yield None, "more values"
                    return
                yield item, ""
        except (Exception, SystemExit) as error:
            yield None, f"cannot be read ({type(error).__name__})"

    def _text(self, value: Any) -> str:
        text = text_of(value, min(LONGEST, self._characters))
        self._characters = max(0, self._characters - len(text))
        return text


def _pairs(value: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    for key in value:
        yield key, value[key]


def _number(value: float) -> float | None:
    if isinstance(value, int) and -_LARGEST <= value < _LARGEST:
        return int(value)
    try:
        found = float(value)
    except OverflowError:  # of a whole number
        return None
    return found if math.isfinite(found) else None
