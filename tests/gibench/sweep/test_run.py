"""Cells are stored one by one; what is stored with a final status is not run again."""

import pytest

from gibench.errors import UsageError
from gibench.result import Row
from gibench.results import Results
from gibench.sweep.executors import Local
from gibench.sweep.run import prepare, run_jobs
from gibench.sweep.suite import Suite

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
    notes, results = Notes(), Results(create=True)
    return run_jobs(prepare([grid]), results, grid, notes, Local(), **options), notes.told, results


def test_every_cell_is_run_and_stored_in_order():
    rows, told, results = run(suite("random", "mean-image"))
    assert told == [("started", 1), ("ok", 1), ("started", 2), ("ok", 2)]
    assert results.rows(Row) == rows
    assert [row.attack for row in rows] == ["random", "mean-image"]


def test_finished_cells_are_not_run_again():
    first, _, _ = run(suite("random"))
    second, told, results = run(suite("random", "mean-image"))
    assert told == [("stored before", 1), ("started", 2), ("ok", 2)]
    assert second[0] == first[0]
    assert len(results.rows(Row)) == 2


def test_what_is_stored_is_neither_checked_nor_is_anything_made_ready_to_run_it(monkeypatch):
    rows, _, _ = run(suite("random", "mean-image"))
    monkeypatch.setattr("gibench.cell.Cell.check", pytest.fail)
    grid, results = suite("random", "mean-image"), Results(create=True)
    jobs = prepare([grid], stored={row.cell for row in rows})
    assert run_jobs(jobs, results, grid, Notes(), None) == rows


def test_force_runs_finished_cells_again():
    first, _, _ = run(suite("random"))
    second, told, results = run(suite("random"), force=True)
    assert told == [("started", 1), ("ok", 1)]
    assert first != second
    assert results.rows(Row) == second


@pytest.mark.parametrize(
    ("attack", "timeout", "again"),
    [("diverges", None, False), ("refuses", None, False), ("raises", None, True), ("returns-late", 0.05, True)],
)
def test_only_failures_and_timeouts_are_run_again(attack, timeout, again):
    grid = suite(attack, timeout=timeout)
    run(grid)
    _, told, _ = run(grid)
    assert (told[0] == ("started", 1)) is again


@pytest.mark.parametrize(
    ("retry", "again"), [({"failed"}, [1]), ({"timeout"}, [2]), (set(), []), ({"failed", "timeout"}, [1, 2])]
)
def test_what_is_run_again_can_be_chosen(retry, again, make_result):
    grid = suite("raises", "random", "mean-image")
    keys = [job.key for job in prepare([grid])]
    for key, status in zip(keys, ("failed", "timeout", "ok"), strict=True):
        Results(create=True).save(make_result(cell=key, status=status))
    rows, told, _ = run(grid, retry=retry)
    assert [number for what, number in told if what == "started"] == again
    assert [row.cell for row in rows] == keys


def test_a_failed_cell_does_not_stop_the_others():
    _, told, _ = run(suite("raises", "random"))
    assert told == [("started", 1), ("failed", 1), ("started", 2), ("ok", 2)]


def test_an_interruption_keeps_what_is_finished():
    with pytest.raises(KeyboardInterrupt):
        run(suite("random", "interrupts", "mean-image"))
    assert [row.attack for row in Results().rows(Row)] == ["random"]


def test_a_model_of_others_is_built_only_where_it_may_fail():
    grid = suite("random", model="hostile:what=own")
    assert len(prepare([grid], apart=True)) == 1
    with pytest.raises(BaseException, match="neither an exception nor an exit"):
        prepare([grid])


def test_nothing_runs_when_one_cell_of_the_grid_cannot_be_prepared():
    with pytest.raises(UsageError, match="a batch of 521 is more than the 520 images"):
        run(suite("random", batch_size=[4, 521]))
    assert Results().rows(Row) == []


def test_a_cell_that_another_process_is_running_is_waited_for_and_taken_from_it(make_result):
    """The others are run meanwhile; what the other process stored counts, also where it failed."""
    grid = suite("random", "mean-image")
    first, _ = prepare([grid])
    results = Results(create=True)
    claim = results.claim(first.key)
    told = Notes()

    def elsewhere(message, fraction=None):
        if "another process" in message:
            told.told.append("waiting")
            results.save(make_result(cell=first.key, attack="random", status="failed"))
            claim.release()

    told.working = elsewhere
    rows = run_jobs([*prepare([grid])], Results(create=True), grid, told, Local())
    assert told.told == [("started", 2), ("ok", 2), "waiting", ("stored before", 1)]
    assert [row.status for row in rows] == ["failed", "ok"]


def test_a_claim_is_given_back_whatever_happens():
    grid = suite("random", "interrupts")
    with pytest.raises(KeyboardInterrupt):
        run(grid)
    assert all(Results().claim(job.key) for job in prepare([grid]))
