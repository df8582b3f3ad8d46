"""One job's result: a row of fixed columns, with the per-image table, the image grid and the provenance beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

from gibench.axes import Axis, axes_of
from gibench.cell import CellAxes
from gibench.job import Job

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["ok", "skipped", "budget_exhausted", "diverged", "timeout", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
UNFINISHED: frozenset[Status] = frozenset(
    {"timeout", "failed"}
)  # run again by the next call; every other status is final

Place = Literal["param", "metric", "tag"]


class Column(NamedTuple):
    """One column: where a tracking run holds it, its type, and its axis if it is one. Every one may be null."""

    stored_as: Place
    type: type
    axis: Axis | None = None


def measured(place: Place, **default: Any) -> Any:
    """A field that is a column but no axis; null unless there is another default."""
    return field(kw_only=True, metadata={"stored_as": place}, **(default or {"default": None}))


@dataclass(frozen=True)
class StoredRow:
    """What rows of every kind have. Their columns are the axes and what `measured` makes; see `columns_of`."""

    key_column: ClassVar[str]

    status: Status = measured("tag", default="ok")  # noqa: RUF009
    reason: str | None = measured("tag")
    hardware: str | None = measured("tag")
    torch: str | None = measured("tag")  # its version, but for what mends mistakes alone: rows of two may differ
    workers: int | None = measured("metric")  # jobs that ran at a time, which share processors and caches
    run_id: str = field(default="", kw_only=True)  # of the tracking run, once it is stored
    started: str = field(default="", kw_only=True)  # UTC, ISO 8601
    beside: Mapping[str, float] = field(default_factory=dict, kw_only=True)  # numbers that were noted, where asked for

    @property
    def key(self) -> str:
        """Of the job."""
        return str(getattr(self, self.key_column))

    @property
    def machine(self) -> str | None:
        """What its seconds are of: the hardware, and how many jobs shared it (rule E16)."""
        shared = f", {self.workers} jobs at a time" if (self.workers or 1) > 1 else ""
        return self.hardware and self.hardware + shared

    @property
    def finished(self) -> bool:
        """Whether the next call need not run the job again."""
        return self.status not in UNFINISHED

    def as_dict(self) -> dict[str, Any]:
        """The columns, then `run_id` and `started`, then what stands beside them."""
        return {name: getattr(self, name) for name in (*columns_of(type(self)), "run_id", "started")} | dict(
            self.beside
        )


@dataclass(frozen=True)
class Promise:
    """The columns of what a defense promises (rule E12)."""

    epsilon: float | None = measured("metric")  # of one release
    delta: float | None = measured("metric")
    run_epsilon: float | None = measured("metric")  # of a whole training run of `run_steps` releases
    run_steps: int | None = measured("metric")
    max_grad_norm: float | None = measured("metric")
    noise_multiplier: float | None = measured("metric")  # also where it was solved for
    accountant: str | None = measured("tag")
    sampling: str | None = measured("tag")


@dataclass(frozen=True)
class Row(Promise, CellAxes, StoredRow):
    """What one cell gave. A failure is a row too. See `gibench/scoring/README.md` for the scores."""

    key_column: ClassVar[str] = "cell"

    cell: str = measured("tag", default="")
    model_accuracy: float | None = measured("metric")  # on the tuning split
    training_shares: str | None = measured("tag")  # what the network's training images share with the private ones
    grad_norm: float | None = measured("metric")  # L2, of the undefended mean gradient
    duplicate_labels: int | None = measured("metric")
    split_size: int | None = measured("metric")  # images that batches are drawn from, whatever the number of batches
    adaptive: bool | None = measured("tag")
    oracle: bool | None = measured("tag")
    control: bool | None = measured("tag")
    budget: str | None = measured("tag")  # what the attack may spend, in words
    n_true: int | None = measured("metric")
    n_reconstructed: int | None = measured("metric")
    exact_rate: float | None = measured("metric")
    certified_rate: float | None = measured("metric")
    false_certificates: int | None = measured("metric")
    psnr_mean: float | None = measured("metric")
    psnr_median: float | None = measured("metric")
    psnr_q25: float | None = measured("metric")
    psnr_q75: float | None = measured("metric")
    ssim_mean: float | None = measured("metric")
    lpips_mean: float | None = measured("metric")
    mse_mean: float | None = measured("metric")
    label_accuracy: float | None = measured("metric")
    labels_found: float | None = measured("metric")
    runtime_s: float | None = measured("metric")
    peak_memory_mb: float | None = measured("metric")  # the attack's own
    utility_accuracy: float | None = measured("metric")  # joined from training runs, see gibench.leaderboard.utility
    utility_epsilon: float | None = measured("metric")  # of those whole runs


def mixture(versions: Iterable[str | None]) -> str | None:
    """A warning, if rows that stand in one table are of more than one version of torch."""
    found = sorted({version for version in versions if version}, key=lambda text: [*map(int, re.findall(r"\d+", text))])
    if len(found) < 2:
        return None
    return f"rows of torch {' and '.join(found)} stand side by side here, and a version may change what is computed"


def columns_of(kind: Any) -> Mapping[str, Column]:
    """The columns of a kind of row, in the order of every export: the key, the axes, what is measured.

    Of the axes the one that varies fastest is first. Those of plugins hold canonical resolved specs.
    """
    return _columns_of(kind)


@cache
def _columns_of(kind: Any) -> Mapping[str, Column]:
    types = get_type_hints(kind)
    places = {each.name: each.metadata["stored_as"] for each in fields(kind) if "stored_as" in each.metadata}
    columns = {kind.key_column: Column("tag", str)}
    columns |= {name: Column("param", types[name], each) for name, each in reversed(axes_of(kind).items())}
    return columns | {name: Column(place, _plain(types[name])) for name, place in places.items() if name not in columns}


def _plain(hint: Any) -> type:
    """The one type that a column has beside null."""
    (found,) = {type(each) if isinstance(each, str) else each for each in _leaves(hint)} - {type(None)}
    return found


def _leaves(hint: Any) -> list[Any]:
    return [leaf for each in get_args(hint) for leaf in _leaves(each)] if get_origin(hint) else [hint]


COLUMNS = columns_of(Row)


@dataclass(frozen=True)
class Result:
    """What one job gave."""

    row: StoredRow
    images: pd.DataFrame | None = (
        None  # a row an image: truth, reconstruction, mse, psnr, ssim, lpips, exact, certified, nearest
    )
    grid_png: bytes | None = None  # truth over reconstruction
    diagnostics: Mapping[str, Any] = field(default_factory=dict)  # of the attack, as it gave them
    provenance: Mapping[str, Any] = field(default_factory=dict)  # versions, git commit, settings, defense costs, ...
    seconds: Mapping[str, float] = field(default_factory=dict)  # wall clock by stage of the harness


def without_score(job: Job, kind: type[StoredRow], status: Status, reason: str) -> Result:
    """The result of a job that ended before it could give one."""
    row: dict[str, Any] = {name: getattr(job, name) for name in axes_of(type(job))}
    row |= {kind.key_column: job.key, "status": status, "reason": " ".join(reason.split())}
    return Result(kind(**row))
