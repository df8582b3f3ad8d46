"""What people see of a grid that runs: a line a job, how far it all is, and a sum at the end."""

from dataclasses import replace

import pytest

from gibench.axes import axes_of, expand
from gibench.cell import Cell
from gibench.cli.progress import GridProgress
from gibench.result import Row


@pytest.fixture
def clock():
    """A clock that stands still unless it is told to go on."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


CELLS = expand(Cell, {"attack": ["random", "spearpp"], "seed": range(3), "device": ["cpu"], "batch_size": [4]})


def row_of(cell, **more):
    return Row(**{name: getattr(cell, name) for name in axes_of(Cell)}, cell="0" * 16, **more)


def test_now_and_then_it_says_how_far_it_is_and_at_the_end_how_all_ended(clock, capsys):
    with GridProgress(CELLS, clock) as progress:
        for number, status in enumerate(("ok", "failed", "skipped"), start=1):
            progress.started(number, CELLS[number - 1])
            clock.now += 50
            progress.finished(number, row_of(CELLS[number - 1], status=status), False)
        progress.started(4, CELLS[3])
        progress.started(5, CELLS[4])
        clock.now += 60
        progress.finished(5, row_of(CELLS[4], runtime_s=2.0), True)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("[")] == [
        "2 done, 1 failed, about 3 min left",
        "4 done, 1 failed, 1 skipped, 1 running, about 50 s left",
        "2 ok, 1 failed, 1 skipped (1 by an earlier call) of 6 cells in 4 min",
    ]
    assert lines[0] == "[1/6] random | none | mlp | photos | batch 4 | seed 0: ok"


def test_of_thousands_that_were_stored_before_the_first_are_named_and_the_others_counted(clock, capsys):
    cells = expand(Cell, {"attack": ["random"], "seed": range(3002), "device": ["cpu"]})
    with GridProgress(cells, clock) as progress:
        for number in range(1, 3001):
            progress.finished(number, row_of(cells[number - 1]), True)
        progress.started(3001, cells[3000])
        progress.finished(3001, row_of(cells[3000]), False)
        progress.finished(3002, row_of(cells[3001]), True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[19:22] == [
        "[20/3002] random | none | mlp | photos | batch 20 | seed 19: stored before",
        "... and 2980 more that were stored before",
        "[3001/3002] random | none | mlp | photos | batch 20 | seed 3000: ok",
    ]
    assert lines[22:] == [
        "[3002/3002] random | none | mlp | photos | batch 20 | seed 3001: stored before",
        "3002 ok (3001 by an earlier call) of 3002 cells in 0 s",
    ]
    assert progress._bars.tasks[0].completed == 3002


def test_one_cell_needs_no_sum(clock, capsys):
    with GridProgress(CELLS[:1], clock) as progress:
        progress.started(1, CELLS[0])
        progress.finished(1, row_of(CELLS[0]), False)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_told_is_shown_as_letters(clock, capsys):
    hostile = replace(CELLS[0], dataset="folder:path='\x1b[2J\u202e[red]'")
    with GridProgress([hostile], clock) as progress:
        progress.started(1, hostile)
        progress.working("\x1b[31mhello\a")
        progress.finished(1, row_of(hostile), False)
    line = capsys.readouterr().err
    assert line.removesuffix("\n").isprintable()
    assert r"\x1b[2J\u202e[red]" in line
