"""Puts results folders together: each cell once, whatever machine or shard it was run on."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from gibench.errors import DataWarning, UsageError
from gibench.result import UNFINISHED
from gibench.results import index
from gibench.results.document import GRID, IMAGES, RESULT, DamagedError, parsed
from gibench.results.folder import Results
from gibench.results.place import writable

_FILES = (RESULT, IMAGES, GRID)


class Merged(NamedTuple):
    """What came of it."""

    taken: int  # cells that were not here, or here without a final status
    known: int  # cells that stay as they are here


def merge(into: str | Path | None, folders: Iterable[Path]) -> Merged:
    """Copy the cells of other results folders, those of every experiment.

    Of a cell that is in several a row with a final status counts more than one without, then the one that is here. What
    is damaged is left out with a warning that names it.

    Args:
        into: the folder that gets them; see `gibench.results.place.root`.
        folders: the others, which stay as they are.

    Raises:
        UsageError: one of them is no results folder, or is the one that gets them.
        GibenchError: the folder cannot be written.
    """
    here = Results(into).root
    experiments = [(folder, _experiments(folder, here)) for folder in folders]  # all are looked at before one is copied
    taken = known = 0
    for folder, names in experiments:
        for name in names:
            results = Results(into, unquote(name), create=True)
            for key, row in _newcomers(folder / name):
                if _take(folder / name / key, key, row, results):
                    taken += 1
                else:
                    known += 1
            _take_grids(folder / name, results)
            results.flush()
    return Merged(taken, known)


def _experiments(folder: Path, here: Path) -> list[str]:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: give results folders, as --results names them")
    if folder.resolve() == here.resolve():
        raise UsageError(f"{folder} is the folder that is merged into: give others, or another --results")
    found = [each.name for each in sorted(folder.iterdir()) if any(each.glob(f"[!.]*/{RESULT}"))]
    if not found:
        raise UsageError(f"{folder} holds no results: give the folder that --results names, which holds experiments")
    return found


def _newcomers(experiment: Path) -> list[tuple[str, dict[str, object]]]:
    return [(key, entry.row) for key, entry in sorted(index.read(experiment).items())]


def _take(source: Path, key: str, row: dict[str, object], results: Results) -> bool:
    """Copy one cell unless what is here stays."""
    mine = index.row_at(results.folder, key)
    if mine and (mine.get("status") not in UNFINISHED or row.get("status") in UNFINISHED):
        return False
    try:
        files = {name: (source / name).read_bytes() for name in _FILES if (source / name).exists()}
        columns = parsed(files[RESULT])["row"]
    except (OSError, KeyError, DamagedError) as error:
        warnings.warn(f"{source} is damaged and left out ({error})", DataWarning, stacklevel=2)
        return False
    results.put(key, files, columns)
    return True


def _take_grids(experiment: Path, results: Results) -> None:
    """The grids that cells were run in, and which store has which of them."""
    with writable(results.root):
        for place in (".grids", ".delivered"):
            for file in (experiment / place).glob("[!.]*"):
                target = results.folder / place / file.name
                target.parent.mkdir(exist_ok=True)
                if place == ".delivered" and target.exists():
                    with target.open("ab") as stream:
                        stream.write(b"\n" + file.read_bytes())
                elif not target.exists():
                    shutil.copyfile(file, target)
