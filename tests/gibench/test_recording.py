"""Rows are written into MLflow beside what other processes write there, and a disk that is full is one clear line."""

import json
import resource
import sqlite3
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.orm import Session

from gibench.recording import Recorder
from gibench.result import COLUMNS, Row
from gibench.results import Results
from gibench.tracking import Store

WRITER = """
import json, resource, signal, sys
from gibench.errors import GibenchError
from gibench.recording import Recorder
from gibench.result import Result, Row
from gibench.results import Results
uri, row, bytes_free, folder = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_free, bytes_free))
try:
    results, recorder = Results(folder, create=True), Recorder(uri, "written", folder)
    for seed in range(5):
        stored = results.save(Result(Row(**row | {"seed": seed, "cell": f"{seed:016x}"})))
        recorder.record(stored, results.folder / stored.key)
except GibenchError as error:
    print(error)
"""


def writer(uri, row, folder, bytes_free=resource.RLIM_INFINITY):
    columns = json.dumps({name: getattr(row, name) for name in COLUMNS})
    command = [sys.executable, "-c", WRITER, uri, columns, str(bytes_free), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_processes_may_write_at_once(uri, make_row, tmp_path):
    writers = [writer(uri, make_row(), tmp_path / name) for name in ("one", "two")]
    assert [each.communicate(timeout=600)[0] for each in writers] == ["", ""]
    assert [each.returncode for each in writers] == [0, 0]
    assert sorted(row.seed for row in Store(Row, uri, "written").rows()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("table", ["datasets", "experiment_tags"])
def test_what_another_process_writes_in_between_is_taken_as_it_is(uri, make_result, tmp_path, table):
    """MLflow looks whether the experiment has a data set, or a tag, before it writes it; here it comes in between."""
    seen = []

    def comes_first(session, *_):
        for new in [each for each in session.new if each.__tablename__ == table and not seen]:
            values = {column.name: getattr(new, column.key) for column in new.__table__.columns}
            values |= {"dataset_uuid": "of another"} if table == "datasets" else {}
            seen.append(values)
            with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
                places = ", ".join("?" * len(values))
                database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", [*values.values()])

    recorder = Recorder(uri, None, "elsewhere")
    event.listen(Session, "before_flush", comes_first)
    try:
        assert recorder.name("proposal") == "proposal"
        results = Results(tmp_path / "results", create=True)
        stored = results.save(make_result())
        run = recorder.record(stored, results.folder / stored.key)
    finally:
        event.remove(Session, "before_flush", comes_first)
    assert seen
    (dataset,) = MlflowClient(uri).get_run(run).inputs.dataset_inputs
    assert dataset.dataset.name == "photos"


def test_a_full_disk_is_one_clear_line(uri, make_row, tmp_path):
    """A limit on the size of a file stands for the disk: the system refuses the write all the same."""
    size = (tmp_path / "store.db").stat().st_size
    (line,) = writer(uri, make_row(), tmp_path / "one", size).communicate(timeout=600)[0].splitlines()
    assert line.startswith(f"the tracking store {uri} cannot be used: ")
    assert line.endswith(": see --tracking-uri")
