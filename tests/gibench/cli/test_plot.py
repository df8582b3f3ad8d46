"""`gibench plot` draws what is stored and runs nothing."""

import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from gibench.cli.plot import plot
from gibench.leaderboard.plots import PLOTS
from gibench.result import Result

SPEARPP = "spearpp:iterations=500,preset=full"


@pytest.fixture
def stored(uri, record, make_row):
    """A store of one attack under two label policies, and of another."""
    images = pd.DataFrame({"truth": [0, 1], "nearest": [12.0, 31.0], "exact": [True, False]})
    diagnostics = {"sparsity_matching": 1.0, "seconds": {"svd": 0.5}}
    for labels in ("iid", "same"):
        for psnr in (10.0, 20.0):  # the second replaces the first
            record(uri, Result(make_row(attack=SPEARPP, labels=labels, psnr_mean=psnr), images, None, diagnostics))
    record(uri, Result(make_row(attack="mean-image")))
    return uri


@pytest.mark.parametrize(("name", "cells"), [("scaling", 1), ("hard_batches", 2)])
def test_a_figure_is_written_of_the_newest_rows_that_it_is_of(call, stored, tmp_path, name, cells):
    file = tmp_path / "figure.png"
    code, out, err = call("plot", name, "--tracking-uri", stored, "--output", file)
    assert (code, out, err) == (0, "", f"{file}: {cells} of 3 stored cells\n")
    assert Image.open(file).size[0] > 1000


@pytest.mark.parametrize(("suffix", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_suffix_says_what_is_written(call, stored, tmp_path, suffix, begin):
    file = tmp_path / f"figure.{suffix}"
    assert call("plot", "scaling", "--tracking-uri", stored, "--output", file).code == 0
    assert file.read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("wals", "--output", "a.png"), f"there is no plot 'wals': there are {', '.join(PLOTS)}"),
        (("wall", "--output", "a.gif"), "a.gif has no suffix that says what to write: end it in .png, .svg, .pdf"),
        (("wall", "--output", "a"), "a has no suffix"),
        (
            ("scaling", "--output", "missing/a.png"),
            "missing/a.png cannot be written: No such file or directory: choose",
        ),
        (("ablation", "--output", "a.png"), "the experiment 'gibench' has nothing for the plot ablation, which needs"),
        (("wall", "--experiment", "other", "--output", "a.png"), "other"),
    ],
)
def test_a_mistake_is_one_clear_line(call, stored, tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("plot", *arguments, "--tracking-uri", stored)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert complaint in err
    assert err.count("\n") == 1


def test_the_help_names_every_plot(call):
    shown = call("plot", "--help").out
    assert all(name in shown for name in PLOTS)
    assert "spearpp" in plot.__doc__


def test_the_program_does_not_import_what_only_a_figure_needs():
    program = (
        "import sys, gibench.cli.app\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'mlflow', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=3600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
