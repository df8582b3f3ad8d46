"""`gibench doctor`: whether everything a run needs is here and works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from typing import NamedTuple

import typer

from gibench.cli.console import print_json, say
from gibench.cli.options import Debug, Json, Results, TrackingUri
from gibench.errors import GibenchError
from gibench.registry import GROUPS, Entry, entries, load_entry
from gibench.text import text_of


class Check(NamedTuple):
    """One thing looked at: what it is, whether it works, and what was found."""

    check: str
    ok: bool
    detail: str


def doctor(
    results: Results = None, tracking_uri: TrackingUri = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Check versions, device, LPIPS, results, the tracking store and every plugin; exit code 1 if one is broken."""
    checks: list[Check] = []
    for check in _checks(results, tracking_uri):
        checks.append(check)
        if not as_json:
            say(f"{'ok' if check.ok else 'BROKEN':<6}  {check.check}: {check.detail}")
    if as_json:
        print_json([check._asdict() for check in checks])
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _checks(results: str | None, tracking_uri: str | None) -> Iterator[Check]:
    yield _attempt("versions", _versions)
    yield _attempt("device", _device)
    yield _attempt("LPIPS self-test", _lpips)
    yield _attempt("results folder", lambda: _results(results))
    yield _attempt("tracking store", lambda: _store(tracking_uri))
    yield from _plugins()


def _attempt(name: str, look: Callable[[], str]) -> Check:
    try:
        with redirect_stdout(sys.stderr):  # standard output is for the checks, whatever a plugin prints
            return Check(name, True, look())
    except Exception as error:  # a broken installation can raise anything: it is what this verb is there to tell
        text = text_of(error) if isinstance(error, GibenchError) else f"{type(error).__name__}: {text_of(error)}"
        return Check(name, False, " ".join(text.split()))


def _versions() -> str:
    import platform
    from importlib.metadata import version

    from gibench.provenance import LIBRARIES

    found = {name: version(name) for name in ("gibench", "torch", *LIBRARIES)}
    return ", ".join(f"{name} {number}" for name, number in ({"python": platform.python_version()} | found).items())


def _device() -> str:
    from gibench import device

    found = device.choose("auto")
    device.warm_up(found)
    return f"{found.type}, {device.hardware(found)}"


def _lpips() -> str:
    from gibench.scoring.lpips import NAME, self_test

    errors = self_test()
    return f"{NAME}, off by at most {max(map(abs, errors.values())):.1e} on {len(errors)} reference pairs"


def _results(results: str | None) -> str:
    from gibench.delivery import undelivered
    from gibench.results import Results
    from gibench.results.claims import at_work
    from gibench.results.kinds import all_rows
    from gibench.results.place import check_place, experiments, root

    folder = root(results)
    check_place(folder)
    if not folder.exists():
        return f"none yet at {folder}: the first run makes it"
    opened = [Results(folder, name) for name in experiments(folder)]
    cells, left = sum(len(all_rows(each)) for each in opened), sum(map(undelivered, opened))
    rest = f"{left} of them not in MLflow yet (gibench sync delivers them)" if left else "all of them in MLflow"
    processes = at_work(folder)
    return f"{folder}, {cells} cells{f', {rest}' if cells else ''}, {processes} processes at work on it"


def _store(tracking_uri: str | None) -> str:
    from gibench.mlflow_store import check_store

    return check_store(tracking_uri)


def _plugins() -> Iterator[Check]:
    """A line for each kind, and one for each plugin of it that cannot be used."""
    for kind in GROUPS:
        checks = {entry: _attempt(f"{kind} {entry.name}", partial(_plugin, entry)) for entry in entries(kind)}
        usable = [entry.name for entry, check in checks.items() if check.ok]
        yield Check(f"{kind}s", bool(usable), ", ".join(usable) or "none can be used")
        yield from (check for check in checks.values() if not check.ok)


def _plugin(entry: Entry) -> str:
    return load_entry(entry).__name__
