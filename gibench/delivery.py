"""Delivers what is finished from the results folder into MLflow, each row exactly once, beside the cells that run.

A row that is delivered is noted in the folder, in a file for each store. As a note may be missing, if a process was
killed between the two or a server's answer was lost, the store is asked for the row's id before anything is written. A
row is written under a claim, so that of two processes one does it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from gibench.errors import GibenchError, UsageError
from gibench.job import Progress
from gibench.mlflow_store import be_quiet, file_of
from gibench.recording import NAME, Recorder
from gibench.result import StoredRow
from gibench.results import Results
from gibench.results.document import DamagedError
from gibench.results.durable import append_line
from gibench.results.kinds import all_rows
from gibench.results.place import identity, writable
from gibench.sqlite_store import experiment_tag

NOTES = ".delivered"  # the folder of the notes, a file for each store
_RETRY = 20.0  # seconds after which a store that failed is tried again while cells run
_ATTEMPTS = 3  # at a store that was reached and then fails: two writers can be in each other's way
_POLL = 0.2  # seconds between looks at what another process is delivering


def undelivered(results: Results) -> int:
    """How many rows of an experiment's folder no store is noted to have."""
    noted = _noted(results.folder / NOTES)
    return sum(row.run_id not in noted for row in all_rows(results))


