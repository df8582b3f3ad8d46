"""`gibench show`: one stored row in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gibench.cli.console import print_json, say
from gibench.cli.options import Debug, Experiment, Json, Results, TrackingUri


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run_id, or how it begins.")],
    results: Results = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show one stored row in full: columns, the image grid's path, diagnostics, provenance, seconds by stage."""
    from gibench.result import Row
    from gibench.stored import Stored

    row, details = Stored(results, tracking_uri, experiment).row(Row, run)
    if as_json:
        print_json([{**row.as_dict(), **details}])
        return
    _print(row.as_dict())
    _print(details)


def _print(values: Mapping[str, Any], indent: str = "") -> None:
    """A line a value, nested mappings indented, texts of several lines below their name."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            say(f"{indent}{key}:")
            _print(value, f"{indent}  ")
        elif isinstance(value, str) and "\n" in value:
            say(f"{indent}{key}:")
            for line in value.splitlines():
                say(f"{indent}  {line}")
        else:
            say(f"{indent}{key}: {_text(value)}")


def _text(value: Any) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
