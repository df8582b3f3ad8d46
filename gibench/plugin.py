"""What attacks, defenses, datasets and models share: settings as validated, typed, frozen fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from gibench.errors import PluginError, UsageError
from gibench.text import RENAME, one_line, shortened, type_of

_LONGEST_SHOWN = 200  # characters of a value that is refused
_CONTAINERS = (list, tuple, dict, set, frozenset)  # are written as JSON
_NO_CONTAINER = {"list_type", "tuple_type", "dict_type", "set_type", "frozen_set_type"}  # pydantic's words for refusals


class Plugin(BaseModel):
    """A class whose fields are its settings: each with a type, a default and a description.

    The name a plugin is selected by is that of its entry point. Settings reach it as text and are validated here.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    # Settings that were added once rows were stored: where they have their defaults no spec names them, so that stored
    # ones stay what they were.
    later: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, settings: Any) -> Any:
        """`key=none` is how a spec writes None, where the field's default allows it, and JSON what holds several."""
        if not isinstance(settings, Mapping):
            return settings
        return {key: _read(value, cls.model_fields.get(key)) for key, value in settings.items()}

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """Build from a spec's settings.

        Raises:
            UsageError: an unknown key (the message says which exist) or a value out of range.
        """
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            raise UsageError("; ".join(cls._explain(name, detail) for detail in error.errors())) from None
        except Exception as error:  # of a check of the plugin's own that pydantic lets through
            raise UsageError(f"{name}: its settings are refused: {one_line(error) or type(error).__name__}") from error

    @classmethod
    def _explain(cls, name: str, detail: Any) -> str:
        key = ".".join(str(part) for part in detail["loc"])
        given = shortened(repr(detail["input"]), _LONGEST_SHOWN)
        if detail["type"] == "extra_forbidden":
            return f"{name} has no setting '{key}': it has {', '.join(sorted(cls.model_fields)) or 'none'}"
        if detail["type"] == "string_unicode":
            return f"{name}: {key}={given} holds bytes that are no UTF-8: {RENAME}"
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "string_type" and isinstance(detail["input"], int | float):
            message = "it is read as a number: put it in quotes"
        if detail["type"] in _NO_CONTAINER:
            message += """; write it as JSON in quotes, as in key='[1, 2]'"""
        if detail["type"] == "missing":
            return f"{name} needs {key}=...: it has no default"
        return f"{name}: {key}={given} is refused: {message}" if key else f"{name}: {message}"

    @classmethod
    def renamed(cls, settings: Mapping[str, str]) -> Mapping[str, str]:
        """The settings of a stored spec as they are called now; a plugin whose settings were renamed says how."""
        return settings

    @classmethod
    def fault(cls) -> str | None:
        """What of the class keeps it from being used though it can be imported, in words after its name, or None."""
        contract = [base for base in cls.__mro__ if base.__module__.partition(".")[0] == "gibench"]
        taken = [name for name in cls.model_fields if any(name in vars(base) for base in contract)]
        return f"has a setting '{taken[0]}', which is the name of a part of its contract: rename it" if taken else None

    def settings(self) -> dict[str, str]:
        """Every setting, defaults included but for those of `later`, as the text that a canonical spec holds."""
        held = {key: getattr(self, key) for key in type(self).model_fields}
        unsaid = {key for key in self.later if held[key] == type(self).model_fields[key].default}
        return {key: format_value(value) for key, value in held.items() if key not in unsaid}

    def check_settings(self, name: str) -> None:
        """Find out whether a spec can hold the settings, which is how they reach other processes.

        Raises:
            PluginError: what is read back is not the same.
        """
        try:
            again = type(self).from_settings(name, texts := self.settings())
            lost = [key for key in texts if getattr(again, key) != getattr(self, key)]
            cause = f"{', '.join(lost)} is not the same once it is read back from its text"
        except Exception as error:  # of types that gibench does not know
            cause = one_line(error).removeprefix(f"{name}: ")
            lost = ["it"]
        if lost:
            raise PluginError(
                f"{name} has a setting that no spec can hold ({cause}): let it be bool, int, float, str, Path, "
                "Literal, Enum, or a list or dict of these"
            )

    def files(self) -> Iterable[Path]:
        """Files and folders whose contents decide what this does, as weights do; they are part of a cell's key.

        Those that settings of the type `Path` name. A plugin that names files in other settings gives these.
        """
        return [value for key in type(self).model_fields if isinstance(value := getattr(self, key), Path)]


def reason_of(plugin: Any, said: Any) -> str | None:
    """What `supports` of a plugin said.

    Raises:
        PluginError: neither None nor a text.
    """
    if said is None or isinstance(said, str):
        return said
    shown = repr(said) if isinstance(said, bool | int | float) else type_of(said)
    raise PluginError(
        f"`supports` of {type(plugin).__name__} gave {shown}, where None (it can) or a text (why it cannot) is due"
    )


def format_value(value: Any) -> str:
    """The text of one setting; the field's own type reads it back to the same value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, _CONTAINERS):
        plain = sorted(value) if isinstance(value, set | frozenset) else value
        return json.dumps(plain, default=format_value)
    return repr(value) if isinstance(value, float) else str(value)


def _read(value: Any, field: Any) -> Any:
    """What the text of a setting stands for, as far as its type does not read it; see `format_value`."""
    if field is None or not isinstance(value, str):
        return value
    if value == "none" and field.default is None:
        return None
    if value[:1] in ("[", "{") and _holds_several(field.annotation):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _holds_several(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    if kind in (Union, UnionType):
        return any(map(_holds_several, get_args(annotation)))
    return isinstance(kind, type) and issubclass(kind, _CONTAINERS)