class Delivery:
    """Delivers the rows of one experiment from a thread of its own, to be entered while cells run.

    On the way out it waits for what is left, unless it is left by an exception. A store that fails costs one warning.
    """

    def __init__(
        self,
        results: Results,
        uri: str | None,
        wanted: Iterable[str] | None,
        warn: Callable[[str], None],
        working: Progress,
    ) -> None:
        """Prepare.

        Args:
            results: the folder, opened to be written.
            uri: see `gibench.address.address`.
            wanted: the keys of the cells that are to be in this store, delivered to another one or not. What was never
                delivered to any is delivered too. None for all there are.
            warn: is told of a store that fails.
            working: is told what is waited for, and the share done.
        """
        self._results, self._uri, self._warn, self._working = results, uri, warn, working
        self._wanted = None if wanted is None else frozenset(wanted)
        self._pending: deque[StoredRow] = deque()
        self._news, self._closing, self._hurry = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="gibench-delivery", daemon=True)
        self._parents: dict[str, str] = {}
        self._told = False
        self.delivered = 0
        self.problem: str | None = None  # why the store cannot be used at the moment

    def __enter__(self) -> Self:
        self._results.saved = self._add
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._results.saved = lambda row: None
        if kind:
            self._hurry.set()  # what is not delivered now the next call delivers
        self._closing.set()
        self._news.set()
        while self._thread.is_alive():
            total = self.delivered + len(self._pending)
            self._working(f"delivering to MLflow, {len(self._pending)} left", self.delivered / total if total else None)
            self._thread.join(_POLL)
        self._results.flush()

    @property
    def left(self) -> int:
        """Rows that are not delivered yet."""
        return len(self._pending)

    def _add(self, row: StoredRow) -> None:
        self._pending.append(row)
        self._news.set()

    def _work(self) -> None:
        target: _Target | None = None
        looked, attempts = False, 0
        if self._has_all():
            self._news.wait()
            if not self._pending:  # nothing was saved
                return
        while True:
            last = self._closing.is_set()
            try:
                target = target or self._open()
                if not looked:
                    self._look(target)
                    looked = True
                self._deliver(target)
                if last:
                    self._close_grids(target)
                self.problem, attempts = None, 0
            except Exception as error:  # whatever MLflow raises, the rows are in the folder
                target = None
                attempts += 1
                if attempts < _ATTEMPTS and not isinstance(error, UsageError):
                    self._hurry.wait(_POLL)
                    continue
                self._failed(error)
                if not last:
                    self._closing.wait(_RETRY)
                    continue
            if last:
                return
            self._news.wait()
            self._news.clear()

    def _open(self) -> _Target:
        be_quiet()
        with writable(self._results.root):
            recorder = Recorder(self._uri, self._results.experiment, identity(self._results.root))
            return _Target(recorder, _Notes(self._results.folder, recorder.name(uuid.uuid4().hex)))

    def _has_all(self) -> bool:
        """Whether a store here has everything by the notes: it need not be opened, which takes seconds."""
        file = file_of(self._uri)
        name = file and experiment_tag(file, self._results.experiment, NAME)
        if not name:
            return False
        try:
            notes = _Notes(self._results.folder, name)
            return not self._missing(notes, all_rows(self._results)) and notes.read() >= set(self._results.grids.all())
        except OSError:  # what is wrong is told when it is tried
            return False

    def _missing(self, notes: _Notes, rows: Iterable[StoredRow]) -> list[StoredRow]:
        here, anywhere = notes.read(), notes.read_all()
        missing = [row for row in rows if row.run_id not in here]
        return [row for row in missing if self._wanted is None or row.key in self._wanted or row.run_id not in anywhere]

    def _look(self, target: _Target) -> None:
        """Find what earlier calls have left to do."""
        cut_off = target.recorder.cut_off()  # asked before the rows are read: what is begun from here on has one
        rows = all_rows(self._results)
        fresh = {row.run_id for row in list(self._pending)}
        left = [row for row in self._missing(target.notes, rows) if row.run_id not in fresh]
        self._pending.extendleft(reversed(left))
        present = {row.run_id for row in rows} | fresh
        for run_id, run in cut_off.items():
            if run_id not in present and (claim := self._results.claim(f"mlflow-{run_id}")):
                with claim:  # its cell has been run again since
                    target.recorder.give_up(run)

    def _deliver(self, target: _Target) -> None:
        while self._pending and not self._hurry.is_set():
            row = self._pending[0]
            if claim := self._results.claim(f"mlflow-{row.run_id}"):
                with claim:
                    self._record(target, row)
                self._pending.popleft()
            elif self._hurry.wait(_POLL):
                return

    def _record(self, target: _Target, row: StoredRow) -> None:
        if row.run_id in target.notes.read():
            return
        folder = self._results.folder / row.key
        try:
            document = self._results.document(row.key)
            if document["row"]["run_id"] != row.run_id:  # replaced meanwhile, and the new one is pending too
                return
            target.recorder.record(row, folder, self._parent(target, document.get("grid")))
        except (DamagedError, FileNotFoundError, KeyError, UsageError) as error:
            self._warn(f"{folder} cannot be delivered to MLflow: {error}")
            return
        target.notes.add(row.run_id)
        self.delivered += 1

    def _parent(self, target: _Target, grid: str | None) -> str | None:
        """The parent run of a grid, made by one process."""
        if grid is None or grid in self._parents:
            return self._parents.get(grid or "")
        while not (claim := self._results.claim(f"mlflow-{grid}")):
            self._hurry.wait(_POLL)
        with claim:
            found = self._results.grids.read(grid)
            self._parents[grid] = target.recorder.grid(grid, found["name"], found["settings"])
        return self._parents[grid]

    def _close_grids(self, target: _Target) -> None:
        """End the parent runs of grids that have ended, of killed processes too."""
        closed = target.notes.read()
        for grid in self._results.grids.all():
            if grid not in closed and (ended := self._results.grids.ended(grid)):
                target.recorder.close_grid(grid, ended)
                target.notes.add(grid)

    def _failed(self, error: Exception) -> None:
        known = isinstance(error, GibenchError)
        cause = str(error) if known else f"the tracking store failed ({type(error).__name__}: {error})"
        self.problem = " ".join(cause.split())
        if not self._told:
            self._warn(f"{self.problem}; rows are kept in {self._results.root}, and gibench sync delivers them")
            self._told = True


class _Notes:
    """Which rows and grids one store has."""

    def __init__(self, folder: Path, store: str) -> None:
        self._folder = folder / NOTES
        self._folder.mkdir(exist_ok=True)
        self._file = self._folder / f"{store}.jsonl"
        self._known: set[str] = set()
        self._offset = 0  # bytes that are known

    def add(self, name: str) -> None:
        append_line(self._file, json.dumps(name))

    def read(self) -> set[str]:
        """What is noted, by other processes too."""
        found, self._offset = _read(self._file, self._offset)
        self._known |= found
        return self._known

    def read_all(self) -> set[str]:
        """What is noted of any store."""
        return _noted(self._folder)


class _Target(NamedTuple):
    """A store that was reached, and the notes of what it has."""

    recorder: Recorder
    notes: _Notes


def _noted(folder: Path) -> set[str]:
    """What is noted of any store."""
    return set().union(*(_read(file)[0] for file in folder.glob("*.jsonl")))


def _read(file: Path, offset: int = 0) -> tuple[set[str], int]:
    """What the whole lines after an offset say, and where they end."""
    found: set[str] = set()
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            with contextlib.suppress(ValueError):  # cut off half-way
                found.add(json.loads(line))
    return found, offset
