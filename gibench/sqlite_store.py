"""A tracking store that is one SQLite file: what it is, how it is made at once or not at all, and that it may move."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from gibench.errors import UsageError
from gibench.text import RENAME, is_storable

SQLITE = "sqlite:///"
ARTIFACTS = "gibench-artifacts"  # the folder beside the database
LOCK_TIMEOUT = 60  # seconds that one process waits for another's write
_NOT_IN_A_PATH = re.compile(r"\?|%[0-9A-Fa-f]{2}|\x00")
_WITHOUT_CONTENT = ("alembic_version", "experiments", "workspaces")  # tables that making a store alone fills

State = Literal["missing", "empty", "half-made", "foreign", "store"]


def sqlite_file(uri: str, mend: str) -> Path | None:
    """The database's file; None where the store is none.

    Raises:
        UsageError: its path cannot be written into the addresses that MLflow uses.
    """
    if not uri.startswith(SQLITE):
        return None
    file = Path(uri.removeprefix(SQLITE).partition("?")[0]).absolute()
    if not is_storable(str(file)):
        raise UsageError(f"the tracking store {str(file)!r} has a path whose bytes are no UTF-8: {RENAME}, {mend}")
    if wrong := _NOT_IN_A_PATH.search(str(file)):
        raise UsageError(
            f"the tracking store {str(file)!r} has {wrong[0]!r} in its path, which MLflow reads as something else: "
            f"work in another folder, or {mend}"
        )
    return file


def prepare(file: Path, write: bool, mend: str) -> None:
    """Make the store where there is none and it may be written; otherwise find out whether it can be used.

    Raises:
        UsageError: there is none to read, or the file is something else's.
        sqlite3.Error, OSError: it cannot be read, or written.
    """
    found = state(file)
    if found == "foreign":
        raise UsageError(f"{file} is a database of something else and left alone: {mend}")
    if found == "store":
        if write:
            with closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()
    elif write:
        _make(file)
    else:
        what = "" if found == "missing" else f", only a file that is {found}"
        raise UsageError(f"there is no tracking store {file} yet{what}: run something first, or {mend}")


def state(file: Path) -> State:
    """What is in a file, without writing anything into it.

    A store is `half-made` if it has no more in it than its making puts there, and not all of that: killed in the
    middle, MLflow leaves a file that it cannot use any more.
    """
    if not file.exists():
        return "missing"
    with closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return "empty"
        columns = {line[1] for line in connection.execute("PRAGMA table_info(experiments)")}
        if "artifact_location" not in columns:
            return (
                "half-made"
                if tables == {"alembic_version"} and not _count(connection, "alembic_version")
                else ("foreign")
            )
        if any(_count(connection, name) for name in tables - set(_WITHOUT_CONTENT)) or (
            _count(connection, "experiments") > 1
        ):
            return "store"
        revision = connection.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else []
        return "store" if [line[0] for line in revision] == [_newest_revision()] else "half-made"


def _count(connection: sqlite3.Connection, table: str) -> int:
    name = table.replace('"', '""')
    return int(connection.execute(f'SELECT count(*) FROM (SELECT 1 FROM "{name}" LIMIT 2)').fetchone()[0])


def _newest_revision() -> str:
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


def _make(file: Path) -> None:
    """Make the store beside its place and give it its name: of two processes one makes it, and both then use that."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{uuid.uuid4().hex}.new")
    try:
        _create(beside, file.parent / ARTIFACTS)
        while not _named(beside, file):
            if state(file) == "store":
                return
            _put_away(file)
    finally:
        for left in file.parent.glob(f"{beside.name}*"):  # its journal too
            left.unlink(missing_ok=True)


def _create(file: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"{SQLITE}{file}", artifacts.as_uri())
    store.engine.dispose()


def _named(beside: Path, file: Path) -> bool:
    """Whether the whole file has got its name, which nobody else had given away."""
    try:
        os.link(beside, file)
    except FileExistsError:
        return False
    except OSError:  # a file system without second names
        if file.exists():
            return False
        beside.rename(file)
    return True


def _put_away(file: Path) -> None:
    """Take a half-made store away; a whole one that came in between comes back."""
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}.old")
    with contextlib.suppress(FileNotFoundError):
        file.rename(aside)
        if state(aside) == "store":
            os.link(aside, file)
        aside.unlink()


def move_artifacts(file: Path, experiment: str, location: str) -> None:
    """Write artifacts beside the database where it is now, if that has been moved together with them.

    MLflow notes the folder's whole path when an experiment is made and has no call to change it.

    Args:
        file: the database.
        experiment: the experiment's id.
        location: where its artifacts go so far.
    """
    here = (file.parent / ARTIFACTS).as_uri()
    before = path_of(location)
    if location == here or before is None or before.name != ARTIFACTS:
        return
    if before.exists() and not (file.parent / ARTIFACTS).exists():  # the database alone was copied
        return
    moved = "SET {0} = ? || substr({0}, ?) WHERE experiment_id = ? AND substr({0}, 1, ?) = ?"
    values = (here, len(location) + 1, int(experiment), len(location), location)
    with closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT)) as connection, connection:
        connection.execute(f"UPDATE runs {moved.format('artifact_uri')}", values)
        connection.execute(f"UPDATE experiments {moved.format('artifact_location')}", values)


def path_of(location: str) -> Path | None:
    """The folder that a `file:` address names; None for others."""
    parts = urlsplit(location)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def here_now(file: Path | None, artifacts: str) -> Path | None:
    """Where the artifacts of a run are, as its address was noted before the store was moved; None if not here."""
    found = path_of(artifacts)
    if file is None or found is None or found.exists() or f"/{ARTIFACTS}/" not in unquote(artifacts):
        return None
    moved = file.parent / ARTIFACTS / str(found).rpartition(f"{ARTIFACTS}{os.sep}")[2]
    return moved if moved.exists() else None


def experiment_tag(file: Path, experiment: str, tag: str) -> str | None:
    """A tag of an experiment, asked without MLflow, whose import takes seconds; None where that cannot be told."""
    found = _ask(
        file,
        "SELECT tags.value FROM experiment_tags AS tags JOIN experiments USING (experiment_id)"
        " WHERE experiments.name = ? AND tags.key = ? AND experiments.lifecycle_stage = 'active'",
        (experiment, tag),
    )
    return str(found[0]) if found else None


def has_others(file: Path, key: str, tag: str, value: str) -> bool:
    """Whether there may be runs with a tag `key` that have not the value of another tag, asked without MLflow."""
    found = _ask(
        file,
        "SELECT EXISTS (SELECT 1 FROM tags AS its WHERE its.key = ? AND NOT EXISTS"
        " (SELECT 1 FROM tags AS mark WHERE mark.run_uuid = its.run_uuid AND mark.key = ? AND mark.value = ?))",
        (key, tag, value),
    )
    return found is None or bool(found[0])


def _ask(file: Path, question: str, values: tuple[str, ...]) -> tuple[object, ...] | None:
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", timeout=LOCK_TIMEOUT, uri=True)) as connection:
            found: tuple[object, ...] | None = connection.execute(question, values).fetchone()
            return found
    except sqlite3.Error:
        return None
