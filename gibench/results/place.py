"""Where results lie, and what is said when they cannot."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from gibench.errors import GibenchError, UsageError
from gibench.text import storable

DEFAULT = "gibench-results"  # in the working folder
VARIABLE = "GIBENCH_RESULTS"
SESSIONS = ".sessions"  # folder of the processes that write into a results folder


def root(folder: str | Path | None) -> Path:
    """The folder that is meant: the one given, else the environment's, else `gibench-results` in the working folder."""
    return Path(folder or os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()


def experiment_name(name: str | None) -> str:
    """The experiment that is meant: the one given, else `MLFLOW_EXPERIMENT_NAME`, else `gibench`."""
    return name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "gibench"


def identity(folder: Path) -> str:
    """What tells this results folder from others, a copy of it included: its name was given to this very file.

    Raises:
        OSError: it has none yet and cannot be written.
    """
    file = folder / ".id"
    try:
        name, inode = file.read_text().split()
        if int(inode) == file.stat().st_ino:
            return name
    except (FileNotFoundError, ValueError):
        pass
    partial = folder / f".id.{uuid.uuid4().hex}.new"
    partial.touch()
    name = uuid.uuid4().hex
    partial.write_text(f"{name} {partial.stat().st_ino}")
    partial.replace(file)
    return name


def quoted(experiment: str) -> str:
    """The experiment's name as that of a folder; `urllib.parse.unquote` undoes it."""
    text = quote(storable(experiment), safe=" ,+()[]@=")
    return f"%2E{text[1:]}" if text.startswith(".") else text  # what begins with a dot is not a cell's or experiment's


def holding(folder: Path) -> Path | None:
    """The results folder that a folder is or lies in, or None."""
    whole = folder.expanduser().absolute()
    return next((each for each in (whole, *whole.parents) if each == root(None) or (each / SESSIONS).is_dir()), None)


def experiments(folder: str | Path | None) -> list[str]:
    """The names of the experiments in a results folder.

    Raises:
        UsageError: there is no such folder.
    """
    found = root(folder)
    if not found.is_dir():
        raise UsageError(f"there is no results folder {found} yet: run something first, or see --results")
    return sorted(unquote(each.name) for each in found.iterdir() if each.is_dir() and not each.name.startswith("."))


def check_place(folder: Path) -> None:
    """Find out whether results can be kept in a folder, which need not be there yet, without making anything.

    Raises:
        UsageError: they cannot.
    """
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        what = "is not writable" if there.is_dir() else "is no folder"
        raise UsageError(f"results cannot be kept in {folder}: {there} {what}: see --results, or {VARIABLE}")


@contextmanager
def makeable(folder: Path) -> Iterator[None]:
    """Turn a refusal to make the folder into one clear line.

    Raises:
        UsageError: the body failed on the file system.
    """
    try:
        yield
    except OSError as error:
        cause = error.strerror or error
        raise UsageError(
            f"the results folder {folder} cannot be made: {cause}: see --results, or {VARIABLE}"
        ) from error


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn a refusal to write into one clear line: something that failed on the way, and no wrong request.

    Raises:
        GibenchError: the body failed on the file system.
    """
    try:
        yield
    except OSError as error:
        raise GibenchError(
            f"the results folder {folder} cannot be written: {error.strerror or error}: what is finished is kept "
            "there; mend that, and the same command goes on from it"
        ) from error
