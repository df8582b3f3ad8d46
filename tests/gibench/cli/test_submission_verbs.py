"""`gibench export`, `check-submission` and `leaderboard --from`: rows leave one machine and are believed on another."""

import csv
import io
import json
import shutil

import pytest

from gibench.leaderboard.formats import to_csv
from gibench.leaderboard.table import table
from gibench.result import Result, Row
from gibench.results import Results
from gibench.submission import content
from gibench.sweep.how import How
from gibench.utility.job import TrialRow

SUITE = """
name: small
attack: [random, mean-image, "wrong-gradient:attack=analytic"]
model: mlp:width=20,depth=2
batch_size: 3
seed: 0
device: cpu
threads: 1
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder with a suite that was run, to be copied."""
    from gibench.experiment import run_cell
    from gibench.sweep.executors import beside
    from gibench.sweep.suite import Suite

    folder = tmp_path_factory.mktemp("swept")
    (folder / "small.yaml").write_text(SUITE)
    results = Results(folder / "gibench-results", "gibench", create=True)
    for cell in Suite.read(folder / "small.yaml", {}).cells():
        results.save(beside(run_cell(cell, lambda message, fraction=None: None), 1), pictures=False)
    return folder


@pytest.fixture
def here(swept, tmp_path, monkeypatch):
    """A working folder with it; what is run again runs in this process."""
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(How, "apart", False)
    return tmp_path


def test_what_was_swept_is_exported_checked_and_run_again(call, here):
    code, out, err = call("export", "-o", "rows.zip", "--suite", "small.yaml")
    assert (code, out) == (0, "")
    assert err == "3 rows are in rows.zip: gibench check-submission rows.zip checks them\n"
    code, out, err = call("check-submission", "rows.zip", "--rerun", "2", "--seed", "7")
    assert (code, out) == (0, "")
    assert "running 2 cells again of 3 that can be run here, picked by --seed 7" in err
    assert err.count("\nran cell ") == 2
    assert err.endswith("3 rows checked: 0 faults\n")


def test_the_same_rows_are_the_same_bytes_also_on_another_machine(call, here):
    call("export", "-o", "rows.zip", "--suite", "small.yaml")
    call("merge", "gibench-results", "--results", "elsewhere")
    call("export", "-o", "again.zip", "--suite", "small.yaml", "--results", "elsewhere")
    assert (here / "rows.zip").read_bytes() == (here / "again.zip").read_bytes()


def test_a_fault_is_a_line_and_an_exit_code(call, here):
    (row,) = [row for row in Results().rows(Row) if row.attack == "random"]
    file = here / "gibench-results" / "gibench" / row.cell / "result.json"
    changed = json.loads(file.read_text())
    changed["row"]["exact_rate"] = 1.0
    file.write_text(json.dumps(changed))
    call("export", "-o", "rows.zip")
    code, out, err = call("check-submission", "rows.zip", "--rerun", "0")
    assert code == 1
    line = f"cell {row.cell} (random | none | batch 3 | seed 0): exact_rate is 1.0, and its images give 0.0: export"
    assert out.startswith(line)
    assert out.count("\n") == 1
    assert err.endswith("3 rows checked: 1 fault\n")
    assert "warning: it names no suite" in err
    code, out, _ = call("check-submission", "rows.zip", "--rerun", "0", "--json")
    (found,) = json.loads(out)
    assert (code, found["fault"]) == (1, "exact_rate is 1.0, and its images give 0.0")
    code, out, err = call("check-submission", "rows.zip", "--rerun", "3", "--seed", "0")
    assert "exact_rate is 1.0, and a second run gives 0.0, not equal to the last bit" in out


def test_what_is_no_submission_is_refused(call, here):
    for name, words in (("small.yaml", "cannot be read"), ("nothing", "there is no file nothing")):
        code, out, err = call("check-submission", name)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1


def test_cells_of_the_suite_that_are_missing_are_said(call, here):
    (here / "more.yaml").write_text(SUITE.replace("seed: 0", "seed: 0-1"))
    _, _, err = call("export", "-o", "rows.zip", "--suite", "more.yaml")
    assert "warning: 3 of the suite's 6 cells are not stored: gibench sweep more.yaml runs them\n" in err
    code, out, _ = call("check-submission", "rows.zip", "--rerun", "0")
    assert code == 1
    assert "random | none | batch 3: the seeds 1 of the suite are missing (rule E9): run and export them" in out


