"""`gibench show` prints one stored row in full."""

import json

import pytest

from gibench.result import COLUMNS, Row
from gibench.tracking import Store


@pytest.fixture
def run(uri, record, make_result):
    return record(uri, make_result(oracle=True)).run_id


def test_every_column_and_what_lies_beside_the_row_is_shown(call, uri, run, tmp_path):
    code, out, err = call("show", run, "--tracking-uri", uri)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines][: len(COLUMNS)] == list(COLUMNS)
    assert {"psnr_mean: 95.5", "label_accuracy: -", "oracle: yes", f"run_id: {run}", "mse_mean: 1e-09"} <= set(lines)
    assert f"grid: {Store(Row, uri).row(run)[1]['grid']}" in lines
    assert lines[lines.index("diagnostics:") + 1] == "  gap: 12.5"
    assert {"  stages:", "    svd: 0.25", "  losses: 1, 0.5", "  git_commit: -"} <= set(lines)


def test_the_grid_that_is_shown_exists(call, uri, run):
    (shown,) = json.loads(call("show", run, "--tracking-uri", uri, "--json")[1])
    with open(shown["grid"], "rb") as file:
        assert file.read() == b"\x89PNG"


def test_json_is_an_array_of_the_row_with_what_lies_beside_it(call, uri, run):
    code, out, err = call("show", run[:10], "--tracking-uri", uri, "--json")
    assert (code, err) == (0, "")
    row, details = Store(Row, uri).row(run)
    assert json.loads(out) == [row.as_dict() | details]


def test_a_traceback_is_shown_line_by_line(call, uri, record, make_result):
    result = make_result(status="failed")
    result.provenance["traceback"] = "Traceback:\n  File 'attack.py'\nValueError: no luck"
    run = record(uri, result).run_id
    assert (
        "  traceback:\n    Traceback:\n      File 'attack.py'\n    ValueError: no luck\n"
        in call("show", run, "--tracking-uri", uri)[1]
    )


def test_an_unknown_run_is_one_clear_line(call, uri, run):
    code, out, err = call("show", "0" * 32, "--tracking-uri", uri)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "is the beginning of no stored row" in err


def test_no_store_is_one_clear_line(call, tmp_path):
    code, _, err = call("show", "abc", "--tracking-uri", f"sqlite:///{tmp_path}/missing.db")
    assert code == 2
    assert "there is no tracking store" in err
