"""Finished cells are folders of plain files: whole or not there, and read back as they went in."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gibench.errors import DataWarning, GibenchError, UsageError
from gibench.result import COLUMNS, Result, Row, columns_of
from gibench.results import Results
from gibench.results.place import experiments, identity
from gibench.utility.job import TrialRow

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)  # NUL is written out
VALUES = {str: TEXT, int: st.integers(-(2**63) + 1, 2**63 - 1), float: st.floats(allow_nan=False, allow_infinity=False)}
VALUES |= {bool: st.booleans()}
AXES = {name: VALUES[column.type] for name, column in COLUMNS.items() if column.axis}  # they are never null
ROWS = st.builds(
    Row,
    **{name: st.none() | VALUES[column.type] for name, column in COLUMNS.items()}
    | AXES
    | {"cell": st.text("0123456789abcdef", min_size=16, max_size=16), "status": st.just("ok")},
)


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results", create=True)


def key(number):
    return f"{number:016x}"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_a_row_comes_back_with_the_same_values_and_types(results, row):
    saved = results.save(Result(row), force=True)
    assert saved == replace(row, run_id=saved.run_id, started=saved.started)
    for found in (results.find(Row, row.cell), {each.cell: each for each in results.rows(Row)}[row.cell]):
        assert found == saved
        assert all(type(getattr(found, name)) is type(getattr(row, name)) for name in COLUMNS)


def test_a_cell_is_a_folder_of_plain_files(results, make_result):
    row = results.save(make_result())
    folder = results.root / "gibench" / row.cell
    assert sorted(file.name for file in folder.iterdir()) == ["images.csv", "images.png", "result.json"]
    stored = json.loads((folder / "result.json").read_text())
    assert stored["row"] == row.as_dict()
    assert stored["provenance"] == {"versions": {"gibench": "0.1.0"}, "git_commit": None}
    assert pd.read_csv(folder / "images.csv")["exact"].tolist() == [True, False]
    assert (folder / "images.png").read_bytes() == b"\x89PNG"
    assert results.details(row.cell) == {
        "artifacts": str(folder), "grid": str(folder / "images.png"), "images": str(folder / "images.csv"),
        "diagnostics": stored["diagnostics"], "provenance": stored["provenance"], "seconds": stored["seconds"],
    }  # fmt: skip


def test_rows_of_several_kinds_and_experiments_do_not_mix(results, make_result, tmp_path):
    cell = results.save(make_result())
    axes = {"dataset": "digits", "model": "linear", "device": "cpu", "threads": 1, "batch_size": 8, "rounds": 3}
    trial = results.save(Result(TrialRow(**axes, defense="none", seed=0, utility="f" * 16)))
    other = Results(tmp_path / "results", "other/../x: *", create=True)
    theirs = other.save(make_result())
    assert (results.rows(Row), results.rows(TrialRow), other.rows(Row)) == ([cell], [trial], [theirs])
    assert experiments(tmp_path / "results") == ["gibench", "other/../x: *"]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_finished_row_stays_unless_forced_and_an_unfinished_one_is_replaced(results, make_result):
    first = results.save(make_result(status="failed"))
    second = results.save(make_result())
    assert results.rows(Row) == [second] != [first]
    assert results.save(make_result(psnr_mean=1.0)) == second
    assert results.rows(Row) == [second]
    third = results.save(make_result(psnr_mean=1.0), force=True)
    assert results.rows(Row) == [third]
    assert [path.name for path in results.folder.iterdir() if not path.name.startswith(".")] == [third.cell]


def test_the_index_is_only_a_help(results, make_result):
    """Missing, cut off, of other rows, or beaten to it by a cell that it has not: the folders count."""
    rows = [results.save(make_result(cell=key(number), seed=number)) for number in range(4)]
    index = results.folder / ".index.jsonl"
    whole = index.read_bytes()
    lines = whole.splitlines(keepends=True)
    for content in (None, b"", whole[:-20], b"".join(lines[1:]), b"\x00" * 50, b"null\n[]\n{}\n", lines[0] * 3):
        index.unlink() if content is None else index.write_bytes(content)
        assert Results(results.root).rows(Row) == results.rows(Row) == rows
        assert index.read_bytes().count(b"\n") == 4  # it has been mended
    shutil.rmtree(results.folder / rows[0].cell)
    assert results.rows(Row) == rows[1:]
    document = json.loads((results.folder / rows[1].cell / "result.json").read_text())
    document["row"]["psnr_mean"] = 17.0
    (results.folder / rows[1].cell / "result.json").write_text(json.dumps(document))
    assert [row.psnr_mean for row in results.rows(Row)] == [17.0, 95.5, 95.5]


def test_an_index_that_is_right_spares_reading_the_cells(results, make_result, monkeypatch):
    row = results.save(make_result())
    monkeypatch.setattr("gibench.results.index.row_at", pytest.fail)
    assert Results(results.root).rows(Row) == [row]
    assert b"null" not in (results.folder / ".index.jsonl").read_bytes()  # which would be read with it, a third of it


def test_a_row_is_read_and_checked_once_however_often_rows_are_asked_for(results, make_result, monkeypatch):
    """What other processes store, replace or take away meanwhile is seen all the same."""
    rows = [results.save(make_result(cell=key(number), seed=number)) for number in range(3)]
    here, other = Results(results.root, create=True), Results(results.root, create=True)
    assert here.rows(Row) == rows
    with monkeypatch.context() as patch:
        for name in ("index.entries", "index.row_at", "folder.row_of"):
            patch.setattr(f"gibench.results.{name}", pytest.fail)
        assert here.rows(Row) == rows
        assert here.rows(TrialRow) == []
    rows[1] = other.save(make_result(cell=key(1), seed=1, psnr_mean=17.0), force=True)
    rows.append(other.save(make_result(cell=key(3), seed=3)))
    shutil.rmtree(results.folder / key(0))
    assert {row.run_id for row in here.rows(Row)} == {row.run_id for row in rows[1:]}
    mine = here.save(make_result(cell=key(4), seed=4))
    monkeypatch.setattr("gibench.results.index.row_at", pytest.fail)
    assert mine in here.rows(Row)


def test_a_line_after_one_that_was_cut_off_is_a_line_of_its_own(results, make_result):
    results.save(make_result(cell=key(0)))
    index = results.folder / ".index.jsonl"
    index.write_bytes(index.read_bytes()[:-30])
    results.save(make_result(cell=key(1)))
    assert [json.loads(line)["key"] for line in index.read_text().splitlines()[1:]] == [key(1)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[" * 100_000,
        lambda text: text.replace("95.5", "NaN"),
        lambda text: text.replace("95.5", '"good"'),
        lambda text: text.replace('"seed": 0', '"seed": true'),
        lambda text: text.replace('"run_id"', '"run"'),
        lambda text: '{"row": []}',
        lambda text: '{"row": {"cell": ""}}',
    ],
)
def test_a_damaged_row_is_left_out_and_named_and_the_others_are_read(results, make_result, damage):
    row, kept = (results.save(make_result(cell=key(number))) for number in range(2))
    file = results.folder / row.cell / "result.json"
    file.write_text(damage(file.read_text()))
    with pytest.warns(DataWarning, match=rf"{row.cell} is damaged and left out \(.*\): delete it") as told:
        found = results.rows(Row)
    if '"cell": ""' in file.read_text() or "[]" in file.read_text():
        assert len(told) == 1
    assert found == [kept]
    again = results.save(make_result(cell=row.cell))
    assert results.find(Row, row.cell) == again


def test_infinity_and_nan_are_stored_as_null(results, make_result):
    row = results.save(make_result(psnr_mean=float("inf"), grad_norm=float("nan")))
    assert (row.psnr_mean, row.grad_norm) == (None, None)
    assert results.rows(Row) == [row]


def test_a_text_that_a_plugin_gave_as_something_else_is_stored_as_text(results, make_result):
    assert results.save(make_result(budget=300, reason=["a", 1])).budget == "300"
    assert results.rows(Row)[0].reason == "['a', 1]"


def test_a_row_of_older_columns_is_read_as_what_it_meant(results, make_result):
    row = results.save(make_result(labels="same"))
    file = results.folder / row.cell / "result.json"
    document = json.loads(file.read_text())
    document["row"]["labels_policy"] = document["row"].pop("labels")
    del document["row"]["split"], document["row"]["utility_epsilon"]
    document["row"]["later"] = 1
    file.write_text(json.dumps(document))
    assert results.rows(Row) == [row]


def test_a_reader_makes_nothing(tmp_path):
    reader = Results(tmp_path / "none")
    assert (reader.rows(Row), reader.find(Row, key(0))) == ([], None)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_one_given_else_the_environments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Results().root == tmp_path / "gibench-results"
    monkeypatch.setenv("GIBENCH_RESULTS", "there")
    assert (Results().root, Results("here").root) == (tmp_path / "there", tmp_path / "here")
    before = Results()
    monkeypatch.chdir("/")
    assert before.root == tmp_path / "there"  # whatever a plugin does to the working folder


def test_a_folder_that_cannot_be_made_is_a_wrong_request(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the results folder .*/file cannot be made: .*see --results"):
        Results(tmp_path / "file", create=True)
    with pytest.raises(UsageError, match="cannot be made: File name too long"):
        Results(tmp_path / "folder", "x" * 300, create=True)


@pytest.mark.parametrize("cut", ["write_bytes", "synchronize", "rename"])
def test_a_full_disk_is_one_line_that_says_what_is_kept_and_leaves_nothing(results, make_result, monkeypatch, cut):
    kept = results.save(make_result(cell=key(0)))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        place = "gibench.results.durable.synchronize" if cut == "synchronize" else f"pathlib.Path.{cut}"
        patch.setattr(place, full)
        with pytest.raises(
            GibenchError, match=r"cannot be written: No space left .* what is finished is kept"
        ) as error:
            results.save(make_result(cell=key(1)))
    assert not isinstance(error.value, UsageError)
    assert results.rows(Row) == [kept]
    results = Results(results.root, create=True)
    assert results.save(make_result(cell=key(1))).cell == key(1)


def test_what_a_killed_process_left_half_done_is_cleared_away_and_what_it_moved_comes_back(results, make_result):
    row = results.save(make_result())
    folder = results.folder
    (folder / row.cell).rename(folder / f".{'d' * 32}.{row.cell}.old")  # killed between its two renames
    (folder / f".{'d' * 32}.{'e' * 32}.new").mkdir()  # killed while it wrote
    assert Results(results.root).rows(Row) == []
    again = Results(results.root, create=True)
    assert again.rows(Row) == [row]
    assert not list(folder.glob("*.old")) + list(folder.glob(".*.new"))


def test_what_a_live_process_is_doing_is_left_alone(results, make_result):
    results.save(make_result())
    (mine,) = (results.root / ".sessions").iterdir()
    (results.folder / f".{mine.name}.{'e' * 32}.new").mkdir()
    Results(results.root, create=True)
    assert (results.folder / f".{mine.name}.{'e' * 32}.new").exists()


def test_threads_that_save_at_once_leave_every_cell_whole(results, make_result):
    def save(seed):
        for number in range(10):
            results.save(make_result(cell=key(number), seed=seed), force=number % 2 == 0)

    threads = [threading.Thread(target=save, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = results.rows(Row)
    assert sorted(row.cell for row in rows) == [key(number) for number in range(10)]
    assert rows == sorted((results.find(Row, row.cell) for row in rows), key=lambda row: (row.started, row.run_id))
    assert not list(results.folder.glob("*.old")) + list(results.folder.glob(".*.new"))


SAVER = """
import json, sys
from gibench.result import Result, Row
from gibench.results import Results
import pandas as pd
folder, row, force = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "force"
results = Results(folder, create=True)
print("ready", flush=True)
for number in range(40):
    made = Row(**row | {"cell": f"{number % 20:016x}", "seed": number})
    results.save(Result(made, pd.DataFrame({"truth": [number]}), b"x" * 20_000), force=force)
