"""Reads YAML as people mean it: by the core schema of YAML 1.2, and nothing that is larger than it looks.

PyYAML reads YAML 1.1, in which `12:30:45` is a number, `010` is 8, `1e-4` is a text and `no` is false.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from gibench.errors import UsageError

LARGEST = 2**20  # bytes of a file
MOST_VALUES = 200_000  # with what aliases stand for written out
DEEPEST = 20  # levels

_TAG = "tag:yaml.org,2002:"
_SCALARS = {  # YAML 1.2.2, section 10.3.2; what looks like none of them is text
    "null": re.compile(r"(~|null|Null|NULL|)\Z"),
    "bool": re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    "float": re.compile(
        r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
    ),
}


def read(path: Path, what: str) -> Any:
    """What a YAML file holds, made of dictionaries, lists, text, numbers, truth values and None.

    Args:
        path: of the file.
        what: it is, in error messages.

    Raises:
        UsageError: it cannot be read, is no YAML, or holds more than anybody writes.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror or error}") from None
    return parsed(text, what)


def parsed(text: bytes, what: str) -> Any:
    """The same of what such a file holds."""
    try:
        if len(text) > LARGEST:
            raise UsageError(f"{what} is larger than {LARGEST >> 20} MB: is it the right file?")
        return yaml.load(text.decode("utf-8-sig"), _Loader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{what} is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:  # of the parser, at hundreds of levels
        raise UsageError(f"{what} is no YAML that can be used: {_too_deep()}") from None


class _Loader(yaml.SafeLoader):
    """Knows the core schema's tags, and merge keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        "<": [(f"{_TAG}merge", re.compile(r"<<\Z"))],
        None: [(_TAG + kind, looks) for kind, looks in _SCALARS.items()],
    }

    def get_single_node(self) -> Any:
        """The document, known to be no larger than what `_Size` allows."""
        node = super().get_single_node()
        if node is not None:
            _Size().of(node)
        return node

    def construct_core(self, node: Any) -> Any:
        """The value of a scalar by its tag, which stands there or was found by its looks."""
        text, kind = self.construct_scalar(node), node.tag.removeprefix(_TAG)
        if kind == "str":
            return text
        if not _SCALARS[kind].match(text):
            raise ConstructorError(None, None, f"'{text}' is no {kind}", node.start_mark)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "float":
            return float(re.sub(r"\.(?=[in])", "", text.lower()))
        try:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:  # Python's own limit
            raise ConstructorError(None, None, "a number has too many digits", node.start_mark) from None

    yaml_constructors = {  # noqa: RUF012
        **dict.fromkeys([_TAG + kind for kind in ("str", *_SCALARS)], construct_core),
        f"{_TAG}seq": yaml.SafeLoader.construct_yaml_seq,
        f"{_TAG}map": yaml.SafeLoader.construct_yaml_map,
        None: yaml.SafeLoader.construct_undefined,
    }


class _Size:
    """Refuses what is too much once aliases are written out, as few lines can stand for billions; and double keys."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._inside: set[int] = set()

    def of(self, node: yaml.Node, depth: int = 0) -> int:
        """How many values it is.

        Raises:
            ConstructorError: too many, too deep, an alias within what it stands for, or a key that stands twice, of
                which the last would silently win.
        """
        if isinstance(node, yaml.ScalarNode):
            return 1
        place = id(node)
        if place in self._inside:
            raise ConstructorError(None, None, "an alias lies within what it stands for", node.start_mark)
        if depth == DEEPEST:
            raise ConstructorError(None, None, _too_deep(), node.start_mark)
        if place not in self._known:
            self._inside.add(place)
            self._known[place] = 1 + sum(self.of(child, depth + 1) for child in _children(node))
            self._inside.remove(place)
        if self._known[place] > MOST_VALUES:
            message = f"it holds more than {MOST_VALUES} values, aliases written out: take fewer"
            raise ConstructorError(None, None, message, node.start_mark)
        return self._known[place]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return list(node.value)
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise ConstructorError(None, None, f"the key '{key.value}' stands twice", key.start_mark)
            seen.add(key.value)
    return [each for pair in node.value for each in pair]


def _too_deep() -> str:
    return f"it is nested deeper than {DEEPEST} levels: write it flat"
