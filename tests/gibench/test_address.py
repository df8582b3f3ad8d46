"""Which store is meant: the address given, the environment's, or the working folder's; none shows a password."""

import os
from pathlib import Path

import pytest

from gibench.address import address, shown
from gibench.errors import UsageError
from gibench.mlflow_store import check_address, check_store
from gibench.result import Row
from gibench.tracking import Store
from tests.gibench.test_mlflow_store import make


@pytest.mark.parametrize(
    "uri", ["mlruns", "/var/mlruns", "file:///var/mlruns", "ftp://host/store", "sqlite://store.db"]
)
def test_other_addresses_are_refused_with_those_that_work(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"is no tracking store .* use sqlite:///FILE\.db, or http://HOST:PORT"):
        make(uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["https", "postgresql", "ftp", "mysql+pymysql"])
@pytest.mark.parametrize("password", ["secret", "sec@ret", "s:e:c", "se/cret", "se?cret", "se#cret"])
def test_a_password_is_not_shown(scheme, password):
    assert shown(f"{scheme}://me:{password}@host:5000/store") == f"{scheme}://host:5000/store"
    assert shown(f"{scheme}://host/store?token={password}") == f"{scheme}://host/store"


@pytest.mark.parametrize(
    "address", ["me:secret@pw@host", "ftp://me:secret@host", "me:se/cret@host?secret", "ftp://h?secret"]
)
def test_a_password_in_an_address_that_is_none_is_not_shown(address):
    with pytest.raises(UsageError, match="is no tracking store") as error:
        check_address(address)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "address", ["sqlite:////home/a@b/x.db", "http://host/a@b", "http://host:80/a@b", "http://[::1]:5000/a@b"]
)
def test_an_at_sign_in_a_path_is_no_password(address):
    assert shown(address) == address


@pytest.mark.parametrize("address", ["http://[", "http://host:port", "postgresql://me:secret@host:port/name"])
def test_an_address_that_is_none_is_one_clear_line(address):
    with pytest.raises(UsageError, match=r"the tracking store .* cannot be used: ") as error:
        make(address)
    assert "secret" not in str(error.value)


def test_the_experiment_is_the_one_named_else_the_environments(uri, record, make_result, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    run = record(uri, make_result()).run_id
    assert [row.run_id for row in Store(Row, uri, "mine").rows()] == [run]
    assert Store(Row, uri, "unused").rows() == []
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    with pytest.raises(UsageError, match="there is no experiment 'gibench'"):
        Store(Row, uri)


def test_the_environments_store_counts_where_none_is_given(uri, tmp_path, monkeypatch, record, make_result):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run = record(None, make_result()).run_id
    assert [row.run_id for row in Store(Row, uri).rows()] == [run]
    assert (shown(None), check_store(None)) == (uri, f"{uri}, experiments Default, gibench, unused")
    assert not (tmp_path / "gibench.db").exists()


def test_the_store_given_comes_before_the_environments(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/else.db")
    assert check_store(uri) == f"{uri}, experiments Default, unused"


def test_an_empty_environment_is_the_local_store(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert address(None) == "sqlite:///gibench.db"


@pytest.mark.parametrize("given", [None, "mlruns"])
def test_a_wrong_address_of_the_environment_is_told_to_be_its(given, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(
        UsageError, match=r"'mlruns' is no tracking store .* see MLFLOW_TRACKING_URI, or --tracking-uri"
    ):
        make(given)


@pytest.mark.parametrize(
    "page",
    ["", "/", "/#/experiments/1/runs/0123456789abcdef", "/#/models", "/?workspace=a#/experiments/1", "#/experiments"],
)
@pytest.mark.parametrize("server", ["http://host:5000", "https://host/behind/a/proxy"])
def test_a_page_of_the_server_is_the_server(server, page):
    assert address(server + page) == shown(server + page) == server


def test_what_a_database_is_told_is_no_page():
    assert address("postgresql://host/name?sslmode=require#1") == "postgresql://host/name?sslmode=require#1"


@pytest.mark.parametrize("name", [b"caf\xe9", b"a?b", b"20%20"])
def test_a_path_that_mlflow_cannot_hold_is_refused_before_anything_is_made(name, tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    monkeypatch.chdir(folder)
    for use in (lambda: make(None), lambda: Store(Row), lambda: check_store(None)):
        with pytest.raises(
            UsageError, match=r"the tracking store '.*/gibench\.db' has .*(rename it|in another folder).*"
        ):
            use()
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["写真", "100%", "a#b", "a b", "a;b&c='d'", "new\nline"])
def test_any_other_path_holds_rows_and_artifacts(name, store_file, tmp_path, monkeypatch, record, make_result):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    (tmp_path / name / "gibench.db").write_bytes(store_file.read_bytes())
    run = record(None, make_result()).run_id
    _, details = Store(Row).row(run)
    assert Path(details["grid"]).is_relative_to(tmp_path / name)
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["gibench-artifacts", "gibench.db"]
