"""`gibench leaderboard` and `gibench.leaderboard()` read what is stored and run nothing."""

import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import gibench as package
from gibench.mlflow_store import open_store
from gibench.registry import readable
from gibench.result import COLUMNS, Result, Row
from gibench.results import Results
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


@pytest.mark.parametrize("form", ["table", "md", "latex", "csv", "json"])
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
    assert "'table', 'md', 'latex', 'csv', 'json'" in " ".join(err.replace("│", " ").split())


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


@pytest.fixture
def folder(tmp_path, make_result, monkeypatch):
    """A folder of results of three attacks on three seeds against one defense; no store."""
    monkeypatch.chdir(tmp_path)
    results = Results("gibench-results", create=True)
    scores = {
        "layer-pair": (1.0, 100.0, 2.0),
        "mean-image": (0.0, 10.0, 0.5),
        "analytic:tolerance=0.001": (0.0, 30.0, 1),
    }
    for attack, (exact, psnr, seconds) in scores.items():
        for seed in range(3):
            more = {"exact_rate": exact, "psnr_median": psnr + seed, "runtime_s": seconds, "cell": ""}
            more |= {"defense": DP, "seed": seed, "control": attack == "mean-image", "reidentified_rate": exact}
            row = make_result(attack=attack, **more)
            results.save(replace(row, row=replace(row.row, cell=f"{attack[0]}{seed}".ljust(16, "0"))))
    return tmp_path


def test_filters_take_lines_away_and_change_no_rank(call, folder):
    (line,) = [line for line in call("leaderboard", "--filter", "attack=analytic").out.splitlines() if "dp " in line]
    assert line.split()[:3] == ["dp", "analytic", "2"]
    assert "20.0" in line.split()  # dB above the control, whose line is not shown
    assert "no control was run" not in line
    rows = json.loads(call("leaderboard", "--filter", "attack=analytic", "--filter", "seed=1-2", "--json").out)
    assert [row["seed"] for row in rows] == [1, 2]


def test_columns_and_order_are_chosen(call, folder):
    where = ("--columns", "attack, psnr_mean,n_ok,reidentified_rate", "--format", "md")
    lines = call("leaderboard", *where, "--sort", "psnr_median").out.splitlines()
    assert lines[2] == "| attack | mean PSNR dB [95 %] | ok / tried | re-identified |"
    assert [line.split(" | ")[0] for line in lines[4:7]] == ["| `layer-pair`", "| `analytic`", "| `mean-image`"]
    assert call("leaderboard", *where, "--sort", "runtime_s").out.splitlines()[4].startswith("| `mean-image`")
    csv_text = call("leaderboard", "--format", "csv", "--columns", "seed,attack", "--sort", "seed").out
    assert csv_text.splitlines()[:2] == ["seed,attack", "0,layer-pair"]


def test_a_failed_cell_is_found_by_its_status_and_its_line_stays_strict(call, folder, make_result):
    row = make_result(
        attack="layer-pair", defense=DP, seed=3, status="failed", exact_rate=0.0, reason="NaN", cell="f" * 16
    )
    Results("gibench-results", create=True).save(row)
    out = call("leaderboard", "--filter", "status=failed", "--format", "md").out
    (line,) = [line for line in out.splitlines() if line.startswith(f"| `{DP}`")]
    assert "| `layer-pair` |" in line
    assert "| 3 / 4 | 0.750 [" in line
    assert "every figure is strict" in out


def test_seconds_over_those_of_a_baseline(call, folder):
    out = call("leaderboard", "--baseline", "mean-image", "--columns", "attack,times_baseline", "--format", "md").out
    assert {"| `layer-pair` | 4x |", "| `mean-image` | 1x |", "| `analytic` | 2x |"} <= set(out.splitlines())


