"""Opens an MLflow store: checks quickly that it can be used, keeps MLflow quiet, finds or makes the experiment."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from gibench.address import SERVERS, address, mend, shown, without_password
from gibench.errors import StoreError, UsageError
from gibench.results.place import experiment_name
from gibench.sqlite_store import ARTIFACTS, LOCK_TIMEOUT, SQLITE, move_artifacts, prepare, sqlite_file, state

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_DATABASES = ("postgresql", "mysql", "mssql")
_NO_MLFLOW = "what answers there is no MLflow server"
_REFUSALS = ("401", "403", "407")
# How MLflow words an answer that is not its own server's, which can be a whole page.
_ANSWER = re.compile(r"API request to endpoint .*?(?:error code (?P<code>\d+) .*?)?Response body: '(?P<answer>.*)'")
_LONGEST = 200  # characters of what others say
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails is told in one line of ours
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",  # about half a minute; MLflow's own 7 are four
}
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # `environment` for requests that are not to be sent again
_CHECK = ONCE | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class Opened(NamedTuple):
    """An experiment of a store that was reached a moment ago."""

    client: MlflowClient
    experiment: str  # its id
    file: Path | None  # the database, where it is one here


def open_store(uri: str | None, experiment: str | None, create: bool) -> Opened:
    """Reach the store and find the experiment.

    Args:
        uri: see `address`.
        experiment: its name; see `gibench.results.place.experiment_name`.
        create: make the store and the experiment where there is none.

    Raises:
        UsageError: the store cannot be had, reached or written.
    """
    uri = address(uri)
    name = experiment_name(experiment)
    with _opening(uri), environment(_CHECK):
        file, client = _file(uri), _client(uri, create)
        artifacts = None if uri.startswith(SERVERS) else ((file or Path()).absolute().parent / ARTIFACTS).as_uri()
        found = _experiment(client, name, artifacts, create, shown(uri))
        if file and create:
            move_artifacts(file, found.experiment_id, found.artifact_location)
    return Opened(client, str(found.experiment_id), file)


def check_address(uri: str | None) -> None:
    """Find out whether there can be a store at an address, without asking there.

    Raises:
        UsageError: no store has such an address.
    """
    uri = address(uri)
    if not uri.startswith((SQLITE, *SERVERS)) and uri.partition("://")[0].partition("+")[0] not in _DATABASES:
        raise UsageError(
            f"'{shown(uri)}' is no tracking store (plain folders no longer are): use sqlite:///FILE.db, "
            f"or http://HOST:PORT of an MLflow server, {mend(uri)}"
        )
    if uri.startswith(SERVERS):
        with _opening(uri):
            try:
                urlsplit(uri).port  # noqa: B018 - it is read when it is asked for
            except ValueError:
                raise ValueError("it is no address of a server") from None  # Python's words would quote a password


def check_store(uri: str | None) -> str:
    """What is found at the address, without making anything that is not there.

    Raises:
        UsageError: the store cannot be reached; or, a local one, not written.
    """
    uri = address(uri)
    file = _file(uri)
    if file and not file.exists():
        folder = next(parent for parent in file.parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise UsageError(f"the tracking store {file} cannot be made: {folder} is not writable: {mend(uri)}")
        return f"none yet at {file}: the first run makes it"
    if file and file.is_file():
        with _opening(uri):
            if (what := state(file)) in ("empty", "half-made"):
                return f"only a file that is {what} at {file}: the first run makes it anew"
    with _opening(uri), environment(_CHECK):
        client = _client(uri, write=file is not None)
        found = client.search_experiments()
        if not found and not file:
            raise ConnectionError(_NO_MLFLOW)
    return f"{shown(uri)}, experiments {', '.join(sorted(experiment.name for experiment in found))}"


def file_of(uri: str | None) -> Path | None:
    """The database's file where the store is one here; None where it is none, or cannot be one."""
    try:
        return _file(address(uri))
    except UsageError:
        return None


@contextmanager
def explained(uri: str | None) -> Iterator[None]:
    """Turn what the store raises into one clear line.

    Raises:
        StoreError: the body failed on the store.
    """
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, ParseError, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError) as error:
        line = f"the tracking store {shown(uri)} cannot be used: {_cause(error)}: {mend(uri)}"
        raise StoreError(line) from error


@contextmanager
def _opening(uri: str) -> Iterator[None]:
    """The same where a store is reached for the first time: as likely as not it is the address that is wrong.

    Raises:
        UsageError: the body failed on the store.
    """
    be_quiet()
    try:
        with explained(uri):
            yield
    except StoreError as error:
        raise UsageError(str(error)) from error.__cause__


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
    return _of_answer(match) if match else without_password(text)[:_LONGEST]


def _of_answer(match: re.Match[str]) -> str:
    code, answer = match["code"] or "200", match["answer"]
    said = f"{code}: {answer[:_LONGEST]}" if answer and "<" not in answer else code
    if code in _REFUSALS:
        return f"it refuses access ({said}), see MLFLOW_TRACKING_USERNAME, _PASSWORD and _TOKEN"
    return f"{_NO_MLFLOW} ({said})"


def be_quiet() -> None:
    """Keep MLflow and what it is made of from printing: what fails is told in one line of ours."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


def _file(uri: str) -> Path | None:
    return sqlite_file(uri, mend(uri))


def _client(uri: str, write: bool) -> MlflowClient:
    """A client of a store that was reached a moment ago; MLflow would try for minutes, or an hour, to reach one."""
    check_address(uri)
    if file := _file(uri):
        prepare(file, write, mend(uri))
        uri = f"{SQLITE}{file}?timeout={LOCK_TIMEOUT}"
    elif not uri.startswith(SERVERS):
        _check_database(uri)
    from mlflow import MlflowClient

    return MlflowClient(uri)


def _check_database(uri: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    engine.connect().close()
    engine.dispose()


def _experiment(client: MlflowClient, name: str, artifacts: str | None, create: bool, store: str) -> Experiment:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None and not create:
        known = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise UsageError(f"there is no experiment '{name}' in {store}: there are {known}")
    if found is None:
        try:
            client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise  # another process may just have made it
        found = client.get_experiment_by_name(name)
    if not (found and found.experiment_id):
        raise ConnectionError(_NO_MLFLOW)
    if found.lifecycle_stage == "deleted":
        raise UsageError(f"the experiment '{name}' in {store} is deleted: restore it in MLflow, or use --experiment")
    return found


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set some variables, which MLflow reads with each request, for a while."""
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
