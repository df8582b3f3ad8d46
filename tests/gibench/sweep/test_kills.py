"""Whatever is killed, and whenever: afterwards what is stored is exactly what was asked for, each cell once."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gibench.result import Row
from gibench.results import Results
from gibench.sweep import workers
from gibench.sweep.executors import Processes
from gibench.sweep.run import prepare, run_jobs
from gibench.sweep.suite import Suite
from tests.gibench.test_delivery import runs as delivered

SMALL = {"attack": "random", "model": "linear", "dataset": "digits", "batch_size": 2, "device": "cpu", "threads": 1}


class Silent:
    """A listener that counts what has begun."""

    begun = 0

    def started(self, number, job):
        self.begun += 1

    def working(self, message, fraction=None):
        pass

    def finished(self, number, row, stored_before):
        pass


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_a_worker_that_is_killed_at_any_moment_costs_one_cell_which_is_run_again(tmp_path, monkeypatch, seed):
    """One of four, when a number of cells drawn at random has begun, and a moment later."""
    draw, listener, started = random.Random(seed), Silent(), []
    start = workers._start
    monkeypatch.setattr(workers, "_start", lambda place: started.append(start(place)) or started[-1])
    grid = Suite.from_settings("suite", SMALL | {"seed": "0-11"})
    jobs, results = prepare([grid]), Results(tmp_path / "results", create=True)
    wanted, ended, killed = draw.randrange(1, 12), threading.Event(), []

    def kill():
        while (listener.begun < wanted or not started) and not ended.is_set():
            time.sleep(0.001)
        time.sleep(draw.random() * 0.1)
        victim, _ = draw.choice(started)
        try:
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)
        except (ProcessLookupError, ValueError):  # all was done before
            pass

    killer = threading.Thread(target=kill)
    killer.start()
    first = run_jobs(jobs, results, grid, listener, Processes(2))
    ended.set()
    killer.join()
    assert [row.cell for row in first] == [job.key for job in jobs]
    lost = [row for row in first if row.status != "ok"]
    assert len(lost) <= 1
    assert [(row.status, row.reason) for row in lost if row.status != "failed" or "SIGKILL" not in row.reason] == []
    again = run_jobs(jobs, Results(results.root, create=True), grid, listener, Processes(2))
    assert [(row.cell, row.status) for row in again] == [(job.key, "ok") for job in jobs]
    assert [row for row in again if row.cell not in {each.cell for each in lost}] == [
        row for row in first if row not in lost
    ]
    assert {row.cell for row in results.rows(Row)} == {job.key for job in jobs}
    assert listener.begun == len(jobs) + len(lost)


PROGRAM = str(Path(sys.executable).with_name("gibench"))


def children(process):
    """Those of a process and theirs, by their numbers."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    tree = list(found.get(process, []))
    for each in tree:
        tree += found.get(each, [])
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_whose_processes_are_killed_ends_complete(tmp_path, store_file, seed):
    """Two sweeps share the cells; their drivers, workers and what workers are forked from are killed at random."""
    draw = random.Random(seed)
    shutil.copy(store_file, tmp_path / "gibench.db")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = [PROGRAM, "run", *options, "--seed=0-19", "--jobs=2", "--json"]
    results = Results(tmp_path / "gibench-results")

    def start():
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, **quiet)

    processes = [start() for _ in range(2)]
    for wanted in sorted(draw.sample(range(20), 3)):
        while len(list(results.folder.glob("[!.]*/result.json"))) < wanted:
            if all(process.poll() is not None for process in processes):
                break
            time.sleep(0.005)
        time.sleep(draw.random() * 0.2)
        driver = draw.choice(processes)
        victim = draw.choice([driver.pid, *children(driver.pid)])
        if driver.poll() is None:
            os.kill(victim, signal.SIGKILL)
    for process in processes:
        process.communicate(timeout=600)
    done = start()
    out, err = done.communicate(timeout=600)
    rows = json.loads(out)
    assert (done.returncode, len(rows), {row["status"] for row in rows}) == (0, 20, {"ok"}), err
    assert {row.cell for row in results.rows(Row)} == {row["cell"] for row in rows}
    runs, grids = delivered(f"sqlite:///{tmp_path}/gibench.db")
    assert "RUNNING" not in {run.info.status for run in (*runs, *grids)}
    ok = [run.data.tags["gibench.run_id"] for run in runs if run.data.tags["status"] == "ok"]
    assert sorted(ok) == sorted(row["run_id"] for row in rows)
    lost = [run.data.tags for run in runs if run.data.tags["status"] != "ok"]  # earlier attempts, each once
    assert [tags["status"] == "failed" and "SIGKILL" in tags["reason"] for tags in lost] == [True] * len(lost)
    assert len({tags["gibench.run_id"] for tags in lost}) == len(lost) <= 6
    assert list((results.folder / ".claims").iterdir()) == []
