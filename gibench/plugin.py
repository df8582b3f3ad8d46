"""What attacks, defenses, datasets and models share: settings as validated, typed, frozen fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from gibench.errors import UsageError
from gibench.text import RENAME, one_line, shortened

_LONGEST_SHOWN = 200  # characters of a value that is refused


class Plugin(BaseModel):
    """A class whose fields are its settings: each with a type, a default and a description.

    The name a plugin is selected by is that of its entry point. Settings reach it as text and are validated here.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _none_from_text(cls, settings: Any) -> Any:
        """`key=none` is how a spec writes None, where the field's default allows it."""
        if not isinstance(settings, Mapping):
            return settings
        optional = {key for key, field in cls.model_fields.items() if field.default is None}
        return {key: None if value == "none" and key in optional else value for key, value in settings.items()}

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
        return f"{name}: {key}={given} is refused: {message}" if key else f"{name}: {message}"

    def settings(self) -> dict[str, str]:
        """Every setting, defaults included, as the text that a canonical spec holds."""
        return {key: format_value(getattr(self, key)) for key in type(self).model_fields}

    def files(self) -> Iterable[Path]:
        """Files and folders whose contents decide what this does, as weights do; they are part of a cell's key.

        Those that settings of the type `Path` name. A plugin that names files in other settings gives these.
        """
        return [value for key in type(self).model_fields if isinstance(value := getattr(self, key), Path)]


def format_value(value: Any) -> str:
    """The text of one setting; the field's own type reads it back to the same value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    return repr(value) if isinstance(value, float) else str(value)
