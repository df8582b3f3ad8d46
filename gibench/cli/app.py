"""The `gibench` program: its verbs, and how errors become one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gibench import __version__
from gibench.cli.audit import audit
from gibench.cli.check import check
from gibench.cli.check_submission import check_submission
from gibench.cli.console import note, warn
from gibench.cli.doctor import doctor
from gibench.cli.export import export
from gibench.cli.leaderboard import leaderboard
from gibench.cli.list import USAGE, list_plugins
from gibench.cli.merge import merge
from gibench.cli.new import new
from gibench.cli.plot import plot
from gibench.cli.quick import QuickCommand, QuickGroup
from gibench.cli.reproduce import reproduce
from gibench.cli.run import run
from gibench.cli.show import show
from gibench.cli.site import site
from gibench.cli.sweep import sweep
from gibench.cli.sync import sync
from gibench.cli.utility import utility
from gibench.errors import DataWarning, GibenchError, UsageError
from gibench.text import text_of

_WRITERS = ("echo", "_write_buffer")  # the functions of typer and of rich in which standard output is written

app = typer.Typer(
    name="gibench",
    cls=QuickGroup,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help cuts nothing in narrow terminals, and needs ASCII alone
    pretty_exceptions_enable=False,
    help="Which gradient-inversion attack recovers a client's images from its gradients, under which defense.",
)
app.command("list", cls=QuickCommand, options_metavar=USAGE, context_settings={"allow_extra_args": True})(list_plugins)
for verb in (run, sweep, utility, leaderboard, plot, site, show, audit, sync, merge, new, check, doctor):
    app.command()(verb)
for verb in (export, check_submission, reproduce):
    app.command()(verb)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gibench {__version__}")
        raise typer.Exit


@app.callback()
def gibench(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The program itself has no option but its version."""


def _print_anything() -> None:
    """What a stream's encoding cannot hold is printed with backslashes, so that no result is lost on its way out.

    A stream that is closed leads nowhere, and no file that is opened later gets its number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115  # as long as we run
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program: exit code 0, 1 for a failed cell or another failure, 2 for usage, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _print_anything()
    _print_warnings_on_one_line()
    try:
        app(args=list(arguments), prog_name="gibench")
    except Exception as error:  # nothing is lost: it becomes the error line, and --debug shows where it came from
        if "--debug" in arguments:
            traceback.print_exc()
        if isinstance(error, OSError) and traceback.extract_tb(error.__traceback__)[-1].name in _WRITERS:
            message = f"standard output cannot be written ({error.strerror}): make room, or let it go elsewhere"
        elif isinstance(error, GibenchError):
            message = text_of(error)
        else:
            message = f"{type(error).__name__}: {text_of(error)}: run again with --debug to see where"
        note(f"error: {' '.join(message.split())}")
        sys.exit(2 if isinstance(error, UsageError) else 1)


def _print_warnings_on_one_line() -> None:
    """What was left out or converted of a user's data is for the user, without the line of code that says it."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
        if issubclass(category, DataWarning):
            warn(str(message))
        else:
            others(message, category, *where, **how)

    warnings.showwarning = show
