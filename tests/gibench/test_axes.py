"""An axis is declared once; everything that has axes derives from the declaration."""

from dataclasses import dataclass, fields

import pytest
import typer
from typer.testing import CliRunner

from gibench.axes import axes_of, axis, expand, same_axis, scenario_of
from gibench.cell import Cell, CellAxes
from gibench.cli import options
from gibench.cli.app import app
from gibench.errors import UsageError
from gibench.job import Job
from gibench.result import Row, StoredRow, columns_of, measured
from gibench.sweep.how import How
from gibench.sweep.request import with_axes
from gibench.sweep.suite import Suite
from gibench.utility.job import Trial, TrialAxes, TrialRow
from gibench.utility.request import Utility

KINDS = [("run", CellAxes, Cell, Row, Suite), ("utility", TrialAxes, Trial, TrialRow, Utility)]


@pytest.mark.parametrize(("verb", "axes", "job", "row", "request_"), KINDS)
def test_options_suite_keys_and_columns_are_the_axes(verb, axes, job, row, request_):
    names = set(axes_of(axes))
    shown = typer.main.get_command(app).commands[verb]
    assert names <= {parameter.name for parameter in shown.params}
    assert names <= set(request_.model_fields)
    assert names == {name for name, column in columns_of(row).items() if column.axis}
    assert names == set(axes_of(job)) == set(axes_of(row))


def test_a_scenario_is_everything_but_what_is_compared_and_what_only_repeats():
    assert set(axes_of(CellAxes)) - set(scenario_of(CellAxes)) == {"attack", "defense", "seed", "threads"}
    assert set(axes_of(TrialAxes)) - set(scenario_of(TrialAxes)) == {"defense", "seed", "threads"}


@dataclass(frozen=True)
class Sweet:
    """Two axes of its own and one of cells."""

    sugar: int = axis(1, "Lumps.", kind=int, least=0, before=2)
    milk: str = axis("none", "Of what.", choices=("none", "cow", "oat"))
    seed: int = same_axis(CellAxes, "seed", default="0-1")


@dataclass(frozen=True)
class Cup(Sweet, Job):
    """A job on them."""

    harness = "gibench.job"

    def check(self):
        """Nothing can be wrong."""

    def run(self, progress):
        raise AssertionError("never called")


@dataclass(frozen=True)
class CupRow(Sweet, StoredRow):
    """What a cup gave."""

    key_column = "cup"
    cup: str = measured("tag", "Key.", default="")
    taste: float | None = measured("metric", "How it is.")


def test_one_line_makes_option_key_and_column():
    assert list(columns_of(CupRow)) == [
        "cup",
        "seed",
        "milk",
        "sugar",
        "status",
        "reason",
        "hardware",
        "torch",
        "workers",
        "taste",
    ]
    asked = with_axes(Cup, CupRow)
    cups = asked.from_settings("cups", {"sugar": [0, 3], "milk": "oat"}).jobs()
    assert [(cup.sugar, cup.milk, cup.seed) for cup in cups] == [
        (0, "oat", 0),
        (0, "oat", 1),
        (3, "oat", 0),
        (3, "oat", 1),
    ]
    assert len({cup.key for cup in cups}) == 4
    for wrong in ({"sugar": -1}, {"milk": "goat"}, {"seed": "1-0"}, {"honey": 1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            asked.from_settings("cups", wrong)


def test_options_reach_the_command_as_one_mapping():
    given = []
    program = typer.Typer()

    @program.command()
    @options.takes_axes(Sweet)
    def brew(axes: dict, how: How, hot: bool = False):
        given.append((axes, hot))

    runner = CliRunner()
    assert runner.invoke(program, ["--sugar", "0", "--sugar", "2", "--hot"]).exit_code == 0
    assert runner.invoke(program, ["--seed", "0-4"]).exit_code == 0
    assert given == [({"sugar": [0, 2]}, True), ({"seed": ["0-4"]}, False)]


def test_what_is_not_named_has_the_default():
    (cell,) = expand(Cell, {"attack": ["random"], "device": ["cpu"]})
    assert (cell.seed, cell.dataset, cell.split, cell.labels) == (0, "photos", "private", "iid")
    assert {field.name for field in fields(Cell)} == {*axes_of(Cell), "timeout"}
