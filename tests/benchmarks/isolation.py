"""What worker processes cost a cell: `python tests/benchmarks/isolation.py [CELLS]`.

The same small cells in this process, and in workers. What is measured is the wall clock that no stage of a cell takes:
the sending of model and update, and the comparison of the process with what it was before. Of all cells the least
counts, since a busy machine can only add to it. Rows must be the same to the last bit.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from gibench.result import Row
from gibench.sweep.executors import Executor, Local, Processes
from gibench.sweep.suite import Suite

MODELS = ("mlp:width=20,depth=2", "mlp:width=200,depth=5")
WARM = 4  # cells before the clock starts


def measured(executor: Executor, model: str, count: int) -> tuple[float, list[Row]]:
    """Milliseconds a cell beyond its stages, of the cell where it is least, and the rows."""
    given = {"attack": "random", "model": model, "device": "cpu", "threads": 1, "seed": f"0-{count + WARM - 1}"}
    cells = Suite.from_settings("benchmark", given).cells()
    rows, beyond, last = {}, [], time.perf_counter()
    for number, result in executor.results(iter(list(enumerate(cells))), Row, lambda message, fraction=None: None):
        now = time.perf_counter()
        beyond.append(now - last - sum(result.seconds.values()))
        rows[number], last = replace(result.row, runtime_s=None, peak_memory_mb=None, workers=None), now
    return 1000 * min(beyond[WARM:]), [rows[key] for key in sorted(rows)]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    for model in MODELS:
        alone, expected = measured(Local(), model, count)
        apart, rows = measured(Processes(), model, count)
        assert rows == expected
        print(f"{model}: {alone:.1f} ms in this process, {apart:.1f} ms in workers", flush=True)


if __name__ == "__main__":
    main()
