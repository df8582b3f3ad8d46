"""`gibench.run` and `gibench.sweep`: the commands of the same names from Python."""

import base64
import inspect
import io
import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import gibench
from gibench.api import _listed
from gibench.attack import Reconstruction
from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.errors import DataWarning
from gibench.result import COLUMNS, Row
from gibench.results import Results as Folder

SMALL = {"model": "mlp:width=20,depth=2", "batch_size": 4, "device": "cpu", "executor": "local"}
pytestmark = pytest.mark.usefixtures("plugins", "workplace")


def test_importing_gibench_and_looking_at_it_is_cheap():
    script = (
        "import gibench, sys; names = dir(gibench); assert callable(gibench.sweep)\n"
        "print([each for each in ('torch', 'pandas', 'pydantic', 'mlflow') if each in sys.modules])\n"
        "import inspect; inspect.signature(gibench.run)\n"
        "print([each for each in ('torch', 'mlflow') if each in sys.modules], names == gibench.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[]", "[] True", ""]


def test_a_name_that_is_not_there_is_no_attribute():
    assert not hasattr(gibench, "runs")


def test_the_signature_and_the_help_name_every_axis_with_its_default():
    parameters = inspect.signature(gibench.run).parameters
    assert parameters["attack"].default is inspect.Parameter.empty
    for name, axis in axes_of(Cell).items():
        assert name == "attack" or parameters[name].default == axis.default
        assert name == "attack" or f"{name}: {axis.help} Default: {axis.default}." in gibench.run.__doc__
    assert "axes" not in parameters
    assert list(inspect.signature(gibench.sweep).parameters)[:3] == ["suite", "device", "threads"]


def test_rows_are_those_of_the_command_line_and_neither_runs_again_what_the_other_has(call, capsys):
    found = gibench.run(["random", "mean-image"], seed=range(2), **SMALL)
    assert capsys.readouterr() == ("", "")
    options = ("--attack", "random", "--attack", "mean-image", "--seed", "0-1", "--batch-size", "4", "--device", "cpu")
    code, out, err = call("run", *options, "--model", SMALL["model"], "--json")
    assert (code, err.count("stored before")) == (0, 4)
    assert list(found.rows["run_id"]) == [row["run_id"] for row in json.loads(out)]
    assert list(found.rows) == [*COLUMNS, "run_id", "started"]
    assert list(gibench.run("random", seed="0-1", **SMALL).rows["run_id"]) == list(found.rows["run_id"])[:3:2]
    assert len(found) == len(Folder().rows(Row)) == 4


def test_a_suite_is_a_name_a_file_or_what_a_file_holds(workplace):
    suite = {"attack": "random", "seed": range(2), "grids": [{"batch_size": (3, np.int64(4))}, {"labels": "same"}]}
    suite |= {"model": SMALL["model"], "batch_size": 5}
    (workplace / "mine.yaml").write_text(json.dumps(suite | {"seed": "0-1", "grids": [{"batch_size": [3, 4]}]}))
    found = gibench.sweep(suite, executor="local", device="cpu")
    assert sorted(found.rows["batch_size"]) == [3, 3, 4, 4, 5, 5]
    again = gibench.sweep("mine.yaml", executor="local", device="cpu")
    assert set(again.rows["run_id"]) < set(found.rows["run_id"])
    with pytest.raises(gibench.UsageError, match=r"there is no suite smok: give a file, or one of .*smoke"):
        gibench.sweep("smok")


@pytest.mark.slow
def test_a_suite_with_utility_has_its_costs_beside(workplace):
    suite = {"attack": "random", "utility": "digits", "model": "linear", "batch_size": 4, "dataset": "digits"}
    found = gibench.sweep(suite, executor="local", device="cpu")
    assert list(found.rows["attack"]) == ["random"]
    assert list(found.costs["defense"]) == ["none"] * 3
    assert found.costs["accuracy"].min() > 0.5
    assert gibench.run("random", **SMALL).costs.empty


