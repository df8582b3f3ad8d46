"""The options that say how jobs are run, which the verbs share that run any."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from gibench.sweep.how import Retry, Where

OPTIONS: dict[str, tuple[Any, Any]] = {
    "jobs": (
        Annotated[
            str,
            typer.Option(
                "--jobs",
                metavar="N|auto",
                help="Cells at a time, each in its own processes; auto: one a core or GPU.",
            ),
        ],
        "1",
    ),
    "memory": (
        Annotated[
            float | None, typer.Option("--memory", metavar="GB", help="Memory of each process; what takes more fails.")
        ],
        None,
    ),
    "retry": (
        Annotated[
            Retry, typer.Option("--retry", help="Which cells to run again, once, that earlier calls left unfinished.")
        ],
        Retry.ALL,
    ),
    "executor": (
        Annotated[
            Where,
            typer.Option(
                "--executor",
                help="local: in this very process, to look for mistakes in a plugin; ray: on a Ray cluster.",
            ),
        ],
        Where.PROCESS,
    ),
    "ray_address": (
        Annotated[
            str | None,
            typer.Option(
                "--ray-address", metavar="ADDRESS", help="Ray cluster. Default: RAY_ADDRESS, or one of this machine."
            ),
        ],
        None,
    ),
}


def parameters() -> list[inspect.Parameter]:
    """The options, as a command's signature has them."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, keyword, default=default, annotation=hint) for name, (hint, default) in OPTIONS.items()
    ]
