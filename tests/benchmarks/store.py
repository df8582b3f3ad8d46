"""What keeping results costs: milliseconds a cell to the files and into MLflow, and seconds to start over all of them.

    python tests/benchmarks/store.py --cells 10000 --delivered 200

One small cell is run and kept under the keys of as many as are asked for, a hundred for each seed; `gibench run` and
`gibench leaderboard` are then started on them, with the index and without it. Everything happens in a temporary folder.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gibench.axes import axes_of
from gibench.delivery import NOTES, Delivery
from gibench.mlflow_store import open_store
from gibench.recording import Recorder
from gibench.results import Results
from gibench.sweep.request import listed
from gibench.sweep.suite import Suite

SETTINGS = {
    "attack": ["random", "mean-image"],
    "defense": ["none", *(f"noise:std=0.{tenths}" for tenths in range(1, 10))],
    "batch_size": [1, 2, 3, 4, 5],
    **{"model": "linear", "dataset": "digits", "device": "cpu", "threads": 1},
}
CELLS_A_SEED = 100
GIBENCH = str(Path(sys.executable).with_name("gibench"))


def timed(name, count, work):
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    wall, busy = time.perf_counter() - start, time.process_time() - cpu
    print(f"{name:<44} {1000 * wall / count:8.2f} ms a cell, of which {1000 * busy / count:.2f} ms CPU")
    return found


def started(name, *arguments):
    start = time.perf_counter()
    process = subprocess.Popen([GIBENCH, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    wall, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
    print(f"{name:<44} {wall:8.2f} s, of which {cpu:.2f} s CPU", flush=True)


def kept_as(job, row):
    """The row as if it were of another job, and its score a little different."""
    axes = {name: getattr(job, name) for name in axes_of(type(job))}
    return replace(row, cell=job.key, psnr_median=row.psnr_median + math.sin(int(job.key, 16)), **axes)


def main():
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--cells", type=int, default=10_000)
    options.add_argument("--delivered", type=int, default=200)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        measure(chosen.cells, chosen.delivered)
        os.chdir("/")


def measure(cells, delivered):
    seeds = f"0-{cells // CELLS_A_SEED - 1}"
    jobs = Suite.from_settings("benchmark", SETTINGS | {"seed": seeds}).cells()
    one = jobs[0].run(lambda message, fraction=None: None)
    found = [replace(one, row=kept_as(job, one.row)) for job in jobs]
    results = Results(create=True)
    timed("kept as files", cells, lambda: [results.save(result) for result in found])
    size = sum(file.stat().st_size for file in (results.folder / jobs[0].key).iterdir())
    print(f"{'files of a cell':<44} {size / 1000:8.2f} kB")

    sample = Results(experiment="sample", create=True)
    rows = [sample.save(result) for result in found[:delivered]]
    open_store(None, "sample", create=True)
    deliver = Delivery(sample, None, [row.cell for row in rows], print, lambda message, fraction=None: None)
    timed("delivered to MLflow", delivered, lambda: deliver.__enter__().__exit__(None, None, None))

    store = Recorder(None, None, "benchmark").name("benchmark")
    (results.folder / NOTES).mkdir()  # as if they were all delivered, which would take long
    notes = "".join(f'"{row.run_id}"\n' for row in results.rows(type(one.row)))
    (results.folder / NOTES / f"{store}.jsonl").write_text(notes)
    given = [(name, each) for name, values in SETTINGS.items() for each in listed(values)]
    command = [part for name, value in given for part in (f"--{name.replace('_', '-')}", str(value))]
    started("gibench run, all done", "run", *command, "--seed", seeds)
    started("gibench run --json, all done", "run", *command, "--seed", seeds, "--json")
    started("gibench leaderboard", "leaderboard")
    started("gibench leaderboard --json", "leaderboard", "--json")
    (results.folder / ".index.jsonl").unlink()
    started("gibench leaderboard, the index missing", "leaderboard")


if __name__ == "__main__":
    main()
