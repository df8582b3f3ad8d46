"""A suite: axes and fixed settings, from a YAML file or from the command line, validated before anything runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from gibench.cell import Cell, expand
from gibench.errors import UsageError
from gibench.observation import ThreatModel
from gibench.plugin import Plugin

MAX_CELLS = 100_000
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_WHOLE = ("name", "grids", "utility", "tracking_uri", "experiment")  # keys that all grids of a suite share


def listed(value: Any) -> Any:
    """A value alone as the list of it."""
    return value if isinstance(value, list) else [value]


def seeds_of(value: Any) -> Any:
    """Seeds as numbers and ranges `0-9`, written out."""
    seeds: list[Any] = []
    for item in listed(value):
        if not isinstance(item, str):
            seeds.append(item)
            continue
        if not (match := _RANGE.fullmatch(item)):
            raise ValueError(f"'{item}' is no seed: write a number such as 0, or a range such as 0-9")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + MAX_CELLS:
            raise ValueError(f"a range goes from a seed up to another, at most {MAX_CELLS} of them")
        seeds.extend(range(first, last + 1))
    return seeds


T = TypeVar("T")
Axis = Annotated[list[T], BeforeValidator(listed), Field(min_length=1)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], BeforeValidator(seeds_of), Field(min_length=1)]


class Suite(Plugin):
    """The options of `gibench run` with underscores. A list is an axis, and the cells are the product of the axes.

    A suite of several `grids` has the cells of each: the product of the suite's axes with the grid's in their place.
    """

    model_config = ConfigDict(strict=True)

    name: str | None = Field(None, description="what the grid is called in MLflow")
    grids: list[dict[str, Any]] | None = Field(
        None, min_length=1, description="several grids, each of the keys that it has in place of the suite's own"
    )
    attack: Axis[str] = Field([], validate_default=False, description="attacks, each name:key=value,...")
    defense: Axis[str] = Field(["none"], description="defenses; + composes them")
    dataset: Axis[str] = Field(["photos"], description="where the images come from")
    model: Axis[str] = Field(["mlp"], description="the network the gradient is of")
    train_steps: Axis[Annotated[int, Field(ge=0)]] = Field([0], description="training steps on the public split first")
    batch_size: Axis[Annotated[int, Field(ge=1)]] = Field([20], description="private images of each client")
    labels: Axis[Literal["iid", "unique", "same"]] = Field(["iid"], description="how the batch's labels are composed")
    knows: Axis[str] = Field([str(ThreatModel())], description="what the server knows, joined by commas, or nothing")
    seed: Seeds = Field([0], description="numbers, and ranges such as 0-9")
    device: Axis[Literal["auto", "cpu", "cuda"]] = Field(["auto"], description="where to compute")
    dtype: Axis[Literal["float32", "float64"]] = Field(["float32"], description="of the model and its gradient")
    utility: Annotated[list[str], BeforeValidator(listed)] = Field(
        [], description="data sets to train on with each defense, model and batch size afterwards; see gibench utility"
    )
    timeout: float | None = Field(None, gt=0, description="seconds for the attack of each cell")
    tracking_uri: str | None = Field(None, min_length=1, description="the MLflow store")
    experiment: str = Field("gibench", min_length=1, description="the MLflow experiment")

    @classmethod
    def read(cls, path: Path, overrides: Mapping[str, Any]) -> Self:
        """The suite in a YAML file, with `overrides` in place of what it says.

        Raises:
            UsageError: the file cannot be read, or what it says is no suite.
        """
        try:
            document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the suite {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        except yaml.YAMLError as error:
            raise UsageError(f"the suite {path} is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(document, dict):
            raise UsageError(f"the suite {path} holds no keys: write them as in 'attack: [spearpp, random]'")
        settings = {str(key): value for key, value in document.items()}
        if isinstance(grids := settings.get("grids"), list):
            settings["grids"] = [_overridden(grid, overrides) for grid in grids]
        return cls.from_settings(f"the suite {path}", {"name": path.stem, **settings, **overrides})

    def cells(self) -> list[Cell]:
        """The cells, each once.

        Raises:
            UsageError: see `gibench.cell.expand`; or there are too many.
        """
        grids = self._products()
        axes = [
            {axis.name: getattr(grid, axis.name) for axis in fields(Cell) if axis.name != "timeout"} for grid in grids
        ]
        if (count := sum(math.prod(map(len, each.values())) for each in axes)) > MAX_CELLS:
            raise UsageError(f"{count} cells are more than the {MAX_CELLS} of one grid: take fewer values")
        found = [cell for each, grid in zip(axes, grids, strict=True) for cell in expand(each, grid.timeout)]
        return list({replace(cell, timeout=None): cell for cell in found}.values())  # grids may overlap

    def _products(self) -> list[Self]:
        """The suite's grids, each as a suite of its own; itself where it names none."""
        if self.grids is None:
            return [self]
        common = self.model_dump(exclude={"grids"}, exclude_unset=True)
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
        if not self.attack and self.grids is None:
            raise PydanticCustomError("missing", "attack")
        return self

    @classmethod
    def _explain(cls, name: str, detail: Any) -> str:
        if detail["type"] == "missing":
            return f"{name} names no attack: add one"
        return super()._explain(name, {**detail, "loc": detail["loc"][:1]})


def _overridden(grid: Any, overrides: Mapping[str, Any]) -> Any:
    return {key: overrides.get(key, value) for key, value in grid.items()} if isinstance(grid, dict) else grid


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, where the last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{twice[0]}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
