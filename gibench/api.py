"""`gibench.run` and `gibench.sweep`: the commands of the same names as functions, with the same keys and store."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.errors import DataWarning, UsageError
from gibench.job import Job
from gibench.notebook import Results
from gibench.result import Row, StoredRow
from gibench.sweep import named
from gibench.sweep.call import Call
from gibench.sweep.choice import Choice
from gibench.sweep.how import How
from gibench.sweep.run import Listener
from gibench.sweep.suite import Suite
from gibench.utility.job import TrialRow

__all__ = ["Results", "run", "sweep"]

Value: TypeAlias = str | int
Values: TypeAlias = Value | Iterable[Value]  # of an axis: one, or several to make a grid of
Executor: TypeAlias = Literal["process", "local", "ray"]


def run(
    attack: Values,
    *,
    jobs: int | Literal["auto"] = 1,
    executor: Executor = "process",
    timeout: float | None = None,
    results: str | Path | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    force: bool = False,
    progress: bool = False,
    **axes: Values,
) -> Results:
    """Run attacks against defenses, as `gibench run` does; what is stored is not run again.

    Ctrl-C keeps the cells that are finished, and the same call goes on from there.

    Args:
        attack: a spec as `spearpp` or `dlg:restarts=4`; several make a grid.
        jobs: cells at a time; `auto` is one a core or GPU.
        executor: `process` runs cells in worker processes, `local` in this very one, to look for mistakes in a plugin,
            `ray` on a Ray cluster.
        timeout: seconds of wall clock of each attack.
        results: the folder of the results; None is `GIBENCH_RESULTS`, else `gibench-results` in the working folder.
        tracking_uri: the MLflow store; None is `MLFLOW_TRACKING_URI`, else `gibench.db` in the working folder.
        experiment: its name; None is `MLFLOW_EXPERIMENT_NAME`, else `gibench`.
        force: run finished cells again.
        progress: say on standard error how it gets on.
        **axes: one value each, or several to make a grid of. The axes:

    Raises:
        UsageError: the request is wrong; the message says in one line how to mend it. A cell that fails is a row.
        GibenchError: the results folder cannot be written.
    """
    known = axes_of(Cell)
    if unknown := [name for name in axes if name not in known]:
        raise UsageError(f"gibench.run has no axis '{unknown[0]}': there are {', '.join(sorted(known))}")
    given = _plain({"attack": attack, **axes}) | _given(timeout, results, tracking_uri, experiment)
    return _called(Suite.from_settings("gibench.run", given), jobs, executor, force, progress)


def sweep(
    suite: str | Path | Mapping[str, Any],
    *,
    device: Values | None = None,
    threads: Values | None = None,
    jobs: int | Literal["auto"] = 1,
    executor: Executor = "process",
    timeout: float | None = None,
    results: str | Path | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    force: bool = False,
    progress: bool = False,
) -> Results:
    """Run the cells of a suite, as `gibench sweep` does; what is stored is not run again.

    Args:
        suite: a file, a name that `gibench list suites` shows, or what such a file holds.
        device, threads: in place of the suite's.
        jobs, executor, timeout, results, tracking_uri, experiment, force, progress: see `run`; what is None is the
            suite's.

    Raises:
        UsageError: see `run`.
        GibenchError: see `run`.
    """
    machine = {name: value for name, value in (("device", device), ("threads", threads)) if value is not None}
    given = _plain(machine) | _given(timeout, results, tracking_uri, experiment)
    if isinstance(suite, Mapping):
        found = {"name": "gibench.sweep", **_plain(suite)}
        if isinstance(grids := found.get("grids"), list):
            found["grids"] = [_plain(grid) if isinstance(grid, Mapping) else grid for grid in grids]
        asked = Suite.of("the suite", found, given)
    else:
        asked = Suite.read(named.find(Path(suite)), given)
    return _called(asked, jobs, executor, force, progress)


def _plain(found: Mapping[Any, Any]) -> dict[Any, Any]:
    """The same with the values of axes as suite files have them: lists of Python's own numbers and texts."""
    return {key: _listed(value) if key in axes_of(Cell) else value for key, value in found.items()}


def _listed(value: Any) -> list[Any]:
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return [
        int(each) if isinstance(each, Integral) and not isinstance(each, bool) else each
        for each in (value if several else [value])
    ]


def _given(
    timeout: float | None, results: str | Path | None, tracking_uri: str | None, experiment: str | None
) -> dict[str, Any]:
    folder = os.fspath(results) if isinstance(results, os.PathLike) else results
    options = {"timeout": timeout, "results": folder, "tracking_uri": tracking_uri, "experiment": experiment}
    return {name: value for name, value in options.items() if value is not None}


def _called(suite: Suite, jobs: int | str, executor: str, force: bool, progress: bool) -> Results:
    told: list[str] = []  # from other threads too, where a warning that is an error would end them
    try:
        call = Call.of(suite, How.of(str(jobs), executor=executor), Choice(), told.append, force)
        cells, *costs = call.run(_printing if progress else _silent, told.append)
    finally:
        for message in told:
            warnings.warn(message, DataWarning, stacklevel=3)
    return Results(cast(list[Row], cells), call.results, [row for part in costs for row in cast(list[TrialRow], part)])


def _printing(jobs: Sequence[Job]) -> AbstractContextManager[Listener]:
    from gibench.cli.progress import GridProgress

    return GridProgress(jobs)


def _silent(jobs: Sequence[Job]) -> AbstractContextManager[Listener]:
    return nullcontext(_Silent())


class _Silent:
    """A `gibench.sweep.run.Listener` that says nothing."""

    def started(self, number: int, job: Job) -> None:
        """Nothing."""

    def working(self, message: str, fraction: float | None = None) -> None:
        """Nothing."""

    def finished(self, number: int, row: StoredRow, stored_before: bool) -> None:
        """Nothing."""


def _shows_axes(function: Any) -> None:
    """Let the signature and the docstring name every axis, which is declared where cells are."""
    axes = {name: axis for name, axis in reversed(axes_of(Cell).items()) if axis.default is not None}
    own = inspect.signature(function)
    first, *others = (each for each in own.parameters.values() if each.name != "axes")
    keyword = inspect.Parameter.KEYWORD_ONLY
    made = [inspect.Parameter(name, keyword, default=axis.default, annotation="Values") for name, axis in axes.items()]
    function.__signature__ = own.replace(parameters=[first, *made, *others])
    mark = "The axes:\n"
    listed = "".join(f"            {name}: {axis.help} Default: {axis.default}.\n" for name, axis in axes.items())
    function.__doc__ = function.__doc__.replace(mark, mark + "\n" + listed)


_shows_axes(run)
