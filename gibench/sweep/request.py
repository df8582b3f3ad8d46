"""What is asked for, from a suite file or the command line: values for the axes of a kind of job, validated."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, create_model

from gibench.axes import Axis, axes_of, expand
from gibench.errors import UsageError
from gibench.job import Job
from gibench.plugin import Plugin
from gibench.result import StoredRow

MAX_JOBS = 100_000
LONGEST_TIMEOUT = 1e8  # seconds, three years; the system's timers overflow later
_RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


class Request(Plugin):
    """Values for every axis of a kind of job; a list has several, and the jobs are the product of the axes."""

    model_config = ConfigDict(strict=True)
    job: ClassVar[type[Job]]
    row: ClassVar[type[StoredRow]]

    timeout: float | None = Field(
        None, ge=0.001, le=LONGEST_TIMEOUT, description="seconds for each attack, and for each training run"
    )
    results: str | None = Field(None, min_length=1, description="the folder of the results")
    tracking_uri: str | None = Field(None, min_length=1, description="the MLflow store")
    experiment: str | None = Field(None, min_length=1, description="the MLflow experiment")

    def values(self) -> dict[str, list[Any]]:
        """What each axis is to take, as people wrote it."""
        return {name: getattr(self, name) for name in axes_of(self.job)}

    def jobs(self) -> list[Job]:
        """What is to be run, each once.

        Raises:
            UsageError: see `gibench.axes.expand`; or there are too many.
        """
        values = self.values()
        if (count := math.prod(map(len, values.values()))) > MAX_JOBS:
            raise UsageError(f"{count} cells are more than the {MAX_JOBS} of one grid: take fewer values")
        return expand(self.job, values, timeout=self.timeout)

    @classmethod
    def _explain(cls, name: str, detail: Any) -> str:
        return super()._explain(name, {**detail, "loc": detail["loc"][:1]})  # not which of an axis' values


def with_axes(job: type[Job], row: type[StoredRow]) -> type[Request]:
    """`Request` with a field for each axis of a kind of job, whose results are such rows."""
    made: Any = {name: (values_of(each), _field(each)) for name, each in axes_of(job).items()}
    request = create_model(f"{job.__name__}Request", __base__=Request, **made)
    request.job, request.row = job, row
    return request


def values_of(axis: Axis) -> Any:
    """The type of a list of what people write for the axis; a value alone is the list of it."""
    one: Any = Literal[axis.choices] if axis.choices else axis.kind
    if axis.least is not None:
        one = Annotated[one, Field(ge=axis.least, le=axis.most)]
    return Annotated[list[one], BeforeValidator(_ranges if axis.ranges else listed)]


def _field(axis: Axis) -> Any:
    least = 1 if axis.default is not None else 0  # a suite of grids need not name what has no default
    return Field(axis.defaults, min_length=least, description=axis.help)


def listed(value: Any) -> Any:
    """A value alone as the list of it."""
    return value if isinstance(value, list) else [value]


def _ranges(value: Any) -> Any:
    """Numbers, and ranges such as `0-9`, written out."""
    found: list[Any] = []
    for item in listed(value):
        if not isinstance(item, str):
            found.append(item)
            continue
        if not (match := _RANGE.fullmatch(item)):
            raise ValueError(f"'{item}' is no seed: write a number such as 0, or a range such as 0-9")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + MAX_JOBS:
            raise ValueError(f"a range goes from a seed up to another, at most {MAX_JOBS} of them")
        found.extend(range(first, last + 1))
    return found
