"""What many cells cost a call: seconds and memory of a dry run, and memory while cells run.

    python tests/benchmarks/grids.py --cells 100000 --run 1000

The first table is of `gibench run --dry-run` over seeds, a process each. The second is of one call that runs small
cells in worker processes: what it and each of its processes hold after every fifth of them, which should not grow.
Everything happens in a temporary folder.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

SETTINGS = {"attack": "random", "model": "linear", "dataset": "digits", "batch_size": 2, "device": "cpu", "threads": 1}
COMMAND = [part for name, value in SETTINGS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
PROGRAM = [str(Path(sys.executable).with_name("gibench")), "run", *COMMAND]


def planned(cells: int) -> str:
    """A line of the first table."""
    start = time.perf_counter()
    process = subprocess.Popen([*PROGRAM, "--seed", f"0-{cells - 1}", "--dry-run"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = sum(1 for _ in process.stdout)
    _, status, used = os.wait4(process.pid, 0)
    assert (status, lines) == (0, cells)
    wall, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
    return f"| {cells} | {wall:.1f} | {cpu:.1f} | {used.ru_maxrss / 1024:.0f} |"


def resident(process: int) -> dict[int, float]:
    """What a process and those below it hold, in MB."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            below.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    tree = [process]
    for each in tree:
        tree += below.get(each, [])
    held = {}
    for each in tree:
        with suppress(OSError):
            pages = int(Path(f"/proc/{each}/statm").read_text().split()[1])
            held[each] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return held


def ran(cells: int) -> None:
    """Print the second table while the cells run."""
    process = subprocess.Popen(
        [*PROGRAM, "--seed", f"0-{cells}", "--no-pictures"],  # one more, as with the last one the workers end
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        done = line.removeprefix("[").partition("/")[0]
        if done.isdigit() and int(done) % max(1, cells // 5) == 0:
            held = list(resident(process.pid).values())
            print(f"| {done} | {held[0]:.0f} | {', '.join(f'{each:.0f}' for each in held[1:])} |", flush=True)
    assert process.wait() == 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--cells", type=int, default=100_000)
    options.add_argument("--run", type=int, default=1000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print("| cells | seconds | CPU seconds | peak MB |\n| --- | --- | --- | --- |")
        for cells in sorted({1, chosen.cells // 10 or 1, chosen.cells}):
            print(planned(cells), flush=True)
        print("\n| cells run | MB of the call | MB of its processes |\n| --- | --- | --- |")
        ran(chosen.run)
        os.chdir("/")


if __name__ == "__main__":
    main()
