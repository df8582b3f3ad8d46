"""A store that is slow, or whose disk is full while it is made, holds up no cell and gets every row in the end."""

import resource
import shutil
import signal
import threading
from contextlib import contextmanager

import pytest

from gibench.delivery import Delivery
from gibench.recording import Recorder
from gibench.result import Row
from gibench.results import Results
from gibench.sweep.executors import Local
from gibench.sweep.run import prepare, run_jobs
from gibench.sweep.suite import Suite
from tests.gibench.sweep.test_kills import SMALL, Silent
from tests.gibench.test_delivery import check_exactly_once


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results", create=True)


def deliver(results, uri):
    """How many rows a call has delivered, and what it warned of."""
    warnings = []
    with Delivery(results, uri, None, warnings.append, lambda message, fraction=None: None) as delivery:
        pass
    return delivery.delivered, warnings


def test_a_store_that_is_merely_slow_holds_up_no_cell_and_gets_every_row(results, uri, monkeypatch):
    """Its first write lasts until all cells are done, and each further one until the next is asked for."""
    done, record = threading.Event(), Recorder.record

    def slow(*arguments):
        assert done.wait(3600)
        return record(*arguments)

    monkeypatch.setattr(Recorder, "record", slow)
    grid = Suite.from_settings("suite", SMALL | {"seed": "0-3"})
    with Delivery(results, uri, None, pytest.fail, lambda message, fraction=None: None) as delivery:
        rows = run_jobs(prepare([grid]), results, grid, Silent(), Local())
        assert [row.status for row in rows] == ["ok"] * 4
        assert results.rows(Row) == rows
        assert (delivery.delivered, delivery.left, delivery.problem) == (0, 4, None)
        done.set()
    assert (delivery.delivered, delivery.left) == (4, 0)
    check_exactly_once(uri, results)


@contextmanager
def full_disk(free):
    """No file may grow beyond so many bytes, which the system refuses as it does where a disk is full."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("free", [8_192, *(pytest.param(size, marks=pytest.mark.slow) for size in (100_000, 500_000))])
def test_a_disk_that_is_full_while_the_store_is_made_costs_a_warning_and_leaves_nothing_half_made(
    results, tmp_path, store_file, make_result, monkeypatch, free
):
    results.save(make_result())
    uri = f"sqlite:///{tmp_path}/store/gibench.db"
    with full_disk(free):
        delivered, (warning,) = deliver(results, uri)
    assert delivered == 0
    assert warning.startswith(f"the tracking store {uri} cannot be used: ")
    assert warning.endswith(f"; rows are kept in {results.root}, and gibench sync delivers them")
    assert list((tmp_path / "store").iterdir()) == []
    monkeypatch.setattr("gibench.sqlite_store._create", lambda file, artifacts: shutil.copy(store_file, file))
    assert deliver(results, uri) == (1, [])  # there is room again
    check_exactly_once(uri, results)
