"""Runs training runs one after the other; every one is stored at once, and what is stored is not run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gibench.experiment import load
from gibench.result import Row
from gibench.utility.request import Utility
from gibench.utility.store import UtilityStore
from gibench.utility.trial import Progress, Trial, check, run_trial


def prepare(requests: Sequence[Utility]) -> list[Trial]:
    """The training runs that are asked for, each known to be possible.

    Raises:
        UsageError: something in the request is wrong, or the data cannot be had or are too few.
    """
    trials = list(dict.fromkeys(trial for request in requests for trial in request.trials()))
    for trial in trials:
        check(trial, load(trial.dataset))
    return trials


def run_trials(
    trials: Sequence[Trial],
    store: UtilityStore,
    finished: Callable[[int, Row, bool], None],
    progress: Progress,
    force: bool = False,
) -> list[Row]:
    """Run what is not stored yet; the stored row of every trial, in order.

    Args:
        trials: from `prepare`.
        store: where they are looked up and kept.
        finished: told of each its number, from 1, its row, and whether it was stored before.
        progress: told what is being done, and the share done.
        force: run finished trials again.
    """
    known = {} if force else {row["utility"]: row for row in store.trials()}
    rows = []
    for number, trial in enumerate(trials, start=1):
        before = known.get(trial.key)
        row = before or run_trial(trial, progress)
        if before is None:
            row["run_id"] = store.save_trial(row)
        finished(number, row, before is not None)
        rows.append(row)
    return rows
