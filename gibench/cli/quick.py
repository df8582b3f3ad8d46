"""Commands that start fast: typer checks parameters with pydantic, whose import takes longer than a plain `list`.

It checks all but flags that have a value, and of every command's parameters `--help` is a flag without one.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class _Quick:
    def get_help_option(self, context: Any) -> Any:
        option = super().get_help_option(context)  # type: ignore[misc]
        if option is not None:
            option.default = False
        return option


class QuickCommand(_Quick, TyperCommand):
    """A command that imports pydantic only for parameters that are more than flags."""


class QuickGroup(_Quick, TyperGroup):
    """The same for a program of several commands."""