@pytest.mark.parametrize("form", ["table", "md", "latex", "csv", "json"])
def test_two_attacks_are_compared_pair_by_pair(call, folder, form):
    code, out, err = call("leaderboard", "--compare", "layer-pair", "analytic", "--format", form)
    assert (code, err) == (0, "")
    if form == "json":
        (line,) = json.loads(out)
        assert (line["n_pairs"], line["n_better"], line["p_value"], line["psnr_difference"]) == (3, 3, 0.25, 70)
    else:
        assert "0.25" in out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--columns", "attack,colour"), "--columns has no column 'colour': there are dataset, "),
        (("--columns", "n_ok", "--json"), "--columns has no column 'n_ok': there are cell, attack, "),
        (("--sort", "colour"), "--sort has no column 'colour': there are dataset, "),
        (("--filter", "colour=red"), "--filter has no axis 'colour': there are attack, batch_size, "),
        (("--filter", "attack=dlg"), "none of 9 rows has attack=dlg: there are "),
        (("--baseline", "dlg"), "--baseline dlg is no attack among the rows: there are "),
        (("--compare", "dlg", "analytic"), "--compare dlg is no attack among the rows: there are "),
        (("--compare", "analytic", "analytic"), "analytic is compared with itself: name two attacks"),
        (("--compare", "analytic", "a:b"), "'b' in 'a:b' is no setting: write key=value"),
        (("--compare", "analytic", "layer-pair", "--columns", "attack"), "--compare has columns of its own"),
        (("--baseline", "analytic", "--json"), "--baseline is for the means of --format table, md or latex"),
        (("--costs", "--json", "--filter", "seed=0"), "--costs is of training runs, no cells: leave out --filter"),
    ],
)
def test_a_mistake_says_what_there_is(call, folder, options, complaint):
    code, out, err = call("leaderboard", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {complaint}")
    assert err.count("\n") == 1


def test_attacks_that_share_no_seed_are_one_clear_line(call, folder):
    results = Results("gibench-results", create=True)
    for row in results.rows(Row):
        if row.attack == ("analytic:tolerance=0.001" if row.seed else "layer-pair"):
            shutil.rmtree(results.folder / row.cell)
    assert call("leaderboard", "--compare", "analytic", "layer-pair") == (
        2,
        "",
        "error: analytic and layer-pair share no seed in any scenario and defense: run both on the same --seed\n",
    )


def test_a_terminal_of_eighty_columns_is_enough(call, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = call("leaderboard").out
    assert max(map(len, out.splitlines())) <= 80
    assert "[100.00, 102.00]" in out


def test_the_table_is_made_without_what_takes_seconds_to_import(folder):
    program = (
        "import sys\n"
        "from gibench.cli.app import main\n"
        "for options in ([], ['--format', 'latex'], ['--compare', 'analytic', 'layer-pair'], ['--sort', 'rank']):\n"
        "    try:\n"
        "        main(['leaderboard', '--filter', 'attack=analytic', '--filter', 'attack=layer-pair', *options])\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end.code\n"
        "heavy = {'torch', 'mlflow', 'scipy.stats', 'matplotlib', 'skimage', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("analytic") >= 4


@pytest.mark.parametrize("form", ["table", "md", "latex", "csv", "json"])
def test_a_column_named_twice_is_one_clear_line(call, folder, form):
    code, out, err = call("leaderboard", "--columns", "attack,defense,attack", "--format", form)
    assert (code, out, err) == (2, "", "error: --columns names attack twice: name each column once\n")


@pytest.mark.parametrize("option", ["--sort", "--baseline"])
def test_an_empty_value_is_no_value(call, folder, option):
    code, out, err = call("leaderboard", option, "")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_rows_of_several_files_are_compared_as_if_of_one(call, folder):
    call("leaderboard", "--format", "csv", "--output", "theirs.csv")
    both = ("--from", "theirs.csv", "--results", "gibench-results", "--format", "md")
    options = ("--baseline", "mean-image", "--columns", "attack,source,times_baseline")
    code, out, _ = call("leaderboard", *both, *options)
    assert code == 0
    assert "| `layer-pair` | theirs.csv | 4x |" in out
    assert "| `layer-pair` | stored | 4x |" in out
    code, out, _ = call("leaderboard", *both, "--compare", "layer-pair", "mean-image")
    assert code == 0
    assert "| 3 | 3 | 0 | 0 |" in out


@pytest.mark.parametrize("verb", [["leaderboard"], ["site", "pages"], ["export", "-o", "rows.zip"], ["show", "abcd"]])
@pytest.mark.parametrize("named", ["a-file", "nowhere"])
def test_a_results_folder_that_is_none_is_one_clear_line(call, folder, verb, named):
    Path("a-file").touch()
    code, out, err = call(*verb, "--results", named)
    assert (code, out) == (2, "")
    assert err == f"error: there is no results folder {folder / named}: see --results\n"
