"""What keeping results costs: milliseconds a cell to the files and into MLflow, and seconds to start over all of them.

    python tests/benchmarks/store.py --cells 10000 --delivered 200

One small cell is run and kept under the keys of as many as are asked for; `gibench run` and `gibench leaderboard` are
then started on them, with the index and without it. Everything happens in a temporary folder.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gibench.delivery import NOTES, Delivery
from gibench.mlflow_store import open_store
from gibench.recording import Recorder
from gibench.results import Results
from gibench.sweep.suite import Suite

SETTINGS = {"attack": "random", "model": "linear", "dataset": "digits", "batch_size": 2, "device": "cpu", "threads": 1}
GIBENCH = str(Path(sys.executable).with_name("gibench"))


def timed(name, count, work):
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    wall, busy = time.perf_counter() - start, time.process_time() - cpu
    print(f"{name:<44} {1000 * wall / count:8.2f} ms a cell, of which {1000 * busy / count:.2f} ms CPU")
    return found


def started(name, *arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([GIBENCH, *arguments], check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:<44} {wall:8.2f} s, of which {cpu:.2f} s CPU")


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
    jobs = Suite.from_settings("benchmark", SETTINGS | {"seed": f"0-{cells - 1}"}).cells()
    one = jobs[0].run(lambda message, fraction=None: None)
    found = [replace(one, row=replace(one.row, cell=job.key, seed=job.seed)) for job in jobs]
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
    command = [part for name, value in SETTINGS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    resume = ("run", *command, "--seed", f"0-{cells - 1}", "--json")
    started("gibench run, all done", *resume)
    started("gibench leaderboard", "leaderboard")
    started("gibench leaderboard --json", "leaderboard", "--json")
    (results.folder / ".index.jsonl").unlink()
    started("gibench leaderboard, the index missing", "leaderboard")


if __name__ == "__main__":
    main()
