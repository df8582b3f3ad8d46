"""`gibench check`: whether a plugin keeps its contract."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gibench.axes import axes_of
from gibench.cell import CellAxes
from gibench.cli import options
from gibench.cli.console import print_json, say
from gibench.errors import UsageError

Kind = Annotated[str, typer.Argument(metavar="KIND", help="attack, defense, dataset or model.", show_default=False)]
Named = Annotated[str, typer.Argument(metavar="SPEC", help="Its name, and settings that let it be quick.")]
Home = Annotated[
    list[str] | None,
    typer.Option("--home", metavar="AXIS=VALUE", help="Where it is at its best, as batch_size=1 or model=linear."),
]


def check(
    kind: Kind, spec: Named, home: Home = None, as_json: options.Json = False, debug: options.Debug = False
) -> None:
    """Check a plugin: shapes, seeds, deadline, device, what it leaves changed; exit code 1 if it has a fault.

    As tests of your own: from gibench.testing import conformance, and test_it = conformance("attack", "NAME").
    """
    from gibench.testing import findings

    found = []
    for each in findings(kind, spec, **dict(map(_axis, home or ()))):
        found.append(each)
        if not as_json:
            say(f"{each.outcome.upper() if each.outcome == 'fault' else each.outcome:<8}  {each.check}: {each.detail}")
    if as_json:
        print_json([vars(each) for each in found])
    if any(each.outcome == "fault" for each in found):
        raise typer.Exit(1)


def _axis(text: str) -> tuple[str, Any]:
    """`AXIS=VALUE` as a suite has it."""
    name, equals, value = text.partition("=")
    axis = axes_of(CellAxes).get(name.strip().replace("-", "_"))
    if not (equals and axis):
        raise UsageError(f"--home {text} is no axis and value: write it as batch_size=1 or model=linear")
    return name.strip().replace("-", "_"), int(value) if axis.kind is int and value.strip().isdigit() else value
