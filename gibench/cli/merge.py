"""`gibench merge`: the results of several folders in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gibench.cli.console import note
from gibench.cli.options import Debug, Results


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Results folders; they stay as they are.")],
    results: Results = None,
    debug: Debug = False,
) -> None:
    """Copy the finished cells of other results folders into this one, each once; gibench sync delivers them to MLflow.

    That is how the shards of a job array, or the results of several machines, become one.
    """
    from gibench.results.merge import merge as merged

    found = merged(results, folders)
    note(f"{found.taken} cells merged, {found.known} kept as they are here")
