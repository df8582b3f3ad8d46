"""A store is made at once or not at all; what is none is left alone; it may be moved."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from gibench.errors import UsageError
from gibench.mlflow_store import open_store
from gibench.result import Row
from gibench.sqlite_store import state
from gibench.tracking import Store

MAKER = "import sys; from gibench.mlflow_store import open_store; open_store(sys.argv[1], 'made', create=True)"


def maker(file):
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, f"sqlite:///{file}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def execute(file, *statements):
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.fixture
def half_made(request, store_file, tmp_path):
    """A file as a killed MLflow leaves it, or what somebody touched."""
    file = tmp_path / "half.db"
    shutil.copy(store_file, file)
    if request.param == "empty":
        file.write_bytes(b"")
    elif request.param == "before its version was noted":
        execute(file, "DELETE FROM experiments", "DROP TABLE alembic_version")
    elif request.param == "in the middle of its migrations":
        execute(file, "DELETE FROM experiments WHERE name = 'unused'", "UPDATE alembic_version SET version_num = 'old'")
        execute(file, "DROP TABLE scheduler_leases")
    else:
        os.remove(file)
        execute(file, "CREATE TABLE alembic_version (version_num VARCHAR(32))")
    return file


STAGES = ["empty", "before its version was noted", "in the middle of its migrations", "before its tables"]


@pytest.mark.parametrize("half_made", STAGES, indirect=True)
def test_a_half_made_store_is_left_to_a_writer_who_makes_it_anew(half_made, store_file, monkeypatch):
    before = half_made.read_bytes()
    with pytest.raises(UsageError, match=r"there is no tracking store .*half\.db yet, only a file that is"):
        open_store(f"sqlite:///{half_made}", None, create=False)
    assert half_made.read_bytes() == before
    monkeypatch.setattr("gibench.sqlite_store._create", lambda file, artifacts: shutil.copy(store_file, file))
    opened = open_store(f"sqlite:///{half_made}", "new", create=True)
    assert {each.name for each in opened.client.search_experiments()} >= {"Default", "new"}
    assert [path.name for path in half_made.parent.iterdir()] == ["half.db"]


@pytest.mark.parametrize("create", [True, False])
def test_a_database_of_something_else_is_left_alone(tmp_path, create):
    execute(tmp_path / "notes.db", "CREATE TABLE experiments (name TEXT)", "CREATE TABLE alembic_version (a TEXT)")
    before = (tmp_path / "notes.db").read_bytes()
    with pytest.raises(UsageError, match=r"notes\.db is a database of something else and left alone: see --tracking"):
        open_store(f"sqlite:///{tmp_path}/notes.db", None, create)
    assert (tmp_path / "notes.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["notes.db"]


def test_an_older_store_that_holds_something_is_never_made_anew(uri, record, make_result, tmp_path):
    record(uri, make_result())
    file = Path(shutil.copy(uri.removeprefix("sqlite:///"), tmp_path / "older.db"))
    execute(file, "UPDATE alembic_version SET version_num = 'older'")
    assert state(file) == "store"
    with pytest.raises(UsageError, match=r"cannot be used: .*mlflow db upgrade"):
        open_store(f"sqlite:///{file}", None, create=True)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_a_store_that_was_made_meanwhile_is_used(store_file, tmp_path, monkeypatch):
    file = tmp_path / "store.db"

    def slow(beside, artifacts):
        shutil.copy(store_file, beside)
        shutil.copy(store_file, file)
        execute(file, "UPDATE experiments SET name = 'theirs' WHERE name = 'unused'")

    monkeypatch.setattr("gibench.sqlite_store._create", slow)
    opened = open_store(f"sqlite:///{file}", "theirs", create=True)
    assert "unused" not in {each.name for each in opened.client.search_experiments()}
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


@pytest.mark.slow
def test_several_that_make_one_store_at_once_all_use_it(tmp_path):
    makers = [maker(tmp_path / "store.db") for _ in range(3)]
    assert [each.communicate(timeout=600)[0] for each in makers] == [""] * 3
    assert [each.returncode for each in makers] == [0] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_one_that_is_killed_while_it_makes_a_store_leaves_none(tmp_path, seed):
    """Killed when the file it makes has reached a size drawn at random."""
    wanted = random.Random(seed).randrange(0, 800_000)
    process = maker(tmp_path / "store.db")
    while process.poll() is None and sum(file.stat().st_size for file in tmp_path.glob(".store.db.*.new")) <= wanted:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert state(tmp_path / "store.db") in ("missing", "store")
    again = maker(tmp_path / "store.db")
    assert (again.communicate(timeout=600)[0], again.returncode) == ("", 0)
    assert state(tmp_path / "store.db") == "store"


def test_a_moved_store_writes_and_reads_artifacts_where_it_is(tmp_path, store_file, record, make_result, make_row):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    shutil.copy(store_file, old / "store.db")
    before = record(f"sqlite:///{old}/store.db", make_result())
    old.rename(new)
    uri = f"sqlite:///{new}/store.db"
    assert Store(Row, uri).row(before.run_id)[1]["grid"].startswith(f"{new}/gibench-artifacts/")  # as a reader
    after = record(uri, make_result(seed=1))
    for row in (before, after):
        _, details = Store(Row, uri).row(row.run_id)
        assert Path(details["grid"]).read_bytes() == b"\x89PNG"
        assert details["grid"].startswith(f"{new}/gibench-artifacts/")
    assert not old.exists()
    with closing(sqlite3.connect(new / "store.db")) as database:
        uris = [uri for (uri,) in database.execute("SELECT artifact_uri FROM runs")]
    assert all(uri.startswith(f"{new.as_uri()}/gibench-artifacts/") for uri in uris)
    assert Store(Row, uri).images([before.run_id, after.run_id])["exact"].tolist() == [True, False] * 2


def test_artifacts_that_lie_elsewhere_on_purpose_stay_there(uri, tmp_path, record, make_result):
    client = open_store(uri, "unused", create=True).client
    client.create_experiment("mine", (tmp_path / "else" / "where").as_uri())
    row = record(uri, make_result(), "mine")
    assert Store(Row, uri, "mine").row(row.run_id)[1]["grid"].startswith(f"{tmp_path}/else/where/")
