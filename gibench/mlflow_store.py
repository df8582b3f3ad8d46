"""Opens an MLflow store: checks quickly that it can be used, keeps MLflow quiet, finds or makes the experiment."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gibench.errors import UsageError
from gibench.text import RENAME, is_storable

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///gibench.db"  # in the working folder
VARIABLE = "MLFLOW_TRACKING_URI"
ARTIFACTS = "gibench-artifacts"  # the folder beside a local database
_SQLITE = "sqlite:///"
_DATABASES = ("postgresql", "mysql", "mssql")
_SERVERS = ("http://", "https://")
_NO_MLFLOW = "what answers there is no MLflow server"
_REFUSALS = ("401", "403", "407")
# How MLflow words an answer that is not its own server's, which can be a whole page.
_ANSWER = re.compile(r"API request to endpoint .*?(?:error code (?P<code>\d+) .*?)?Response body: '(?P<answer>.*)'")
_NOT_IN_A_PATH = re.compile(r"\?|%[0-9A-Fa-f]{2}|\x00")
_LONGEST = 200  # characters of what others say
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


def open_store(uri: str | None, experiment: str | None, create: bool) -> tuple[MlflowClient, str]:
    """A client of the store and the experiment's id.

    Args:
        uri: see `address`.
        experiment: its name; see `experiment_name`.
        create: make the store and the experiment where there is none.

    Raises:
        UsageError: the store cannot be had, reached or written.
    """
    uri = address(uri)
    client = _client(uri, create)
    with explained(uri), _environment(_CHECK):
        return client, _experiment(client, experiment_name(experiment), _artifacts(uri), create, shown(uri))


def check_store(uri: str | None) -> str:
    """What is found at the address, without making anything that is not there.

    Raises:
        UsageError: the store cannot be reached; or, a local one, not written.
    """
    uri = address(uri)
    file = _sqlite_file(uri)
    if file and not file.exists():
        folder = next(parent for parent in file.parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise UsageError(f"the tracking store {file} cannot be made: {folder} is not writable: {_mend(uri)}")
        return f"none yet at {file}: the first run makes it"
    client = _client(uri, write=file is not None)
    with explained(uri), _environment(_CHECK):
        found = client.search_experiments()
        if not found and not file:
            raise ConnectionError(_NO_MLFLOW)
    return f"{shown(uri)}, experiments {', '.join(sorted(experiment.name for experiment in found))}"


def address(uri: str | None) -> str:
    """The store that is meant: the one given, else the environment's, else a database in the working folder.

    Args:
        uri: `sqlite:///FILE`, `http(s)://HOST:PORT` of an MLflow server (also as a browser shows a page of it), or
            another database MLflow knows; None or nothing where none is given.
    """
    uri = uri or os.environ.get(VARIABLE) or DEFAULT_URI
    return re.split("[?#]", uri)[0].rstrip("/") if uri.startswith(_SERVERS) else uri


def experiment_name(name: str | None) -> str:
    """The experiment that is meant: the one given, else `MLFLOW_EXPERIMENT_NAME`, else `gibench`."""
    return name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "gibench"


def shown(uri: str | None) -> str:
    """The store's address for people to read, without a password."""
    return _without_password(address(uri))


def _without_password(text: str) -> str:
    return re.sub(r"//[^/\s]*@", "//", text)


def _mend(uri: str | None) -> str:
    """Where another store is named."""
    of_environment = os.environ.get(VARIABLE) and address(uri) == address(None)
    return f"see {VARIABLE}, or --tracking-uri" if of_environment else "see --tracking-uri"


@contextmanager
def explained(uri: str | None) -> Iterator[None]:
    """Turn what the store raises into one clear line.

    Raises:
        UsageError: the body failed on the store.
    """
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, ParseError, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError) as error:
        line = f"the tracking store {shown(uri)} cannot be used: {_cause(error)}: {_mend(uri)}"
        raise UsageError(line) from error


def _cause(error: Exception) -> str:
    """Why a store failed, in a few words: what servers answer can be whole pages."""
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import RestException
    from requests import exceptions as http

    unreached = (
        (http.SSLError, "no https that is trusted is spoken there: write http:// if it is such a server"),
        (http.ProxyError, "the proxy does not let it through, see HTTP_PROXY, HTTPS_PROXY and NO_PROXY"),
        ((http.ConnectionError, http.Timeout), "no server answers there"),
        (http.RetryError, "the server there fails, or is none of MLflow"),
    )
    below = error.__cause__ or error.__context__
    if found := next((cause for kind, cause in unreached if isinstance(below, kind)), None):
        return found
    if isinstance(error, ParseError) or (isinstance(error, RestException) and "message" not in error.json):
        return _NO_MLFLOW
    text = "".join(filter(str.isprintable, " ".join(str(getattr(error, "orig", None) or error).split())))
    match = _ANSWER.search(text)
    return _of_answer(match) if match else _without_password(text)[:_LONGEST]


def _of_answer(match: re.Match[str]) -> str:
    code, answer = match["code"] or "200", match["answer"]
    said = f"{code}: {answer[:_LONGEST]}" if answer and "<" not in answer else code
    if code in _REFUSALS:
        return f"it refuses access ({said}), see MLFLOW_TRACKING_USERNAME, _PASSWORD and _TOKEN"
    return f"{_NO_MLFLOW} ({said})"


def _client(uri: str, write: bool) -> MlflowClient:
    """A client of a store that was reached a moment ago; MLflow would try for minutes, or an hour, to reach one."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with explained(uri), _environment(_CHECK):
        if file := _sqlite_file(uri):
            _check_sqlite(file, write, uri)
            uri = f"{_SQLITE}{file}?timeout={_LOCK_TIMEOUT}"
        elif uri.partition("://")[0].partition("+")[0] in _DATABASES:
            _check_database(uri)
        elif not uri.startswith(_SERVERS):
            raise UsageError(
                f"'{uri}' is no tracking store (plain folders no longer are): use sqlite:///FILE.db, "
                f"or http://HOST:PORT of an MLflow server, {_mend(uri)}"
            )
        from mlflow import MlflowClient

        return MlflowClient(uri)


def _sqlite_file(uri: str) -> Path | None:
    """The database's file; None where the store is none.

    Raises:
        UsageError: its path cannot be written into the addresses that MLflow uses.
    """
    if not uri.startswith(_SQLITE):
        return None
    name = uri.removeprefix(_SQLITE).partition("?")[0]
    file = Path(name).absolute()
    if not is_storable(str(file)):
        raise UsageError(
            f"the tracking store {str(file)!r} has a path whose bytes are no UTF-8: {RENAME}, {_mend(uri)}"
        )
    if wrong := _NOT_IN_A_PATH.search(str(file)):
        raise UsageError(
            f"the tracking store {str(file)!r} has {wrong[0]!r} in its path, which MLflow reads as something else: "
            f"work in another folder, or {_mend(uri)}"
        )
    return file


def _artifacts(uri: str) -> str | None:
    """Where the artifacts of a new experiment go: beside a local database; a server has a place of its own."""
    if uri.startswith(_SERVERS):
        return None
    file = _sqlite_file(uri)
    return (file.parent / ARTIFACTS if file else Path(ARTIFACTS).absolute()).as_uri()


def _check_sqlite(file: Path, write: bool, uri: str) -> None:
    if not write and not file.exists():
        raise UsageError(f"there is no tracking store {file} yet: run something first, or {_mend(uri)}")
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
    if not found.experiment_id:
        raise ConnectionError(_NO_MLFLOW)
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
