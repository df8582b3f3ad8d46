"""Readers see the folder's rows and, of MLflow's, those that the folder has not; old stores stay readable."""

import json
import shutil
from pathlib import Path

import pytest

from gibench.delivery import Delivery
from gibench.errors import DataWarning, UsageError
from gibench.result import Row
from gibench.results import Results
from gibench.stored import Stored


@pytest.fixture
def results(workplace):
    return Results(create=True)


def delivered(results):
    with Delivery(results, None, None, pytest.fail, lambda message, fraction=None: None):
        pass


def test_rows_of_the_folder_count_and_those_of_others_join_them(results, record, make_result):
    theirs = record(None, make_result(cell="a" * 16, seed=7))
    shared = record(None, make_result(cell="b" * 16))
    mine = [results.save(make_result(cell=cell * 16)) for cell in "bc"]
    delivered(results)
    rows = Stored().rows(Row)
    assert rows == [theirs, *mine]
    assert shared not in rows
    assert Stored().images(rows)["run_id"].tolist() == [mine[0].run_id] * 2 + [mine[1].run_id] * 2 + [theirs.run_id] * 2


def test_a_store_that_holds_nothing_else_is_not_opened(results, make_result, monkeypatch):
    row = results.save(make_result())
    delivered(results)
    monkeypatch.setattr("gibench.tracking.open_store", pytest.fail)
    assert Stored().rows(Row) == [row]


def test_what_force_has_replaced_is_still_shown_by_its_own_id(results, make_result):
    first = results.save(make_result(psnr_mean=17.0))
    delivered(results)
    second = results.save(make_result(psnr_mean=18.0), force=True)
    delivered(results)
    assert Stored().row(Row, second.run_id[:8])[0] == second
    row, details = Stored().row(Row, first.run_id[:8])
    assert (row.psnr_mean, row.cell) == (17.0, first.cell)
    assert details["diagnostics"] == dict(make_result().diagnostics)


def test_an_old_store_without_a_folder_is_read_as_before(workplace, record, make_result):
    row = record(None, make_result())
    assert Stored().rows(Row) == [row]
    assert Stored().row(Row, row.run_id[:8])[0] == row
    assert not Path("gibench-results").exists()


def test_no_folder_and_no_store_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no tracking store"):
        Stored().rows(Row)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"no database", b""])
def test_a_store_that_cannot_be_read_costs_a_warning_where_there_is_a_folder(results, make_result, content):
    row = results.save(make_result())
    if content is None:
        Path("gibench.db").unlink()
        assert Stored().rows(Row) == [row]
        uri = "sqlite:///named.db"
    else:
        Path("gibench.db").write_bytes(content)
        uri = None
    with pytest.warns(DataWarning, match="tracking store"):
        assert Stored(tracking_uri=uri).rows(Row) == [row]


def test_a_row_is_shown_by_its_id_its_key_or_mlflows_id(call, results, record, make_result):
    row = results.save(make_result())
    delivered(results)
    other = record(None, make_result(cell="a" * 16))
    for text, wanted in ((row.run_id[:8], row), (row.cell[:8], row), (other.run_id[:8], other)):
        (shown,) = json.loads(call("show", text, "--json").out)
        assert shown["cell"] == wanted.cell
        assert Path(shown["grid"]).read_bytes() == b"\x89PNG"
    assert call("show", "f" * 32).code == 2


def test_a_copied_folder_reads_what_the_other_has_delivered_since(results, workplace, make_result, monkeypatch):
    first = results.save(make_result(cell="a" * 16))
    shutil.copytree(results.root, workplace / "copy")
    second = results.save(make_result(cell="b" * 16))
    delivered(results)
    assert [row.cell for row in Stored("copy").rows(Row)] == [first.cell, second.cell]


def test_details_are_of_the_row_that_was_asked_for(results, record, make_result, tmp_path_factory, monkeypatch):
    theirs = record(None, make_result(cell="a" * 16))
    mine = results.save(make_result(cell="b" * 16))
    stored = Stored()
    assert stored.details(mine)["artifacts"] == str(results.folder / mine.key)
    there = stored.details(theirs)
    assert Path(there["grid"]).read_bytes() == b"\x89PNG"
    assert there["diagnostics"] == stored.details(mine)["diagnostics"]
    monkeypatch.setattr("gibench.tracking.here_now", lambda file, address: None)  # as if they were a server's
    copies = tmp_path_factory.mktemp("copies")
    assert Path(stored.details(theirs, str(copies))["images"]).is_relative_to(copies)
    shutil.rmtree(results.folder / mine.key)
    monkeypatch.setattr("gibench.stored.is_missing", lambda uri: True)
    with pytest.raises(UsageError, match="are gone: run its cell again"):
        stored.details(mine)
