"""Opens an MLflow store: checks quickly that it can be used, keeps MLflow quiet, finds or makes the experiment."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gibench.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///gibench.db"  # in the working folder
ARTIFACTS = "gibench-artifacts"  # the folder beside a local database
_SQLITE = "sqlite:///"
_DATABASES = ("postgresql", "mysql", "mssql")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",  # about half a minute; MLflow's own 7 are four
}
_CHECK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_LOCK_TIMEOUT = 60  # seconds that one process waits for another's write to a SQLite file


def open_store(uri: str | None, experiment: str, create: bool) -> tuple[MlflowClient, str]:
    """A client of the store and the experiment's id.

    Args:
        uri: `sqlite:///FILE`, `http(s)://HOST:PORT` of an MLflow server, or another database MLflow knows.
        experiment: its name.
        create: make the store and the experiment where there is none.

    Raises:
        UsageError: the store cannot be had, reached or written.
    """
    uri = uri or DEFAULT_URI
    client = _client(uri, create)
    with explained(uri), _environment(_CHECK):
        return client, _experiment(client, experiment, _artifacts(uri), create, shown(uri))


def check_store(uri: str | None) -> str:
    """What is found at the address, without making anything that is not there.

    Raises:
        UsageError: the store cannot be reached; or, a local one, not written.
    """
    file = _sqlite_file(uri or DEFAULT_URI)
    if file and not file.exists():
        folder = next(parent for parent in file.parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise UsageError(f"the tracking store {file} cannot be made: {folder} is not writable: see --tracking-uri")
        return f"none yet at {file}: the first run makes it"
    client = _client(uri or DEFAULT_URI, write=file is not None)
    with explained(uri), _environment(_CHECK):
        names = sorted(experiment.name for experiment in client.search_experiments())
    return f"{shown(uri)}, experiments {', '.join(names)}"


def shown(uri: str | None) -> str:
    """The store's address for people to read, without a password."""
    return re.sub(r"//[^/@]*@", "//", uri or DEFAULT_URI)


@contextmanager
def explained(uri: str | None) -> Iterator[None]:
    """Turn what the store raises into one clear line.

    Raises:
        UsageError: the body failed on the store.
    """
    from mlflow.exceptions import MlflowException
    from requests import ConnectionError as Unreachable
    from requests import Timeout
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        if isinstance(error.__cause__ or error.__context__, Unreachable | Timeout):
            cause = "no server answers there"
        else:
            cause = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        raise UsageError(f"the tracking store {shown(uri)} cannot be used: {cause}: see --tracking-uri") from error


def _client(uri: str, write: bool) -> MlflowClient:
    """A client of a store that was reached a moment ago; MLflow would try for minutes, or an hour, to reach one."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    scheme = urlsplit(uri).scheme
    with explained(uri), _environment(_CHECK):
        if file := _sqlite_file(uri):
            _check_sqlite(file, write)
            uri = f"{_SQLITE}{file}?timeout={_LOCK_TIMEOUT}"
        elif scheme.partition("+")[0] in _DATABASES:
            _check_database(uri)
        elif scheme not in ("http", "https"):
            raise UsageError(
                f"'{uri}' is no tracking store (plain folders no longer are): use sqlite:///FILE.db, "
                "or http://HOST:PORT of an MLflow server"
            )
        from mlflow import MlflowClient

        return MlflowClient(uri)


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute() if uri.startswith(_SQLITE) else None


def _artifacts(uri: str) -> str | None:
    """Where the artifacts of a new experiment go: beside a local database; a server has a place of its own."""
    if urlsplit(uri).scheme in ("http", "https"):
        return None
    file = _sqlite_file(uri)
    return (file.parent / ARTIFACTS if file else Path(ARTIFACTS).absolute()).as_uri()


def _check_sqlite(file: Path, write: bool) -> None:
    if not write and not file.exists():
        raise UsageError(f"there is no tracking store {file} yet: run something first, or see --tracking-uri")
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=_LOCK_TIMEOUT)) as connection:
        connection.execute("BEGIN IMMEDIATE" if write else "PRAGMA schema_version")
        connection.rollback()


def _check_database(uri: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    engine.connect().close()
    engine.dispose()


def _experiment(client: MlflowClient, name: str, artifacts: str | None, create: bool, store: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None and not create:
        known = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise UsageError(f"there is no experiment '{name}' in {store}: there are {known}")
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process has just made it
    if found.lifecycle_stage == "deleted":
        raise UsageError(f"the experiment '{name}' in {store} is deleted: restore it in MLflow, or use --experiment")
    return str(found.experiment_id)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
