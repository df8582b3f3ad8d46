"""Every finished row reaches MLflow exactly once, whatever is killed, away or locked meanwhile."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gibench.delivery import Delivery
from gibench.recording import Recorder
from gibench.result import Row, columns_of
from gibench.results import Results


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results", create=True)


@pytest.fixture
def deliver(results):
    """A function that delivers what a folder holds; gives how many rows and what it warned of."""

    def run(uri, wanted=None, folder=results):
        warnings = []
        with Delivery(folder, uri, wanted, warnings.append, lambda message, fraction=None: None) as delivery:
            pass
        return delivery.delivered, warnings

    return run


def runs(uri):
    """The runs that MLflow has, with a row and without."""
    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'gibench'")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return [run for run in found if "cell" in run.data.tags], [run for run in found if "cell" not in run.data.tags]


def check_exactly_once(uri, results):
    """MLflow has the rows of the folder, each once and whole, and nothing is left open."""
    cells, grids = runs(uri)
    assert sorted(run.data.tags["gibench.run_id"] for run in cells) == sorted(row.run_id for row in results.rows(Row))
    assert "RUNNING" not in {run.info.status for run in (*cells, *grids)}
    parents = {run.info.run_id for run in grids}
    assert {run.data.tags.get("mlflow.parentRunId") for run in cells} <= parents | {None}
    client = MlflowClient(uri)
    for run in cells:
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "images.csv", "images.png", "result.json"
        }  # fmt: skip


def test_what_is_saved_meanwhile_is_delivered_under_its_grid(results, uri, make_result):
    with Delivery(results, uri, (), pytest.fail, lambda message, fraction=None: None) as delivery:
        grid = results.grids.open("smoke", {"attack": "random", "timeout": None})
        for number in range(3):
            results.save(make_result(cell=f"{number:016x}", seed=number), grid)
        results.grids.close(grid, "KILLED")
    assert (delivery.delivered, delivery.left, delivery.problem) == (3, 0, None)
    check_exactly_once(uri, results)
    cells, (parent,) = runs(uri)
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} == {parent.info.run_id}
    assert (parent.info.run_name, parent.info.status, parent.data.params) == ("smoke", "KILLED", {"attack": "random"})


def test_nothing_is_delivered_twice_and_another_store_gets_what_it_is_asked_for(
    results, uri, deliver, store_file, tmp_path, make_result
):
    rows = [results.save(make_result(cell=f"{number:016x}")) for number in range(3)]
    assert deliver(uri) == (3, [])
    assert deliver(uri) == (0, [])
    shutil.copy(store_file, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    assert deliver(other, wanted=()) == (0, [])  # they have been delivered
    assert deliver(other, wanted=[rows[1].cell]) == (1, [])
    assert deliver(other) == (2, [])
    for each in (uri, other):
        check_exactly_once(each, results)


def test_a_store_that_was_moved_is_the_same_and_one_that_was_made_anew_is_not(
    results, uri, deliver, store_file, tmp_path, make_result
):
    results.save(make_result())
    deliver(uri)
    (tmp_path / "moved").mkdir()
    (tmp_path / "store.db").rename(tmp_path / "moved" / "store.db")
    assert deliver(f"sqlite:///{tmp_path}/moved/store.db") == (0, [])
    shutil.copy(store_file, tmp_path / "new.db")
    assert deliver(f"sqlite:///{tmp_path}/new.db") == (1, [])


def test_a_note_that_was_lost_is_made_up_for_by_asking_the_store(results, uri, deliver, make_result):
    results.save(make_result())
    deliver(uri)
    shutil.rmtree(results.folder / ".delivered")
    deliver(uri)
    assert deliver(uri) == (0, [])
    check_exactly_once(uri, results)


@pytest.mark.parametrize("write", ["log_batch", "log_artifacts", "set_terminated"])
def test_a_delivery_that_failed_half_way_is_gone_on_with(results, uri, deliver, make_result, monkeypatch, write):
    results.save(make_result())
    with monkeypatch.context() as patch:

        def fails(*arguments):
            raise OSError(28, "No space left on device")

        patch.setattr(MlflowClient, write, fails)
        delivered, (warning,) = deliver(uri)
    assert delivered == 0
    assert "No space left on device" in warning
    assert warning.endswith(f"; rows are kept in {results.root}, and gibench sync delivers them")
    assert deliver(uri) == (1, [])
    check_exactly_once(uri, results)


def test_an_open_run_of_a_row_that_is_no_more_is_closed(results, uri, deliver, make_result, monkeypatch):
    results.save(make_result(status="failed"))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", lambda *arguments: (_ for _ in ()).throw(OSError("away")))
        deliver(uri)
    row = results.save(make_result())  # the cell was run again since
    assert deliver(uri) == (1, [])
    cells, _ = runs(uri)
    assert {run.data.tags["gibench.run_id"] == row.run_id: run.info.status for run in cells} == {
        True: "FINISHED", False: "KILLED",
    }  # fmt: skip


def test_the_grid_of_a_process_that_is_gone_is_closed_by_the_next_start(results, uri, deliver, make_result):
    grid = results.grids.open("smoke", {})
    results.save(make_result(), grid)
    deliver(uri)
    _, (parent,) = runs(uri)
    assert parent.info.status == "RUNNING"  # this process is at it
    file = results.folder / ".grids" / f"{grid}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"session": "f" * 32}))
    deliver(uri)
    _, (parent,) = runs(uri)
    assert parent.info.status == "KILLED"


def test_a_row_that_another_process_is_delivering_is_left_to_it(results, uri, deliver, make_result):
    row = results.save(make_result())
    recorder = Recorder(uri, None, "there")
    claim = results.claim(f"mlflow-{row.run_id}")
    waits = threading.Event()
    warnings = []

    def working(message, fraction=None):
        if waits.is_set() and claim:
            recorder.record(row, results.folder / row.key)
            claim.release()
        waits.set()

    with Delivery(results, uri, None, warnings.append, working):
        pass
    assert warnings == []
    check_exactly_once(uri, results)


def test_an_interruption_leaves_what_is_not_delivered_to_the_next_call(results, uri, deliver, make_result):
    looks = []

    def working(message, fraction=None):
        looks.append(message)
        assert len(looks) < 500, "it waits for MLflow"

    delivery = Delivery(results, uri, (), pytest.fail, working)

    def interrupted():
        with delivery:
            results.claim("mlflow-" + results.save(make_result()).run_id)  # another process has it, and goes on so
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert delivery.left == 1
    shutil.rmtree(results.folder / ".claims")
    assert deliver(uri) == (1, [])


def test_a_store_that_comes_back_while_cells_run_gets_everything(
    results, tmp_path, store_file, make_result, monkeypatch
):
    monkeypatch.setattr("gibench.delivery._RETRY", 0.01)
    file, warnings = tmp_path / "late.db", []
    file.write_text("no database, and no store" * 100)
    with Delivery(results, f"sqlite:///{file}", (), warnings.append, lambda message, fraction=None: None) as delivery:
        results.save(make_result(cell="0" * 16))
        while not delivery.problem:
            time.sleep(0.01)
        shutil.copy(store_file, tmp_path / "good.db")
        (tmp_path / "good.db").replace(file)
        while delivery.left:
            time.sleep(0.01)
        results.save(make_result(cell="1" * 16))
    assert (len(warnings), delivery.problem, delivery.delivered) == (1, None, 2)
    check_exactly_once(f"sqlite:///{file}", results)


def test_a_locked_store_does_not_hold_up_what_is_saved(results, uri, make_result, monkeypatch):
    monkeypatch.setattr("gibench.sqlite_store.LOCK_TIMEOUT", 0.1)
    Recorder(uri, None, "made")
    warnings = []
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute("BEGIN EXCLUSIVE")
        with Delivery(results, uri, (), warnings.append, lambda message, fraction=None: None) as delivery:
            rows = [results.save(make_result(cell=f"{number:016x}")) for number in range(3)]
            assert results.rows(Row) == rows
        assert delivery.left == 3
    (warning,) = warnings
    assert "database is locked" in warning


SWEEP = """
import json, sys
from gibench.delivery import Delivery
from gibench.result import Result, Row
from gibench.results import Results
import pandas as pd
folder, uri, row, first, last = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
results = Results(folder, create=True)
with Delivery(results, uri, (), print, lambda message, fraction=None: None):
    grid = results.grids.open("sweep", {"cells": last - first})
    for number in range(first, last):
        claim = results.claim(f"{number:016x}")
        if claim:
            with claim:
                if not results.find(Row, f"{number:016x}"):
                    made = Row(**row | {"cell": f"{number:016x}", "seed": number})
                    results.save(Result(made, pd.DataFrame({"truth": [number]}), b"png"), grid)
    results.grids.close(grid)
