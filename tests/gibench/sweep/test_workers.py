"""What cells do to the processes they run in costs their own row, and changes no other."""

from dataclasses import replace

import pytest

from gibench.result import Row
from gibench.sweep.executors import Processes
from gibench.sweep.suite import Suite

SMALL = {"model": "mlp:width=20,depth=2", "batch_size": 4, "device": "cpu", "threads": 1}
HONEST = ("random", "mean-image", "global-rng", "dlg:max_iterations=3")
pytestmark = pytest.mark.usefixtures("plugins")


def cells(*attacks, **options):
    return Suite.from_settings("suite", {"attack": list(attacks)} | SMALL | options).cells()


def run(jobs, executor=None):
    """The results of jobs, in their order."""
    numbered = iter(list(enumerate(jobs)))
    executor = executor or Processes()
    found = dict(executor.results(numbered, Row, lambda message, fraction=None: None))
    return [found[number] for number in range(len(jobs))]


def lasting(result):
    """What must be the same whatever else runs."""
    row = replace(result.row, runtime_s=None, peak_memory_mb=None, workers=None)
    return row, result.images.to_csv(), result.grid_png, dict(result.diagnostics)


def hostile(*whats, kind="attack"):
    return [f"hostile:what={what}" for what in whats]
