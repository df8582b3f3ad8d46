"""The options that verbs share, each defined once. An option left out is None, and the suite has the default."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from gibench.axes import Axis, axes_of
from gibench.cli import how
from gibench.sweep.how import How

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_SHOWN = 20  # characters of a default that a narrow terminal has room for

Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Wall clock of each attack or training run; none without it."),
]
Results = Annotated[
    str | None,
    typer.Option(
        "--results", metavar="DIR", help="Folder of the results. Default: GIBENCH_RESULTS, or gibench-results here."
    ),
]
NoPictures = Annotated[bool, typer.Option("--no-pictures", help="Keep no image grids.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store or server. Default: MLFLOW_TRACKING_URI, or gibench.db here.",
    ),
]
Experiment = Annotated[
    str | None,
    typer.Option(
        "--experiment", metavar="NAME", help="MLflow experiment; without it MLFLOW_EXPERIMENT_NAME or gibench."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Run finished cells again.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="AXIS=VALUE", help="Only cells with this value, as attack=spearpp."),
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only this one of N shares, for N machines or jobs of an array."),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N of the cells.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the cells, which are done and how long the others may take.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def _option(name: str, axis: Axis) -> Any:
    kind = int if axis.kind is int and not axis.ranges else str
    default: str | bool = False if axis.default is None else str(axis.default)
    help = axis.help
    if default and len(str(default)) > _SHOWN:  # it would be cut, so it goes into the text, where lines can break
        help, default = f"{help} Default: {str(default).replace(',', ', ')}.", False
    option = typer.Option(f"--{name.replace('_', '-')}", metavar=axis.metavar, show_default=default, help=help)
    return Annotated[list[kind] | None, option]  # type: ignore[valid-type]


def given(**options: Any) -> dict[str, Any]:
    """The options that were not left out."""
    return {name: value for name, value in options.items() if value is not None}


def takes_axes(kind: type, *only: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each axis of `kind`, and those that say how jobs are run.

    What was given of the axes reaches it as its first argument, a mapping, and the rest as its second.

    Args:
        kind: a dataclass of axes.
        only: the names of those that are wanted; all without it.
    """
    made = {name: _option(name, each) for name, each in reversed(axes_of(kind).items()) if name in (only or (name,))}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]
        options = [inspect.Parameter(name, _KEYWORD, default=None, annotation=hint) for name, hint in made.items()]

        @wraps(command)
        def run(**values: Any) -> None:
            axes = {name: values.pop(name) for name in made}
            chosen = How.of(**{name: values.pop(name) for name in how.OPTIONS})
            command({name: value for name, value in axes.items() if value is not None}, chosen, **values)

        parameters = [*options, *(each.replace(kind=_KEYWORD) for each in own)]
        parameters += how.parameters()
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate
