"""Rows and artifacts come back from a real MLflow store as they went in."""

import csv
import sqlite3
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from gibench.errors import DataWarning, StoreError, UsageError
from gibench.recording import Recorder
from gibench.result import COLUMNS, STATUSES, UNFINISHED, Result, Row
from gibench.results import Results
from gibench.tracking import Store

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=40)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SPECS = {
    "attack": st.sampled_from(["random", "spearpp:a=none,b=1.0"]),
    "defense": st.sampled_from(["none", "dp:delta=1e-05+dp:delta=0.1+none", "noise:path='a+b:c,d'"]),
    "dataset": st.sampled_from(["photos", "folder:path='it''s, here'"]),
    "model": st.just("mlp:depth=5,width=200"),
    "status": st.sampled_from(STATUSES),
}
OPTIONAL = {str: TEXT, int: st.integers(0, 2**31), float: FINITE, bool: st.booleans()}
AXES = {name: OPTIONAL[column.type] for name, column in COLUMNS.items() if column.axis}  # they are never null
ROWS = st.builds(
    Row,
    **{name: st.none() | OPTIONAL[column.type] for name, column in COLUMNS.items()}
    | AXES
    | SPECS
    | {"cell": st.text("0123456789abcdef", min_size=16, max_size=16), "seed": st.integers(0, 2**63 - 1)},
)


@pytest.fixture
def recorder(uri):
    return Recorder(uri, None, "elsewhere")


@pytest.fixture
def store(uri, recorder):
    return Store(Row, uri)


@pytest.fixture
def save(uri, record):
    return partial(record, uri)


