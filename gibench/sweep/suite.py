"""A suite: axes and fixed settings, from a YAML file or from the command line, validated before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.job import Job
from gibench.result import Row

from . import document
from .choice import pattern
from .request import MAX_JOBS, Request, listed, with_axes

# The keys that all grids of a suite share.
_WHOLE = ("name", "grids", "exclude", "utility", "results", "tracking_uri", "experiment")

if TYPE_CHECKING:
    Axes = Request
else:
    Axes = with_axes(Cell, Row)


class Suite(Axes):
    """The options of `gibench run` with underscores. A list is an axis, and the cells are the product of the axes.

    A suite of several `grids` has the cells of each: the product of the suite's axes with the grid's in their place.
    """

    name: str | None = Field(None, description="what the grid is called in MLflow")
    grids: list[dict[str, Any]] | None = Field(
        None, min_length=1, description="several grids, each of the keys that it has in place of the suite's own"
    )
    exclude: list[dict[str, Any]] = Field(
        [], description="cells to leave out: each entry names some axes, and the values that a cell is to have of all"
    )
    utility: Annotated[list[str], BeforeValidator(listed)] = Field(
        [], description="data sets to train on with each defense, model and batch size afterwards; see gibench utility"
    )

    @classmethod
    def read(cls, path: Path, overrides: Mapping[str, Any]) -> Self:
        """The suite in a YAML file, with `overrides` in place of what it says.

        Raises:
            UsageError: the file cannot be read, or what it says is no suite.
        """
        return cls._read(document.read(path, f"the suite {path}"), f"the suite {path}", path.stem, overrides)

    @classmethod
    def parsed(cls, text: bytes, what: str, overrides: Mapping[str, Any]) -> Self:
        """The same of what such a file holds; `what` it is, in error messages."""
        return cls._read(document.parsed(text, what), what, what, overrides)

    @classmethod
    def _read(cls, found: Any, what: str, name: str, overrides: Mapping[str, Any]) -> Self:
        if not isinstance(found, dict):
            raise UsageError(f"{what} holds no keys: write them as in 'attack: [spearpp, random]'")
        return cls.of(what, {"name": name, **found}, overrides)

    @classmethod
    def of(cls, called: str, found: Mapping[Any, Any], overrides: Mapping[str, Any]) -> Self:
        """The suite that a file or a mapping holds, with `overrides` in place of what it says.

        Args:
            called: what it is called in error messages.
            found: what it holds.
            overrides: keys and values; of several grids each has them.

        Raises:
            UsageError: it is no suite.
        """
        settings = {str(key): value for key, value in found.items()}
        if isinstance(grids := settings.get("grids"), list):
            settings["grids"] = [_overridden(grid, overrides) for grid in grids]
        return cls.from_settings(called, {**settings, **overrides})

    def jobs(self) -> list[Job]:
        return list(self.cells())

    def cells(self) -> list[Cell]:
        """The cells, each once.

        Raises:
            UsageError: see `gibench.axes.expand`; or there are too many.
        """
        found: list[Cell] = []
        for grid in self._products():
            found += [cast(Cell, cell) for cell in Request.jobs(grid)]
            if len(found) > MAX_JOBS:  # before the next grid takes as much memory again
                raise UsageError(f"{len(found)} cells are more than the {MAX_JOBS} of one suite: take fewer values")
        kept = self._without_excluded(found) if self.exclude else found
        if self.grids is None:
            return kept
        return list({replace(cell, timeout=None): cell for cell in kept}.values())  # grids may overlap

    def _without_excluded(self, cells: list[Cell]) -> list[Cell]:
        where = f"an entry of 'exclude' of the suite {self.name}"
        excluded = [pattern(Cell, entry, where) for entry in self.exclude]
        kept = [cell for cell in cells if not any(fits(cell) for fits in excluded)]
        if not kept:
            raise UsageError(f"the suite {self.name} excludes all of its {len(cells)} cells: leave some")
        return kept

    def _products(self) -> list[Self]:
        """The suite's grids, each as a suite of its own; itself where it names none."""
        if self.grids is None:
            return [self]
        common = self.model_dump(exclude={"grids", "exclude"}, exclude_unset=True)
        found = []
        for number, grid in enumerate(self.grids, start=1):
            name = f"grid {number} of the suite {self.name}"
            if wrong := [key for key in _WHOLE if key in grid]:
                raise UsageError(
                    f"{name} has its own '{wrong[0]}', which is the whole suite's: write it beside 'grids'"
                )
            found.append(self.from_settings(name, common | grid))
        return found

    @model_validator(mode="after")
    def _has_an_attack(self) -> Self:
        missing = [name for name, each in axes_of(Cell).items() if each.default is None and not getattr(self, name)]
        if missing and self.grids is None:
            raise PydanticCustomError("missing", missing[0])
        return self

    @classmethod
    def _explain(cls, name: str, detail: Any) -> str:
        if detail["type"] == "missing":
            return f"{name} names no {detail['msg']}: add one"
        return super()._explain(name, detail)


def _overridden(grid: Any, overrides: Mapping[str, Any]) -> Any:
    return {key: overrides.get(key, value) for key, value in grid.items()} if isinstance(grid, dict) else grid
