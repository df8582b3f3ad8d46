"""What is printed of many rows: the first lines, and why any of them has no result."""

from dataclasses import replace

from gibench.axes import axes_of, expand
from gibench.cell import Cell
from gibench.cli.table import print_cells
from gibench.result import Row
from gibench.results import Results
from gibench.sweep.suite import Suite


def test_of_many_lines_the_first_are_printed_and_the_others_counted(tmp_path, capsys):
    cells = expand(Cell, {"attack": ["random"], "device": ["cpu"], "batch_size": range(1, 204)})
    rows = [Row(**{name: getattr(cell, name) for name in axes_of(Cell)}, run_id="0" * 32) for cell in cells]
    rows[-1] = replace(rows[-1], status="failed", reason="it fell")
    print_cells(rows, Results(tmp_path), Suite.from_settings("test", {"attack": "random"}))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("random ") for line in lines) == 200
    assert "... and 3 more lines: see gibench leaderboard" in lines
    assert "failed: it fell (random | none | mlp | photos | batch 203 | seed 0; gibench show 00000000)" in lines
