"""Commands that start fast: typer checks parameters with pydantic, whose import takes longer than a plain `list`.

It checks all but flags that have a value, which those have not that it adds by itself: `--help` and the completion's.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class _Quick:
    def get_params(self, context: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(context)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.default is None:
                parameter.default = False
        return parameters


class QuickCommand(_Quick, TyperCommand):
    """A command that imports pydantic only for parameters that are more than flags."""


class QuickGroup(_Quick, TyperGroup):
    """The same for a program of several commands, each with its whole first paragraph in the help."""

    def format_commands(self, context: Any, formatter: Any) -> None:
        """List the commands; typer's own cuts their help off at the width of the terminal."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, " ".join((command.help or "").split("\n\n")[0].split()))
                    for name, command in self.commands.items()
                ]
            )