print("done", flush=True)
"""


def sweep(folder, uri, row, first, last):
    columns = json.dumps({name: getattr(row, name) for name in columns_of(Row)})
    command = [sys.executable, "-c", SWEEP, str(folder), uri, columns, str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_a_sweep_that_is_killed_while_it_delivers_loses_and_doubles_nothing(results, uri, make_row, seed):
    """Two sweeps of overlapping cells; one is killed when MLflow has begun a number of runs drawn at random."""
    draw = random.Random(seed)
    Recorder(uri, None, "made")
    processes = [sweep(results.root, uri, make_row(), first, first + 6) for first in (0, 3)]
    wanted = draw.randrange(1, 9)
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        while database.execute("SELECT count(*) FROM runs").fetchone()[0] < wanted:
            assert any(process.poll() is None for process in processes)
            time.sleep(0.005)
    time.sleep(draw.random() * 0.1)
    killed = draw.choice(processes)
    os.kill(killed.pid, signal.SIGKILL)
    for process in processes:
        out, _ = process.communicate(timeout=600)
        assert process is killed or (out, process.returncode) == ("done\n", 0)
    again = sweep(results.root, uri, make_row(), 0, 9)
    assert (again.communicate(timeout=600)[0], again.returncode) == ("done\n", 0)
    assert {row.cell for row in results.rows(Row)} == {f"{number:016x}" for number in range(9)}
    check_exactly_once(uri, results)
    assert list((results.folder / ".claims").iterdir()) == []


def test_a_row_whose_files_are_damaged_does_not_stop_the_others(results, uri, make_result):
    rows = [results.save(make_result(cell=f"{number:016x}")) for number in range(2)]
    warnings = []

    class Damaging(Results):
        def document(self, key):
            if key == rows[0].cell:
                Path(self.folder, key, "result.json").write_text("{")
            return super().document(key)

    with Delivery(
        Damaging(results.root, create=True), uri, None, warnings.append, lambda message, fraction=None: None
    ) as delivery:
        pass
    assert (delivery.delivered, delivery.problem) == (1, None)
    assert [f"{rows[0].cell} cannot be delivered to MLflow: it is no JSON" in each for each in warnings] == [True]
