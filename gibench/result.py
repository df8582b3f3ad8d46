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

# A recovered image is recognisable from either on: stated here, since tables say it and do not import the scoring.
RECOGNISABLE_PSNR, RECOGNISABLE_SSIM = 20.0, 0.7  # dB; hardly any image of a control is


class Column(NamedTuple):
    """One column: where a tracking run holds it, its type, what it says, its axis if it is one. Any may be null."""

    stored_as: Place
    type: type
    help: str
    axis: Axis | None = None


def measured(place: Place, help: str, **default: Any) -> Any:
    """A field that is a column but no axis; null unless there is another default. `gibench/COLUMNS.md` shows `help`."""
    return field(kw_only=True, metadata={"stored_as": place, "help": help}, **(default or {"default": None}))


def _noted(help: str, **default: Any) -> Any:
    """A field that is known once the row is stored."""
    return field(kw_only=True, metadata={"help": help}, **default)


@dataclass(frozen=True)
class StoredRow:
    """What rows of every kind have. Their columns are the axes and what `measured` makes; see `columns_of`."""

    key_column: ClassVar[str]

    status: Status = measured(  # noqa: RUF009
        "tag", "How it ended: ok, skipped, budget_exhausted, diverged, timeout or failed.", default="ok"
    )
    reason: str | None = measured("tag", "Why it did not end as ok, in words.")
    hardware: str | None = measured("tag", "Processor or GPU, and how many threads.")
    torch: str | None = measured("tag", "Version of torch, but for what mends mistakes alone: rows of two may differ.")
    workers: int | None = measured("metric", "Cells that ran at a time, which share processors and caches.")
    run_id: str = _noted("Identifies the stored row; the run in MLflow has it as a tag.", default="")
    started: str = _noted("When it began: UTC, ISO 8601.", default="")
    source: str | None = field(default=None, kw_only=True)  # the file it is of, where rows of several stand together
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
        """The columns, then `run_id` and `started`, then `source` where there is one and what stands beside them."""
        last = ("run_id", "started", "source") if self.source else ("run_id", "started")
        return {name: getattr(self, name) for name in (*columns_of(type(self)), *last)} | dict(self.beside)


@dataclass(frozen=True)
class Promise:
    """The columns of what a defense promises (rule E12)."""

    epsilon: float | None = measured(
        "metric", "What the defense promises of one release: epsilon of (epsilon, delta) differential privacy."
    )
    delta: float | None = measured("metric", "The delta that belongs to it.")
    run_epsilon: float | None = measured("metric", "The epsilon of a whole training run of run_steps releases.")
    run_steps: int | None = measured("metric", "Releases of that run.")
    max_grad_norm: float | None = measured("metric", "Clip norm of the DP defense.")
    noise_multiplier: float | None = measured(
        "metric", "Noise of the DP defense in units of the clip norm, also where it was solved for."
    )
    accountant: str | None = measured("tag", "How epsilon was computed.")
    sampling: str | None = measured("tag", "What epsilon assumes of how batches are drawn.")


@dataclass(frozen=True)
class Row(Promise, CellAxes, StoredRow):
    """What one cell gave. A failure is a row too. `gibench/scoring/README.md` defines the scores."""

    key_column: ClassVar[str] = "cell"

    cell: str = measured("tag", "Key of the cell: a hash of all that decides its result.", default="")
    model_accuracy: float | None = measured("metric", "Accuracy of the network on the tuning split.")
    training_shares: str | None = measured(
        "tag", "What the network's training images have in common with the private ones."
    )
    grad_norm: float | None = measured("metric", "L2 norm of the mean gradient before any defense.")
    duplicate_labels: int | None = measured("metric", "Images of the batch less its different labels.")
    split_size: int | None = measured(
        "metric", "Images that batches are drawn from, so at most as many distinct ones are in all batches."
    )
    adaptive: bool | None = measured("tag", "Whether the attack knows the defense.")
    oracle: bool | None = measured("tag", "Whether the attack picks something with the truth.")
    control: bool | None = measured("tag", "Whether the attack is a negative control.")
    budget: str | None = measured("tag", "What the attack may spend, in words.")
    n_true: int | None = measured("metric", "Images that the client had; all rates are of these.")
    n_reconstructed: int | None = measured("metric", "Images that the attack returned.")
    exact_rate: float | None = measured("metric", "Share of images whose every pixel rounds to the true 8-bit value.")
    certified_rate: float | None = measured("metric", "Share of images that the attack itself claims to be exact.")
    false_certificates: int | None = measured("metric", "Images that are certified but not exact.")
    psnr_mean: float | None = measured("metric", "PSNR in dB, at most 100: the mean over the images.")
    psnr_median: float | None = measured("metric", "The median.")
    psnr_q25: float | None = measured("metric", "The first quartile.")
    psnr_q75: float | None = measured("metric", "The third quartile.")
    ssim_mean: float | None = measured("metric", "Structural similarity, the mean over the images.")
    lpips_mean: float | None = measured("metric", "LPIPS (v0.1, alex), the mean over the images; 0 is identical.")
    mse_mean: float | None = measured("metric", "Mean squared error, the mean over the images.")
    recognisable_rate: float | None = measured(
        "metric",
        f"Share of images with a PSNR of {RECOGNISABLE_PSNR:g} dB or an SSIM of {RECOGNISABLE_SSIM:g} at least.",
    )
    reidentified_rate: float | None = measured(
        "metric", "Share of images that are, of all in the split, the nearest to what was recovered of them."
    )
    label_accuracy: float | None = measured("metric", "Share of images whose reconstruction has the true label.")
    labels_found: float | None = measured(
        "metric", "Share of the batch's labels that were found, whichever image carries them."
    )
    runtime_s: float | None = measured("metric", "Seconds of the attack alone.")
    peak_memory_mb: float | None = measured("metric", "Peak memory of the attack alone, in MB.")
    utility_accuracy: float | None = measured(
        "metric", "Test accuracy of training with the defense; joined from training runs."
    )
    utility_epsilon: float | None = measured("metric", "Epsilon of those whole runs.")


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
    own = {each.name: each.metadata for each in fields(kind) if "stored_as" in each.metadata}
    columns = {kind.key_column: Column("tag", str, own[kind.key_column]["help"])}
    columns |= {name: Column("param", types[name], each.help, each) for name, each in reversed(axes_of(kind).items())}
    return columns | {
        name: Column(each["stored_as"], _plain(types[name]), each["help"])
        for name, each in own.items()
        if name not in columns
    }


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
    images: pd.DataFrame | None = None  # a row an image: see `gibench.scoring.Score.images`
    grid_png: bytes | None = None  # truth over reconstruction
    diagnostics: Mapping[str, Any] = field(default_factory=dict)  # of the attack, as it gave them
    provenance: Mapping[str, Any] = field(default_factory=dict)  # versions, git commit, settings, defense costs, ...
    seconds: Mapping[str, float] = field(default_factory=dict)  # wall clock by stage of the harness


def without_score(job: Job, kind: type[StoredRow], status: Status, reason: str) -> Result:
    """The result of a job that ended before it could give one."""
    row: dict[str, Any] = {name: getattr(job, name) for name in axes_of(type(job))}
    row |= {kind.key_column: job.key, "status": status, "reason": " ".join(reason.split())}
    return Result(kind(**row))