@pytest.mark.parametrize(
    ("value", "listed"),
    [
        ("spearpp", ["spearpp"]),
        (3, [3]),
        (range(2), [0, 1]),
        ((each for each in "ab"), ["a", "b"]),
        (np.arange(2), [0, 1]),
        (np.int64(4), [4]),
        (True, [True]),
        ({"a": 1}, [{"a": 1}]),
        (b"x", [b"x"]),
    ],
)
def test_an_axis_takes_one_value_or_several(value, listed):
    found = _listed(value)
    assert found == listed
    assert [type(each) for each in found] == [type(each) for each in listed]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"attack": "spaerpp"}, r"unknown attack 'spaerpp' \(did you mean 'spearpp'"),
        ({"attack": "random", "batchsize": 8}, "gibench.run has no axis 'batchsize': there are attack, batch_size,"),
        ({"attack": "random", "grids": []}, "gibench.run has no axis 'grids'"),
        ({"attack": "random", "seed": True}, "gibench.run: seed=.* is refused"),
        ({"attack": "random", "seed": [0.5]}, "gibench.run: seed=.* is refused"),
        ({"attack": "random", "seed": []}, "gibench.run: seed=.* is refused"),
        ({"attack": []}, "gibench.run names no attack: add one"),
        ({"attack": "random", "batch_size": 0}, "gibench.run: batch_size=.* is refused"),
        ({"attack": "random", "jobs": 0}, "jobs='0' is refused: give a number from 1"),
        ({"attack": "random", "executor": "slurm"}, "executor='slurm' is refused: there are process, local, ray"),
        ({"attack": "random", "timeout": -1}, "gibench.run: timeout=-1 is refused"),
        ({"attack": "random", "results": 5}, "gibench.run: results=5 is refused"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_leaves_nothing(workplace, options, complaint):
    with pytest.raises(gibench.UsageError, match=complaint) as error:
        gibench.run(**options)
    assert "\n" not in str(error.value)
    assert not (workplace / "gibench-results").exists()


def test_a_failed_cell_is_a_row_and_its_reason_is_shown():
    found = gibench.run(["random", "raises"], **SMALL)
    assert list(found.rows["status"]) == ["ok", "failed"]
    (reason,) = found.rows["reason"].dropna()
    assert reason in repr(found)


def test_a_cell_without_a_score_has_no_images(make_stored):
    found = gibench.Results([make_stored(status="failed", psnr_mean=None)], Folder())
    assert len(found.rows) == 1
    assert found.images.empty
    assert found.pictures == {}


def test_ctrl_c_keeps_what_is_finished_and_the_same_call_goes_on(monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        gibench.run(["random", "interrupts", "mean-image"], **SMALL)
    (kept,) = Folder().rows(Row)
    assert kept.attack == "random"
    monkeypatch.setattr(
        "gibench_misbehaving.Interrupts.reconstruct", lambda *_: Reconstruction(torch.zeros(4, 3, 32, 32))
    )
    found = gibench.run(["random", "interrupts", "mean-image"], **SMALL)
    assert list(found.rows["status"]) == ["ok"] * 3
    assert found.rows["run_id"][0] == kept.run_id


def test_it_is_quiet_unless_progress_is_wanted(capsys):
    gibench.run("random", progress=True, **SMALL)
    out, err = capsys.readouterr()
    assert out == ""
    assert "[1/1] random | none" in err


def test_a_store_that_cannot_be_used_is_a_warning(workplace):
    (workplace / "other.db").write_text("no database")
    with pytest.warns(DataWarning, match="gibench sync delivers them") as caught:
        found = gibench.run("random", tracking_uri="sqlite:///other.db", **SMALL)
    assert caught[0].filename == __file__
    assert list(found.rows["status"]) == ["ok"]


def test_results_go_where_they_are_wanted(workplace):
    place = workplace / "elsewhere"
    found = gibench.run("random", results=place, experiment="mine", **SMALL)
    assert [path.is_relative_to(place / "mine") for path in found.pictures.values()] == [True]
    assert not (workplace / "gibench-results").exists()


def test_force_runs_again():
    first = gibench.run("random", **SMALL)
    assert gibench.run("random", force=True, **SMALL).rows["run_id"][0] != first.rows["run_id"][0]


def test_it_shows_itself_in_a_terminal_and_in_a_notebook():
    found = gibench.run(["random", "mean-image"], seed=[0, 1], **SMALL)
    lines = [line.split() for line in repr(found).splitlines()]
    mean = found.rows["psnr_mean"][:3:2].mean()
    assert [line[:7] for line in lines if line[:1] == ["random"]] == [
        ["random", "none", "4", "2", "seeds", "ok", f"{mean:.2f}"]
    ]
    page = found._repr_html_()
    assert f"<td>{mean:.2f}</td>" in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 3  # of four
    sizes = [Image.open(io.BytesIO(base64.b64decode(each))).size for each in pictures]
    assert all(width <= 600 and height <= 400 for width, height in sizes)
    assert list(found.summary()["attack"]) == ["mean-image", "random"]
    assert set(found.images["run_id"]) == set(found.rows["run_id"]) == set(found.pictures)


def test_what_plugins_say_is_no_markup(make_stored, workplace):
    evil = "<script>alert(1)</script>\x1b[2J"
    found = gibench.Results([make_stored(status="failed", reason=evil, hardware=evil)], Folder())
    assert "<script" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()
    assert "\x1b" not in found._repr_html_() + repr(found)
    assert evil[:25] in repr(found)


def test_of_many_lines_the_first_are_shown(make_stored, workplace):
    rows = [make_stored(attack=f"dlg:restarts={count}", run_id=f"{count:032x}") for count in range(1, 100)]
    found = gibench.Results(rows, Folder())
    assert "... and 59 more lines: see .summary()" in repr(found)
    assert found._repr_html_().count("<tr>") == 41
    assert len(found.summary()) == 99


def test_no_warning_is_made_where_nothing_is_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gibench.run("random", **SMALL)
