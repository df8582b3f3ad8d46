"""A real MLflow server of our own, killed and started again while sweeps write into it."""

import os
import random
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from mlflow import MlflowClient

from gibench.delivery import Delivery
from gibench.result import Row
from gibench.results import Results
from tests.gibench.test_delivery import check_exactly_once, runs, sweep
from tests.gibench.test_mlflow_store import free_port


class Server:
    """An MLflow server with a SQLite file and a folder of artifacts, at one address however often it is started."""

    def __init__(self, folder, port):
        self.address, self._folder, self._port = f"http://127.0.0.1:{port}", folder, port
        self._process = None

    def start(self):
        kept = ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        kept += ["--artifacts-destination", str(self._folder / "kept"), "--port", str(self._port), "--workers", "1"]
        with (self._folder / "log").open("a") as log:
            command = [sys.executable, "-m", "mlflow", "server", *kept]
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True, env=os.environ | QUIET
            )
        deadline = time.monotonic() + 3600
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                return urllib.request.urlopen(f"{self.address}/health", timeout=60).close()
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self._folder / "log").read_text()[-2000:])

    def kill(self):
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@pytest.fixture
def server(store_file, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "server.db").write_bytes(store_file.read_bytes())
    made = Server(folder, free_port())
    made.start()
    yield made
    made.kill()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_two_sweeps_lose_and_double_nothing_while_the_server_is_killed_and_started_again(
    server, tmp_path, make_row, monkeypatch, seed
):
    """It is killed twice, when it has a number of runs drawn at random; the sweeps overlap."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    draw, results = random.Random(seed), Results(tmp_path / "results", create=True)
    processes = [sweep(results.root, server.address, make_row(), first, first + 8) for first in (0, 4)]
    for wanted in sorted(draw.sample(range(1, 10), 2)):
        while count(server) < wanted and any(process.poll() is None for process in processes):
            time.sleep(0.01)
        time.sleep(draw.random() * 0.2)
        server.kill()
        time.sleep(draw.random())
        server.start()
    for process in processes:
        process.communicate(timeout=600)
        assert process.returncode == 0
    assert {row.cell for row in results.rows(Row)} == {f"{number:016x}" for number in range(12)}
    warnings = []
    with Delivery(results, server.address, None, warnings.append, lambda message, fraction=None: None):
        pass
    assert warnings == []
    check_exactly_once(server.address, results)


def count(server):
    try:
        return len(runs(server.address)[0])
    except ValueError:  # there is no experiment yet
        return 0


@pytest.mark.slow
def test_a_server_that_is_gone_costs_one_warning_and_gets_its_rows_later(server, tmp_path, make_result):
    results, warnings = Results(tmp_path / "results", create=True), []
    quietly = {"warn": warnings.append, "working": lambda message, fraction=None: None}
    with Delivery(results, server.address, (), **quietly) as delivery:
        results.save(make_result(cell="0" * 16))
        while delivery.left:
            time.sleep(0.01)
        server.kill()
        results.save(make_result(cell="1" * 16))
    assert [each.startswith(f"the tracking store {server.address} cannot be used: ") for each in warnings] == [True]
    assert "\n" not in warnings[0]
    server.start()
    with Delivery(results, server.address, (), **quietly) as delivery:
        pass
    assert (delivery.delivered, len(warnings)) == (1, 1)
    check_exactly_once(server.address, results)


@pytest.mark.slow
def test_runs_are_nested_and_have_their_images_as_inputs(server, tmp_path, make_result):
    results = Results(tmp_path / "results", create=True)
    with Delivery(results, server.address, (), pytest.fail, lambda message, fraction=None: None):
        grid = results.grids.open("smoke", {"attack": "random"})
        results.save(make_result(), grid)
        results.grids.close(grid)
    (run,), (parent,) = runs(server.address)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.inputs.dataset_inputs[0].dataset.source == "photos"
    client = MlflowClient(server.address)
    assert {file.path: file.file_size > 0 for file in client.list_artifacts(run.info.run_id)} == {
        "images.csv": True, "images.png": True, "result.json": True
    }  # fmt: skip
