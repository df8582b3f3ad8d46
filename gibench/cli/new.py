"""`gibench new`: a package with a plugin of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gibench.cli import options
from gibench.cli.check import Kind
from gibench.cli.console import say

Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.", show_default=False)]


def new(kind: Kind, name: Name, debug: options.Debug = False) -> None:
    """Write a package with a plugin that works, to be changed: gibench-NAME here, with pyproject, test and README."""
    from gibench.new import write

    folder = write(kind, name, Path())
    say(f"{folder} is written; next: pip install -e {folder}; gibench check {kind} {name}")
