"""The results folder: each finished cell is a folder of plain files named by its key, under its experiment's."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

from gibench.errors import UsageError
from gibench.result import Result, StoredRow
from gibench.results import index
from gibench.results.claims import Claim, claim, session
from gibench.results.document import GRID, IMAGES, RESULT, DamagedError, beside, files_of, parsed, row_of
from gibench.results.durable import put_in_place, recover, synchronize, write_folder
from gibench.results.grids import Grids
from gibench.results.place import experiment_name, makeable, quoted, root, writable

if TYPE_CHECKING:
    import pandas as pd

AnyRow = TypeVar("AnyRow", bound=StoredRow)
_LEAST_ID = 4  # digits of a run's or a cell's id that are taken for the beginning of one


class Results:
    """What is finished of one experiment.

    `ROOT/EXPERIMENT/KEY/` holds `result.json` (the row, with diagnostics, provenance and seconds), `images.csv` and
    `images.png`. Such a folder is written beside its place, waited for until the disk has it, and renamed.
    """

    def __init__(self, folder: str | Path | None = None, experiment: str | None = None, create: bool = False) -> None:
        """Open the folder.

        Args:
            folder: see `gibench.results.place.root`.
            experiment: its name; see `gibench.results.place.experiment_name`.
            create: see `create`; a reader makes nothing, and looks once.

        Raises:
            UsageError: the folder cannot be made.
        """
        self.root, self.experiment = root(folder), experiment_name(experiment)
        self.folder = self.root / quoted(self.experiment)
        self.saved: Callable[[StoredRow], None] = lambda row: None  # is told of each row once it is stored
        self._renamed = False  # since the disk was last waited for
        self._replacing = threading.Lock()
        self.grids = Grids(self.folder)
        self._known: dict[str, _Known] = {}
        self._looking = threading.Lock()
        self._looked = False
        self._is_reader = True
        if create:
            self.create()

    def create(self) -> Self:
        """Make what does not exist, and clear away what a killed process left half-done; returns itself.

        Raises:
            UsageError: the folder cannot be made.
        """
        with makeable(self.root):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._session = session(self.root)
            recover(self.folder, self._session.is_alive)
        self._is_reader = False
        return self

    def claim(self, name: str) -> Claim | None:
        """The right to run a cell, or to do something else of that name; None while another process has it.

        Whoever is given it asks `find` first whether it has been done meanwhile.
        """
        with writable(self.root):
            return claim(self.folder / ".claims", name, session(self.root))

    def save(self, result: Result, grid: str | None = None, pictures: bool = True, force: bool = False) -> StoredRow:
        """Keep a result; returns its row as it is stored.

        A finished one that is there already stays, and its row is given back, as it is the same cell's: two processes
        ran it at once. An unfinished one is replaced.

        Args:
            result: of one job.
            grid: the id that `grids` gave for what it was run in.
            pictures: whether to keep the image grid.
            force: replace a finished one too.

        Raises:
            GibenchError: the folder cannot be written.
        """
        started = time() - sum(result.seconds.values())
        row = replace(result.row, run_id=uuid.uuid4().hex, started=_moment(started))
        files = files_of(result, row, grid, pictures)
        columns = parsed(files[RESULT])["row"]
        row = row_of(type(row), columns)  # as it will be read: without infinities

        def done() -> StoredRow | None:
            there = None if force else self.find(type(row), row.key)
            return there if there and there.finished else None

        if there := self.put(row.key, files, columns, done, row):
            return there
        self.saved(row)
        return row

    def put(
        self,
        key: str,
        files: Mapping[str, bytes],
        columns: dict[str, Any],
        unless: Callable[[], StoredRow | None] = lambda: None,
        row: StoredRow | None = None,
    ) -> StoredRow | None:
        """Make the folder of a cell, in the place of one that is there.

        Args:
            key: of the cell.
            files: the content of each file by its name, as `gibench.results.document.files_of` gives it.
            columns: of the row in them, as JSON has it.
            unless: is asked at the last moment, and what it answers is given back and the folder left as it is; None
                goes ahead.
            row: the columns as a row, if there is one already.

        Raises:
            GibenchError: the folder cannot be written.
        """
        with writable(self.root):
            mine = session(self.root).name
            beside = self.folder / f".{mine}.{uuid.uuid4().hex}.new"
            write_folder(beside, files, [self.folder] if self._renamed else [])
            with self._replacing:
                if answer := unless():
                    shutil.rmtree(beside, ignore_errors=True)
                    return answer
                entry = index.Entry(index.stamp(beside / RESULT), columns)
                put_in_place(beside, self.folder / key, self.folder / f".{mine}.{key}.old")
                with self._looking:
                    self._known[key] = _Known(entry.stamp, row or columns)
            self._renamed = True
        index.add(self.folder, key, entry)
        return None

    def flush(self) -> None:
        """Wait until the disk has the name of what was saved last, too."""
        if self._renamed:
            with writable(self.root):
                synchronize(self.folder)
            self._renamed = False

    def find(self, kind: type[AnyRow], key: str) -> AnyRow | None:
        """The row of a cell as its file has it now; None where there is none, or a damaged one."""
        try:
            return row_of(kind, self.document(key)["row"])
        except (OSError, DamagedError, KeyError):
            return None

    def has(self, row: StoredRow) -> bool:
        """Whether this very row is the one of its cell."""
        found = self.find(type(row), row.key)
        return found is not None and found.run_id == row.run_id

    def document(self, key: str) -> dict[str, Any]:
        """What `result.json` of a cell holds: `row`, `grid`, `diagnostics`, `provenance`, `seconds`.

        Raises:
            OSError: there is no such file, or it cannot be read.
            DamagedError: it is no JSON.
        """
        return parsed((self.folder / key / RESULT).read_bytes())

    def rows(self, kind: type[AnyRow], diagnostics: bool = False) -> list[AnyRow]:
        """Every row of a kind, oldest first; what is damaged is left out with a warning that names it.

        Args:
            kind: of row; an experiment may hold several.
            diagnostics: fill `beside` with what was noted in numbers.
        """
        found = []
        with self._looking:
            self._look()
            for key, known in self._known.items():
                try:
                    row = known.as_row(kind)
                    if row and diagnostics:
                        row = replace(row, beside=beside(self.document(key)))
                except (OSError, DamagedError) as error:
                    index.warn_of(self.folder / key, error)
                else:
                    found += [row] if row else []
        return sorted(found, key=lambda row: (row.started, row.run_id))

    def _look(self) -> None:
        """Know every cell: the index is read once, and from then on what differs from it."""
        if not self._looked:
            self._known = {key: _Known(*entry) for key, entry in index.entries(self.folder).items()}
        elif not self._is_reader:
            new, gone = index.changes(self.folder, {key: known.stamp for key, known in self._known.items()})
            for key in gone:
                del self._known[key]
            self._known |= {key: _Known(*entry) for key, entry in new.items()}
        self._looked = True

    def beginning(self, kind: type[AnyRow], text: str) -> list[AnyRow]:
        """The rows whose `run_id` or key begins so, if that is enough of one."""
        rows = self.rows(kind) if len(text) >= _LEAST_ID else []
        return [row for row in rows if row.run_id.startswith(text) or row.key.startswith(text)]

    def details(self, key: str) -> dict[str, Any]:
        """What lies beside a row.

        Returns:
            `artifacts` (the folder), `grid` and `images` (paths in it, None if it has none), `diagnostics`,
            `provenance`, `seconds`.

        Raises:
            UsageError: the files are gone or damaged.
        """
        folder = self.folder / key
        try:
            stored = self.document(key)
        except (OSError, DamagedError) as error:
            raise UsageError(f"{folder} cannot be read: {error}: delete it, and its cell is run again") from None
        return {"artifacts": str(folder), **self.paths(key)} | {
            name: stored.get(name) for name in ("diagnostics", "provenance", "seconds")
        }

    def paths(self, key: str) -> Mapping[str, str | None]:
        """Where the image grid (`grid`) and the per-image table (`images`) of a cell are."""
        found = {"grid": self.folder / key / GRID, "images": self.folder / key / IMAGES}
        return {name: str(path) if path.exists() else None for name, path in found.items()}

    def images(self, rows: Iterable[StoredRow]) -> pd.DataFrame:
        """The per-image tables of some rows, one below the other: `run_id`, then the columns of `Score.images`.

        Raises:
            UsageError: a table is gone or damaged.
        """
        import pandas as pd

        tables = []
        for row in rows:
            file = self.folder / row.key / IMAGES
            try:
                tables.append(pd.read_csv(file).assign(run_id=row.run_id))
            except (OSError, ValueError) as error:
                raise UsageError(f"{file} cannot be read: {error}: run its cell again with --force") from None
        joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"run_id": []})
        return joined[["run_id", *joined.columns.drop("run_id")]]


class _Known:
    """What was read of a cell."""

    __slots__ = "_held", "stamp"

    def __init__(self, stamp: index.Stamp, held: dict[str, Any] | StoredRow) -> None:
        self.stamp, self._held = stamp, held

    def as_row(self, kind: type[AnyRow]) -> AnyRow | None:
        """Its row, which is checked when it is first asked for; None where it is of another kind.

        Raises:
            DamagedError: see `row_of`.
        """
        if isinstance(self._held, dict) and kind.key_column in self._held:
            self._held = row_of(kind, self._held)
        return self._held if isinstance(self._held, kind) else None


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
