"""What was asked for in one call: a small file each, from which MLflow's parent runs are made."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gibench.results.claims import session
from gibench.results.document import DamagedError, parsed
from gibench.results.durable import write_file
from gibench.results.place import writable

Ended = Literal["FINISHED", "FAILED", "KILLED"]


class Grids:
    """The grids that cells of one experiment were run in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ".grids"

    def open(self, name: str, settings: Mapping[str, Any]) -> str:
        """Note a grid that begins; returns its id."""
        grid = uuid.uuid4().hex
        begun = {key: str(value) for key, value in settings.items() if value is not None}
        with writable(self._folder):
            self._folder.mkdir(exist_ok=True)
            by = session(self._folder.parent.parent).name
            self._write(grid, {"name": name, "settings": begun, "session": by, "ended": None})
        return grid

    def close(self, grid: str, ended: Ended = "FINISHED") -> None:
        """Note how a grid ended."""
        with writable(self._folder):
            self._write(grid, self.read(grid) | {"ended": ended})

    def read(self, grid: str) -> dict[str, Any]:
        """A grid's `name`, `settings` and `ended`; one that nobody knows any more has nothing but a name."""
        try:
            return parsed((self._folder / f"{grid}.json").read_bytes())
        except (OSError, DamagedError):
            return {"name": "grid", "settings": {}, "session": "", "ended": None}

    def ended(self, grid: str) -> Ended | None:
        """How a grid ended; None while its process is at it."""
        found = self.read(grid)
        if found["ended"] is None and not session(self._folder.parent.parent).is_alive(found["session"]):
            return "KILLED"
        ended: Ended | None = found["ended"]
        return ended

    def all(self) -> list[str]:
        """The id of every grid."""
        return [file.stem for file in self._folder.glob("*.json")]

    def _write(self, grid: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=1)
        write_file(self._folder / f"{grid}.json", text.encode(), f".{grid}.new")
