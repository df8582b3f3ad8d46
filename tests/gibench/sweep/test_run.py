"""Cells are stored one by one; what is stored with a final status is not run again."""

import pytest

from gibench.errors import UsageError
from gibench.result import Row
from gibench.sweep.run import prepare, run_jobs
from gibench.sweep.suite import Suite
from gibench.tracking import Store

pytestmark = pytest.mark.usefixtures("plugins", "workplace")


class Notes:
    """A listener that writes down what it is told."""

    def __init__(self):
        self.told = []

    def started(self, number, cell):
        self.told.append(("started", number))

    def working(self, message, fraction=None):
        pass

    def finished(self, number, row, stored_before):
        self.told.append(("stored before" if stored_before else row.status, number))


def suite(*attacks, **options):
    settings = {"attack": list(attacks), "model": "mlp:width=20,depth=2", "batch_size": 4, "device": "cpu"} | options
    return Suite.from_settings("suite", settings)


def run(grid, **options):
    notes, store = Notes(), Store(Row)
    return run_jobs(prepare([grid]), store, grid, notes, **options), notes.told, store


def test_every_cell_is_run_and_stored_in_order():
    rows, told, store = run(suite("random", "mean-image"))
    assert told == [("started", 1), ("ok", 1), ("started", 2), ("ok", 2)]
    assert store.rows() == rows
    assert [row.attack for row in rows] == ["random", "mean-image"]


def test_finished_cells_are_not_run_again():
    first, _, _ = run(suite("random"))
    second, told, store = run(suite("random", "mean-image"))
    assert told == [("stored before", 1), ("started", 2), ("ok", 2)]
    assert second[0] == first[0]
    assert len(store.rows()) == 2


def test_force_runs_finished_cells_again():
    first, _, _ = run(suite("random"))
    second, told, store = run(suite("random"), force=True)
    assert told == [("started", 1), ("ok", 1)]
    assert first != second
    assert len(store.rows()) == 2


@pytest.mark.parametrize(
    ("attack", "again"), [("diverges", False), ("refuses", False), ("raises", True), ("returns-late", True)]
)
def test_only_failures_and_timeouts_are_run_again(attack, again):
    grid = suite(attack, timeout=0.05)
    run(grid)
    _, told, _ = run(grid)
    assert (told[0] == ("started", 1)) is again


def test_a_failed_cell_does_not_stop_the_others():
    _, told, _ = run(suite("raises", "random"))
    assert told == [("started", 1), ("failed", 1), ("started", 2), ("ok", 2)]


def test_an_interruption_keeps_what_is_finished():
    with pytest.raises(KeyboardInterrupt):
        run(suite("random", "interrupts", "mean-image"))
    assert [row.attack for row in Store(Row).rows()] == ["random"]


def test_nothing_runs_when_one_cell_of_the_grid_cannot_be_prepared():
    with pytest.raises(UsageError, match="a batch of 521 is more than the 520 images"):
        run(suite("random", batch_size=[4, 521]))
    assert Store(Row).rows() == []