def test_nothing_to_export_and_no_place_to_write_are_one_clear_line(call, here):
    (here / "other.yaml").write_text(SUITE.replace("batch_size: 3", "batch_size: 2"))
    code, _, err = call("export", "-o", "rows.zip", "--suite", "other.yaml")
    assert (code, err) == (
        2,
        "error: none of the suite other's cells is stored: run it first, or see --results and --experiment\n",
    )
    assert not (here / "rows.zip").exists()
    code, _, err = call("export", "-o", here)
    assert (code, err) == (2, f"error: {here} cannot be written: Is a directory: choose another --output\n")


def test_rows_of_files_are_shown_in_place_of_stored_ones_or_beside_them(call, here):
    call("export", "-o", "rows.zip")
    stored = list(csv.DictReader(io.StringIO(call("leaderboard", "--format", "csv").out)))
    shown = list(csv.DictReader(io.StringIO(call("leaderboard", "--from", "rows.zip", "--format", "csv").out)))
    assert shown == stored
    (here / "rows.csv").write_text(to_csv(table(Results().rows(Row))))
    shutil.rmtree(here / "gibench-results")
    code, out, _ = call("leaderboard", "--from", "rows.zip", "--from", "rows.csv")
    assert code == 0
    assert [out.count(name) for name in ("rows.zip", "rows.csv")] == [3, 3]
    (line,) = [line for line in out.splitlines() if line.split()[:2] == ["none", "random"] and "rows.csv" in line]
    assert "1 / 1" in line
    code, _, err = call("site", "pages", "--from", "rows.zip")
    assert (code, err.splitlines()[-1]) == (0, f"pages/index.html: {len(shown)} cells")
    listed = json.loads(call("leaderboard", "--from", "rows.zip", "--from", "rows.csv", "--json").out)
    assert sorted(row["source"] for row in listed) == ["rows.csv"] * 3 + ["rows.zip"] * 3


def test_files_stand_beside_what_is_stored_where_that_is_named(call, here):
    call("export", "-o", "rows.zip")
    out = call("leaderboard", "--from", "rows.zip", "--results", "gibench-results", "--format", "md").out
    assert [out.count(f"| {name} |") for name in ("`rows.zip`", "rows.zip", "stored")] in ([0, 3, 3], [3, 0, 3])


@pytest.mark.parametrize("text", [b"PK\x03\x04", b"\xff\xfe", b"name\nvalue\n"])
def test_a_file_that_holds_no_rows_is_one_clear_line(call, here, text):
    (here / "file").write_bytes(text)
    code, out, err = call("leaderboard", "--from", "file")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: file ")


def test_what_defenses_cost_goes_with_the_rows(call, here):
    (row, *_) = Results().rows(Row)
    where = {name: getattr(row, name) for name in ("model", "device", "threads", "batch_size", "defense")}
    run = TrialRow(dataset="digits", rounds=3, seed=0, **where, utility="f" * 16, accuracy=0.5, loss=1.5, hardware="it")
    Results(None, None, create=True).save(Result(run))
    call("export", "-o", "rows.zip")
    code, _, err = call("check-submission", "rows.zip", "--rerun", "0")
    assert (code, err.splitlines()[-1]) == (0, "3 rows checked: 0 faults")
    assert "warning: 1 training runs say what defenses cost, which is not checked" in err
    listed = json.loads(call("leaderboard", "--from", "rows.zip", "--json").out)
    assert {each["utility_accuracy"] for each in listed} == {0.5}


def test_rows_that_are_in_a_store_alone_are_exported_too(call, uri, record, make_result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_result(cell="a" * 16)
    record(uri, made)
    code, _, err = call("export", "-o", "rows.zip", "--tracking-uri", uri)
    assert (code, err.split()[0]) == (0, "1")
    _, found = content.read(tmp_path / "rows.zip")
    assert found.images == {"a" * 16: made.images.to_csv(index=False)}
    assert found.codes == {}


def test_costs_are_of_no_file(call, here):
    code, _, err = call("leaderboard", "--from", "rows.zip", "--costs", "--format", "csv")
    assert (code, err) == (2, "error: --costs is of stored training runs: leave --from out\n")