def runs(uri, store):
    """The MLflow runs, as another tool sees them."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("gibench")
    return {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_a_row_comes_back_with_the_same_values_and_types(store, save, row):
    saved = save(Result(row))
    stored, _ = store.row(saved.run_id)
    assert stored == saved == replace(row, run_id=saved.run_id, started=saved.started)
    assert all(type(getattr(stored, name)) is type(getattr(row, name)) for name in COLUMNS)


def test_rows_have_the_columns_in_order_then_where_they_come_from(store, save, make_result):
    saved = save(make_result())
    (row,) = store.rows()
    assert list(row.as_dict()) == [*COLUMNS, "run_id", "started"]
    assert row == saved
    assert row.started.endswith("+00:00")


def test_rows_come_oldest_first(store, save, make_result):
    saved = [save(make_result(seed=seed)) for seed in (3, 1, 2)]
    assert store.rows() == saved


def test_diagnostics_that_are_numbers_come_back_beside_the_row(store, save, make_result, make_row):
    save(make_result())
    save(Result(make_row(seed=1), diagnostics={"draws": 7, "lost": float("nan")}))
    first, second = store.rows(diagnostics=True)
    beside = {"diagnostics.gap": 12.5, "diagnostics.rounds": 3.0, "diagnostics.stages.svd": 0.25}
    plain = store.rows()
    assert first == replace(plain[0], beside=beside | {"seconds.data": 0.5, "seconds.attack": 1.25})
    assert second.as_dict() == plain[1].as_dict() | {"diagnostics.draws": 7.0}


def test_tables_of_images_come_back_one_below_the_other(store, save, make_result, make_row):
    runs = [save(make_result(seed=seed)).run_id for seed in range(2)]
    found = store.images(reversed(runs))
    assert list(found) == ["run_id", "truth", "mse", "exact"]
    assert found["run_id"].tolist() == [runs[1], runs[1], runs[0], runs[0]]
    assert found["exact"].tolist() == [True, False] * 2
    assert list(store.images([])) == ["run_id"]


def test_a_table_of_images_that_is_not_there_is_one_clear_line(store, save, make_row):
    run = save(Result(make_row(status="skipped"))).run_id
    with pytest.raises(StoreError, match=r"cannot be used: .*images\.csv"):
        store.images([run])


def test_infinity_and_nan_are_stored_as_null(store, save, make_row):
    run = save(Result(make_row(psnr_mean=float("inf"), grad_norm=float("nan")), diagnostics={"loss": 1e400})).run_id
    row, details = store.row(run)
    assert (row.psnr_mean, row.grad_norm) == (None, None)
    assert details["diagnostics"] == {"loss": None}


def test_the_artifacts_are_found(store, save, make_result):
    _, details = store.row(save(make_result()).run_id)
    assert Path(details["grid"]).read_bytes() == b"\x89PNG"
    table = csv.DictReader(Path(details["images"]).read_text().splitlines())
    assert [line["exact"] for line in table] == ["True", "False"]
    assert Path(details["artifacts"]) == Path(details["grid"]).parent
    assert details["diagnostics"]["losses"] == [1.0, 0.5]
    assert details["provenance"] == {"versions": {"gibench": "0.1.0"}, "git_commit": None}
    assert details["seconds"] == {"data": 0.5, "attack": 1.25}


def test_a_row_without_images_has_no_grid(store, save, make_row):
    _, details = store.row(save(Result(make_row(status="skipped"))).run_id)
    assert (details["grid"], details["images"]) == (None, None)


def test_the_artifacts_lie_beside_a_local_database(store, save, make_result, tmp_path):
    _, details = store.row(save(make_result()).run_id)
    assert Path(details["grid"]).is_relative_to(tmp_path / "gibench-artifacts")


def test_mlflow_shows_parameters_metrics_and_tags(uri, store, save, make_result):
    defense = "dp:noise_multiplier=1.0+dp:noise_multiplier=2.0"
    saved = save(make_result(defense=defense)).run_id
    run = runs(uri, store)[saved]
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    assert params["attack.preset"] == "ours"
    assert params["defense"] == defense
    assert (params["defense.dp.noise_multiplier"], params["defense.dp2.noise_multiplier"]) == ("1.0", "2.0")
    assert metrics["psnr_mean"] == 95.5
    assert metrics["seconds.attack"] == 1.25
    assert metrics["diagnostics.stages.svd"] == 0.25
    assert (tags["status"], tags["cell"]) == ("ok", "0123456789abcdef")
    assert tags["provenance.versions.gibench"] == "0.1.0"
    assert "label_accuracy" not in metrics
    assert run.info.run_name == (
        "spearpp:preset=ours,restarts=3 | dp+dp:noise_multiplier=2.0 | mlp | photos | batch 20 | seed 0"
    )
    assert tags["mlflow.note.content"] == "ok, PSNR 95.5 dB, exact 0.95"
    assert run.info.end_time - run.info.start_time >= 1750  # the stages' seconds lie between


@pytest.mark.parametrize("status", STATUSES)
def test_an_unfinished_cell_is_a_failed_run(uri, store, save, make_result, status):
    run = save(make_result(status=status, reason="why")).run_id
    assert runs(uri, store)[run].info.status == ("FAILED" if status in UNFINISHED else "FINISHED")


def test_cells_are_nested_under_their_grid_which_is_no_row(uri, recorder, store, save, make_result):
    grid = recorder.grid("f" * 32, "smoke", {"attack": "['random']"})
    run = save(make_result(), parent=grid).run_id
    assert recorder.grid("f" * 32, "smoke", {"attack": "['random']"}) == grid  # which is there
    recorder.close_grid("f" * 32, "KILLED")
    recorder.close_grid("f" * 32, "FINISHED")  # it has ended
    found = runs(uri, store)
    assert found[run].data.tags["mlflow.parentRunId"] == grid
    assert (found[grid].info.status, found[grid].info.run_name) == ("KILLED", "smoke")
    assert found[grid].data.params == {"attack": "['random']"}
    assert [row.run_id for row in store.rows()] == [run]


@pytest.mark.parametrize("write", ["log_batch", "log_inputs", "log_artifacts", "set_terminated"])
def test_a_run_cut_off_half_way_does_not_count_and_is_gone_on_with(
    uri, recorder, store, make_result, tmp_path, monkeypatch, write
):
    def cut(*arguments):
        raise KeyboardInterrupt

    results = Results(tmp_path / "results", create=True)
    row = results.save(make_result())
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, write, cut)
        with pytest.raises(KeyboardInterrupt):
            recorder.record(row, results.folder / row.key)
    assert len(runs(uri, store)) == 1
    assert store.rows() == []
    run = recorder.record(row, results.folder / row.key)
    assert recorder.record(row, results.folder / row.key) == run  # it is there
    (whole,) = runs(uri, store).values()
    assert store.rows() == [replace(row, run_id=run)]
    assert [metric.value for metric in MlflowClient(uri).get_metric_history(run, "psnr_mean")] == [95.5]
    assert len(whole.inputs.dataset_inputs) == 1


def test_a_run_without_its_last_write_does_not_count(uri, store, save, make_result):
    run = save(make_result()).run_id
    MlflowClient(uri).update_run(run, "RUNNING")
    assert store.rows() == []


def test_rows_of_an_older_store_are_read_by_what_their_columns_were_called(uri, store, save, make_row):
    row = save(Result(make_row(labels="same", knows="nothing")))
    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'gibench'")
    old = client.create_run(experiment.experiment_id).info.run_id
    params = runs(uri, store)[row.run_id].data.params
    names = {"labels": "labels_policy", "knows": "threat_model"}
    for name, value in params.items():
        if name not in ("split", "threads"):  # which there were not
            client.log_param(old, names.get(name, name), value)
    client.set_tag(old, "cell", "0" * 16)
    client.set_terminated(old)
    found = next(each for each in store.rows() if each.run_id == old)
    assert (found.labels, found.knows, found.split, found.threads) == ("same", "nothing", "private", None)


def test_another_experiments_rows_are_not_read(uri, store, save, make_result):
    run = save(make_result()).run_id
    Recorder(uri, "other", "elsewhere")
    other = Store(Row, uri, "other")
    assert other.rows() == []
    with pytest.raises(UsageError, match="no stored row"):
        other.row(run)


def test_the_beginning_of_a_run_id_is_enough_if_only_one_run_has_it(store, save, make_result):
    saved = [save(make_result(seed=seed)).run_id for seed in range(17)]
    assert store.row(saved[5][:12])[0].seed == 5
    shared = next(digit for digit in "0123456789abcdef" if sum(run[0] == digit for run in saved) > 1)
    with pytest.raises(UsageError, match=rf"'{shared}' is the beginning of \d+ stored rows"):
        store.row(shared)


@pytest.mark.parametrize("wrong", ["", "%", "zzz", "' OR 1=1", "0" * 33])
def test_what_is_no_run_id_is_one_clear_line(store, save, make_result, wrong):
    save(make_result())
    with pytest.raises(UsageError, match=r"no stored row in sqlite:.*gibench leaderboard --format json"):
        store.row(wrong)


def test_artifacts_that_are_gone_are_one_clear_line(store, save, make_result):
    run = save(make_result()).run_id
    Path(store.row(run)[1]["artifacts"], "result.json").unlink()
    with pytest.raises(StoreError, match=r"cannot be used: .*result\.json"):
        store.row(run)


def test_long_texts_and_odd_names_are_stored(store, save, make_row):
    reason = "x" * 20_000
    diagnostics = {"a b/c:d" + "e" * 190: 1.0, **{f"number {index}": float(index) for index in range(450)}}
    provenance = {"traceback": "line\n" * 1900, **{f"name {index}": index for index in range(250)}}
    result = Result(make_row(status="failed", reason=reason), None, None, diagnostics, provenance)
    row, details = store.row(save(result).run_id)
    assert row.status == "failed"
    assert reason.startswith(row.reason[:1000])
    assert (details["diagnostics"], details["provenance"]) == (diagnostics, provenance)


def test_more_rows_than_a_page_are_all_read(store, save, make_row, monkeypatch):
    monkeypatch.setattr("gibench.tracking._PAGE", 2)
    saved = [save(Result(make_row(seed=seed))) for seed in range(5)]
    assert store.rows() == saved


def test_a_damaged_run_is_left_out_and_named(uri, store, save, make_result):
    kept, damaged = save(make_result()), save(make_result(seed=1)).run_id
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE params SET value = 'many' WHERE key = 'batch_size' AND run_uuid = ?", (damaged,))
    with pytest.warns(DataWarning, match=f"the run {damaged} in sqlite.* is damaged and left out .*'many'"):
        assert store.rows() == [kept]


def test_rows_of_one_results_folder_can_be_left_out(uri, store, save, recorder, make_result, tmp_path):
    """As a reader does that has the folder; those of before there were folders have no mark of any."""
    results = Results(tmp_path / "results", create=True)
    row = results.save(make_result())
    run = Recorder(uri, None, "here").record(row, results.folder / row.key)
    other = save(make_result(seed=1)).run_id
    old = save(make_result(seed=2)).run_id
    MlflowClient(uri).delete_tag(old, "gibench.results")
    assert [each.run_id for each in store.rows(apart_from="here")] == [other, old]
    assert [each.run_id for each in store.rows(apart_from="nowhere")] == [run, other, old]


def test_the_images_of_a_cell_are_an_input_of_its_run(uri, store, save, make_result):
    ((run,),) = [runs(uri, store).values() for _ in [save(make_result(dataset="folder:path=/pictures"))]]
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.source) == ("folder", "folder:path=/pictures")
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "private")]
