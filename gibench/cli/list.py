"""`gibench list`: what can run and where it comes from."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from shutil import get_terminal_size
from textwrap import fill
from typing import Any

import typer

from gibench.cli.console import print_json, warn
from gibench.cli.options import Debug, Json
from gibench.cli.summary import summary
from gibench.errors import UsageError
from gibench.registry import GROUPS, Entry, clash, clashes, entries
from gibench.text import visible

_KINDS = {f"{kind}s": kind for kind in GROUPS}
_LEAST_WIDTH = 30  # characters of a text beside a name
_SUITES = "suites"  # no kind of plugin, but they have names too
USAGE = f"[OPTIONS] [{'|'.join((*_KINDS, _SUITES))}|NAME]"


def list_plugins(context: typer.Context, as_json: Json = False, debug: Debug = False) -> None:
    """Show what can run; with a NAME or --json also settings, requirements and references."""
    # Not declared as an argument, see gibench.cli.quick.
    if len(context.args) > 1:
        raise UsageError(f"gibench list takes one kind or name, not {' '.join(context.args)}: list them one by one")
    what = context.args[0] if context.args else None
    if what == _SUITES:
        _show_suites(as_json)
        return
    if what is None or what in _KINDS:
        kinds = [_KINDS[what]] if what else list(GROUPS)
        listed = [entry for kind in kinds for entry in entries(kind)]
    else:
        listed = [entry for kind in GROUPS for entry in entries(kind) if entry.name == what]
        if not listed:
            known = ", ".join(sorted({entry.name for kind in GROUPS for entry in entries(kind)}))
            kinds_known = ", ".join((*_KINDS, _SUITES))
            raise UsageError(f"nothing is called '{what}': there are the kinds {kinds_known}, and {known}")
    _warn_of_problems(listed)
    if as_json or (what and what not in _KINDS):
        _show_details(listed, as_json)
    else:
        _show_names(listed)
        if what is None:
            _show_suites(as_json)


def _warn_of_problems(listed: list[Entry]) -> None:
    for kind in GROUPS:
        for same in clashes(entry for entry in listed if entry.kind == kind).values():
            warn(clash(same))
    for entry in listed:
        if problem := entry.problem():
            warn(f"{entry.kind} '{entry.name}' of {entry.source} cannot be used: {problem}")


def _show_names(listed: list[Entry]) -> None:
    width = max((len(entry.name) for entry in listed), default=0)
    for plural, kind in _KINDS.items():
        if of_kind := [entry for entry in listed if entry.kind == kind]:
            typer.echo(plural)
            for entry in of_kind:
                text = " ".join(
                    filter(None, (summary(entry) or "its source does not describe it", f"({entry.source})"))
                )
                typer.echo(_wrapped(f"  {entry.name:<{width}}  ", text))


def _show_suites(as_json: bool) -> None:
    from gibench.sweep import named

    found = [
        {"name": name, "description": named.summary(file), "file": str(file)} for name, file in named.suites().items()
    ]
    if as_json:
        print_json(found)
        return
    typer.echo(_SUITES)
    width = max(len(suite["name"]) for suite in found)
    for suite in found:
        typer.echo(_wrapped(f"  {suite['name']:<{width}}  ", suite["description"]))


def _wrapped(name: str, text: str) -> str:
    """A name and what it is, on a terminal in lines of its width; anywhere else in one line."""
    name, text = visible(name), visible(text)
    if not sys.stdout.isatty():
        return name + text
    width = max(get_terminal_size().columns, len(name) + _LEAST_WIDTH)
    return fill(text, width, initial_indent=name, subsequent_indent=" " * len(name), break_on_hyphens=False)


def _show_details(listed: list[Entry], as_json: bool) -> None:
    from gibench.cli.describe import describe, print_description

    with redirect_stdout(sys.stderr):  # standard output is for the list, whatever a plugin prints
        descriptions: list[dict[str, Any]] = [describe(entry) for entry in listed]
    if as_json:
        print_json(descriptions)
        return
    for description in descriptions:
        print_description(description)
    if any(description["error"] for description in descriptions):
        raise typer.Exit(1)
