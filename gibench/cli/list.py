"""`gibench list`: what can run and where it comes from."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

import typer

from gibench.cli.console import print_json, warn
from gibench.cli.options import Debug, Json
from gibench.errors import UsageError
from gibench.registry import GROUPS, Entry, clashes, entries

_KINDS = {f"{kind}s": kind for kind in GROUPS}
USAGE = f"[OPTIONS] [{'|'.join(_KINDS)}|NAME]"


def list_plugins(context: typer.Context, as_json: Json = False, debug: Debug = False) -> None:
    """Show what can run; with a NAME or --json also settings, requirements and references."""
    # Not declared as an argument, see gibench.cli.quick.
    if len(context.args) > 1:
        raise UsageError(f"gibench list takes one kind or name, not {' '.join(context.args)}: list them one by one")
    what = context.args[0] if context.args else None
    if what is None or what in _KINDS:
        kinds = [_KINDS[what]] if what else list(GROUPS)
        listed = [entry for kind in kinds for entry in entries(kind)]
    else:
        listed = [entry for kind in GROUPS for entry in entries(kind) if entry.name == what]
        if not listed:
            known = ", ".join(sorted({entry.name for kind in GROUPS for entry in entries(kind)}))
            raise UsageError(f"nothing is called '{what}': there are the kinds {', '.join(_KINDS)}, and {known}")
    _warn_of_problems(listed)
    if as_json or (what and what not in _KINDS):
        _show_details(listed, as_json)
    else:
        _show_names(listed)


def _warn_of_problems(listed: list[Entry]) -> None:
    for kind in GROUPS:
        for name, same in clashes(entry for entry in listed if entry.kind == kind).items():
            warn(f"{kind} '{name}' is registered by {' and '.join(entry.source for entry in same)}: uninstall one")
    for entry in listed:
        if problem := entry.problem():
            warn(f"{entry.kind} '{entry.name}' of {entry.source} cannot be used: {problem}")


def _show_names(listed: list[Entry]) -> None:
    width = max((len(entry.name) for entry in listed), default=0)
    for plural, kind in _KINDS.items():
        if of_kind := [entry for entry in listed if entry.kind == kind]:
            typer.echo(plural)
            for entry in of_kind:
                typer.echo(f"  {entry.name:<{width}}  {entry.source}")


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
