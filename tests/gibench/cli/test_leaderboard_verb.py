"""`gibench leaderboard` and `gibench.leaderboard()` read what is stored and run nothing."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import gibench as package
from gibench.mlflow_store import open_store
from gibench.registry import readable
from gibench.result import COLUMNS, Result, Row
from gibench.tracking import Store
from gibench.utility.job import TrialRow

DP = "dp:delta=1e-05,max_grad_norm=1.0,noise_multiplier=1.0,run_steps=1000"
NAMES = [*COLUMNS, "run_id", "started"]


@pytest.fixture
def stored(uri, record, make_result):
    """A store of three cells: one attack on two seeds, and one that could not run."""
    for seed, psnr in enumerate((80.0, 100.0)):
        record(uri, make_result(attack="mean-image", defense=DP, seed=seed, psnr_median=psnr, exact_rate=0.0))
    record(uri, make_result(attack="gone:setting=1", defense=DP, status="skipped", reason="no bias", psnr_mean=None))
    return uri


def test_the_table_shows_means_over_seeds_and_what_could_not_run(call, stored):
    code, out, err = call("leaderboard", "--tracking-uri", stored)
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "mean-image" in line]
    assert line.split()[:6] == ["dp", "mean-image", "1", "2", "/", "2"]
    assert line.split()[6:11] == ["0.000", "[0.000,", "0.000]", "90.00", "[80.00,"]
    assert "gone:setting=1 against" in out  # a plugin that is not installed any more is shown as it was stored
    assert "skipped: no bias (seed 0)" in out


def test_a_published_table_states_the_settings_of_the_defense(call, stored):
    _, out, _ = call("leaderboard", "--tracking-uri", stored, "--format", "md")
    assert f"| `{DP}` | `mean-image` | 1 | 2 / 2 | 0.000 [0.000, 0.000] | 90.00 [80.00, 100.00] |" in out


def test_csv_holds_every_row(call, stored):
    _, out, _ = call("leaderboard", "--tracking-uri", stored, "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert list(lines[0]) == NAMES
    assert [line["psnr_median"] for line in lines] == ["80.0", "100.0", "100.0"]
    assert [line["psnr_mean"] for line in lines] == ["95.5", "95.5", ""]


@pytest.mark.parametrize("option", [["--format", "json"], ["--json"]])
def test_json_holds_every_row(call, stored, option):
    code, out, err = call("leaderboard", "--tracking-uri", stored, *option)
    assert (code, err) == (0, "")
    assert json.loads(out) == [row.as_dict() for row in Store(Row, stored).rows()]


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_output_goes_to_a_file(call, stored, tmp_path, form):
    _, printed, _ = call("leaderboard", "--tracking-uri", stored, "--format", form)
    code, out, err = call("leaderboard", "--tracking-uri", stored, "--format", form, "--output", tmp_path / "file")
    assert (code, out, err) == (0, "", "")
    assert (tmp_path / "file").read_text() == printed


def test_an_output_that_cannot_be_written_is_one_clear_line(call, stored, tmp_path):
    code, out, err = call("leaderboard", "--tracking-uri", stored, "--output", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path} cannot be written: Is a directory: choose another --output\n"


def test_an_unknown_format_says_which_there_are(call, stored):
    code, _, err = call("leaderboard", "--tracking-uri", stored, "--format", "xml")
    assert code == 2
    assert "'table', 'md', 'csv', 'json'" in " ".join(err.replace("│", " ").split())


def test_no_store_is_one_clear_line_and_none_is_made(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("leaderboard")
    assert (code, out) == (2, "")
    assert err == (
        f"error: there is no tracking store {tmp_path}/gibench.db yet: run something first, or see --tracking-uri\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_rows_is_said_to_have_none(call, uri):
    open_store(uri, None, create=True)
    assert call("leaderboard", "--tracking-uri", uri) == (0, "no stored rows\n", "")
    assert call("leaderboard", "--tracking-uri", uri, "--json") == (0, "[]\n", "")


def test_the_python_call_gives_the_rows(stored):
    found = package.leaderboard(tracking_uri=stored)
    assert list(found) == NAMES
    assert found["psnr_median"].tolist() == [80.0, 100.0, 100.0]
    assert found["psnr_mean"].isna().tolist() == [False, False, True]


def test_the_package_stays_importable_and_light():
    program = (
        "import sys, gibench\n"
        "assert callable(gibench.leaderboard)\n"
        "heavy = {'torch', 'pandas', 'mlflow', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import gibench.leaderboard.table as table\n"
        "assert gibench.leaderboard.table is table\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=3600, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_program_prints_nothing_but_the_rows(stored):
    command = [Path(sys.executable).with_name("gibench"), "leaderboard", "--tracking-uri", stored, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["seed"] for row in json.loads(done.stdout)] == [0, 1, 0]


def test_costs_are_exported_in_place_of_the_cells(call, stored, record):
    run = TrialRow(
        dataset="digits", model="linear", device="cpu", threads=1, batch_size=8, rounds=3, defense="none", seed=4
    )
    measured = {"accuracy": 0.5, "loss": 1.5, "round_s": 0.25, "round_bytes": 4000.0}
    saved = record(stored, Result(replace(run, utility="f" * 16, **measured)))
    where = ("--tracking-uri", stored, "--costs", "--format")
    assert json.loads(call("leaderboard", *where, "json").out) == [saved.as_dict()]
    (line,) = csv.DictReader(io.StringIO(call("leaderboard", *where, "csv").out))
    assert (line["utility"], line["rounds"], line["accuracy"]) == ("f" * 16, "3", "0.5")
    code, _, err = call("leaderboard", *where, "md")
    assert (code, err) == (2, "error: --costs is for --format csv or json: gibench utility shows its table\n")


def test_a_spec_within_a_spec_is_shortened_too():
    assert readable("attack", "wrong-gradient:attack='layer-pair:patience=10,starts=2'") == (
        "wrong-gradient:attack=layer-pair"
    )
    assert readable("attack", "gone:attack='x:y=1'") == "gone:attack='x:y=1'"