"""


def saver(folder, row, force):
    columns = json.dumps({name: getattr(row, name) for name in columns_of(Row)})
    command = [sys.executable, "-c", SAVER, str(folder), columns, "force" if force else "keep"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def check_whole(folder):
    """Every cell is there as a whole, and the index says the same."""
    results = Results(folder, create=True)
    rows = results.rows(Row)
    for row in rows:
        assert results.find(Row, row.cell) == row
        assert row.seed % 20 == int(row.cell, 16)
        assert results.images([row])["truth"].tolist() == [row.seed]
        assert len((results.folder / row.cell / "images.png").read_bytes()) == 20_000
    assert not list(results.folder.glob("*.old")) + list(results.folder.glob(".*.new"))
    return {row.cell for row in rows}


@pytest.mark.parametrize("seed", [0, 1, pytest.param(range(2, 22), marks=pytest.mark.slow)])
def test_a_process_that_is_killed_loses_nothing_that_was_finished(tmp_path, make_row, seed):
    """Two write the same cells, one is killed after a number of them drawn at random, at some point of a write."""
    for each in [seed] if isinstance(seed, int) else seed:
        draw, folder = random.Random(each), tmp_path / str(each)
        force = draw.random() < 0.7
        processes = [saver(folder, make_row(), force) for _ in range(2)]
        wanted = draw.randrange(20)
        while len(list((folder / "gibench").glob("[!.]*/result.json"))) < wanted:
            assert any(process.poll() is None for process in processes)
            time.sleep(0.001)
        time.sleep(draw.random() * 0.01)
        before = {path.name for path in (folder / "gibench").glob("[!.]*")}
        os.kill(processes[0].pid, signal.SIGKILL)
        assert [process.wait() for process in processes][1] == 0
        for process in processes:
            process.stdout.close()
        assert check_whole(folder) == {key(number) for number in range(20)} >= before


def test_a_copied_folder_is_another_and_a_moved_one_the_same(results, tmp_path):
    name = identity(results.root)
    assert identity(results.root) == name
    shutil.copytree(results.root, tmp_path / "copy")
    results.root.rename(tmp_path / "moved")
    assert identity(tmp_path / "moved") == name != identity(tmp_path / "copy") == identity(tmp_path / "copy")


def test_a_row_is_found_by_how_its_run_or_its_key_begins(results, make_result):
    rows = [results.save(make_result(cell=f"{number}{'0' * 15}")) for number in range(3)]
    assert results.beginning(Row, rows[1].run_id[:8]) == results.beginning(Row, "10000") == [rows[1]]
    assert results.beginning(Row, "") == results.beginning(Row, "1") == []
