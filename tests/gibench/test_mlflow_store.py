"""A store that cannot be used is one clear line within seconds; nothing is made that was not asked for."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gibench.errors import UsageError
from gibench.mlflow_store import _CHECK, check_store, open_store
from gibench.result import Row
from gibench.tracking import Store

NOBODY_IS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def make(uri, experiment=None):
    """Open the store as a writer does."""
    return open_store(uri, experiment, create=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_new_store_is_made_with_its_folders(store_file):
    assert store_file.exists()
    assert check_store(f"sqlite:///{store_file}") == f"sqlite:///{store_file}, experiments Default, unused"


def test_the_default_store_lies_in_the_working_folder(store_file, tmp_path, monkeypatch, record, make_result):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gibench.db").write_bytes(store_file.read_bytes())
    record(None, make_result())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gibench-artifacts", "gibench.db"]


def test_a_store_opened_again_has_the_same_rows(uri, record, make_result):
    run = record(uri, make_result()).run_id
    assert [row.run_id for row in Store(Row, uri).rows()] == [run]


def test_a_reader_makes_no_store(tmp_path):
    with pytest.raises(UsageError, match=r"there is no tracking store .*missing\.db yet: run something first"):
        Store(Row, f"sqlite:///{tmp_path}/folder/missing.db")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_makes_no_experiment(uri):
    with pytest.raises(UsageError, match=r"there is no experiment 'other' in .*: there are Default, unused"):
        Store(Row, uri, "other")
    assert MlflowClient(uri).get_experiment_by_name("other") is None


def test_a_deleted_experiment_is_one_clear_line(uri):
    make(uri, "old")
    client = MlflowClient(uri)
    client.delete_experiment(client.get_experiment_by_name("old").experiment_id)
    with pytest.raises(UsageError, match=r"the experiment 'old' .* is deleted: restore it"):
        make(uri, "old")


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(UsageError, match="cannot be used: unable to open database file: see --tracking-uri"):
        make(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    (tmp_path / "notes.db").write_text("nothing that SQLite could read\n" * 100)
    with pytest.raises(UsageError, match="cannot be used: file is not a database"):
        make(f"sqlite:///{tmp_path}/notes.db")
    assert (tmp_path / "notes.db").read_text().startswith("nothing that")


def test_a_store_below_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be used: .*file"):
        make(f"sqlite:///{tmp_path}/file/store.db")


@NOBODY_IS_ROOT
def test_a_folder_without_write_permission_is_one_clear_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be used: unable to open database file"):
        make(f"sqlite:///{tmp_path}/store.db")


def test_a_store_on_a_file_system_that_refuses_writes_is_one_clear_line():
    with pytest.raises(UsageError, match=r"cannot be used: .*/proc"):
        make("sqlite:////proc/gibench/store.db")


PAGE = b"<!DOCTYPE html><html><head><title>MLflow</title></head><body>" + b"<p>words</p>" * 500 + b"</body></html>"


@pytest.fixture
def answering():
    """Start a server that gives every request one answer; gives its address."""
    started = []

    def start(code, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


NO_MLFLOW = "what answers there is no MLflow server"


@pytest.mark.parametrize(
    ("code", "body", "cause"),
    [
        (200, PAGE, f"{NO_MLFLOW} (200)"),
        (404, PAGE, f"{NO_MLFLOW} (404)"),
        (500, PAGE, "the server there fails, or is none of MLflow"),
        (404, b"404 page not found", f"{NO_MLFLOW} (404: 404 page not found)"),
        (404, b"", f"{NO_MLFLOW} (404)"),
        (404, b'{"detail": "Not Found"}', NO_MLFLOW),
        (200, b"{}", NO_MLFLOW),
        (200, b"[]", f"{NO_MLFLOW} (200: [])"),
        (200, b"", NO_MLFLOW),
        (200, b'{"experiment": 3, "experiments": "none"}', NO_MLFLOW),
        (200, b"\x1b[31m\x00red", f"{NO_MLFLOW} (200: [31mred)"),
        (401, PAGE, "it refuses access (401), see MLFLOW_TRACKING_USERNAME, _PASSWORD and _TOKEN"),
        (
            403,
            b"Invalid Host header",
            "it refuses access (403: Invalid Host header), see MLFLOW_TRACKING_USERNAME, _PASSWORD and _TOKEN",
        ),
    ],
)
def test_a_server_that_is_none_of_mlflow_is_one_short_line(answering, code, body, cause):
    server = answering(code, body)
    for use in (lambda: make(server), lambda: Store(Row, server), lambda: check_store(server)):
        with pytest.raises(UsageError) as error:
            use()
        assert str(error.value) == f"the tracking store {server} cannot be used: {cause}: see --tracking-uri"


def test_https_to_a_server_of_http_says_so(answering):
    server = answering(200, b"{}").replace("http://", "https://")
    with pytest.raises(UsageError, match="no https that is trusted is spoken there: write http://"):
        make(server)


@pytest.fixture
def once(monkeypatch):
    """No request waits to be sent again, as MLflow's own do for minutes."""
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: pytest.fail("it waits for another try"))


@pytest.mark.usefixtures("once")
def test_no_server_is_one_clear_line_at_once():
    with pytest.raises(UsageError, match=r"cannot be used: no server answers there: see --tracking-uri"):
        make(f"http://127.0.0.1:{free_port()}")


@pytest.mark.usefixtures("once")
def test_a_server_that_never_answers_is_one_clear_line_within_seconds(monkeypatch):
    assert int(_CHECK["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 10
    monkeypatch.setitem(_CHECK, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(UsageError, match="no server answers there"),
    ):
        make(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_opening_a_store_leaves_the_retries_of_later_calls_alone(uri):
    make(uri)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "4"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_checking_makes_nothing(tmp_path):
    assert "none yet at" in check_store(f"sqlite:///{tmp_path}/folder/store.db")
    assert list(tmp_path.iterdir()) == []


def test_checking_notices_a_store_that_is_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be made: .*file is not writable"):
        check_store(f"sqlite:///{tmp_path}/file/store.db")


@pytest.fixture(scope="module")
def server(store_file, tmp_path_factory):
    """The address of an MLflow server of our own."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "server.db").write_bytes(store_file.read_bytes())
    address = f"http://127.0.0.1:{(port := free_port())}"
    options = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, "--port", str(port), "--workers", "1"],
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait_for(f"{address}/health", process, folder / "log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=3600)


def _wait_for(address, process, log):
    deadline = time.monotonic() + 3600
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return urllib.request.urlopen(address, timeout=60).close()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.mark.slow
def test_a_server_keeps_rows_and_artifacts(server, record, make_result, make_row, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = record(server, make_result()).run_id
    store = Store(Row, server)
    (row,) = store.rows()
    assert row == make_row(run_id=run, started=row.started)
    _, details = store.row(run[:10])
    assert Path(details["grid"]).read_bytes() == b"\x89PNG"
    assert check_store(server) == f"{server}, experiments Default, gibench, unused"
    page = f"{server}/#/experiments/1/runs/{run}"  # as a browser shows it
    assert [each.run_id for each in Store(Row, page).rows()] == [run]
