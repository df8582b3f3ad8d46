"""One cell's result: a row of fixed columns, with the per-image table, the image grid and the provenance beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["ok", "skipped", "budget_exhausted", "diverged", "timeout", "failed"]
STATUSES: tuple[Status, ...] = ("ok", "skipped", "budget_exhausted", "diverged", "timeout", "failed")
UNFINISHED: frozenset[Status] = frozenset(
    {"timeout", "failed"}
)  # run again by the next call; every other status is final


class Column(NamedTuple):
    """Where a column is stored in a tracking run (`param`, `metric` or `tag`) and its type; every one may be null."""

    stored_as: Literal["param", "metric", "tag"]
    type: type


_TEXT_PARAM, _INT_PARAM, _TEXT_TAG = Column("param", str), Column("param", int), Column("tag", str)
_BOOL_TAG, _METRIC, _COUNT = Column("tag", bool), Column("metric", float), Column("metric", int)

# The order is that of every export; attack, defense, dataset and model hold canonical resolved specs.
COLUMNS: Mapping[str, Column] = {
    "cell": _TEXT_TAG,
    "attack": _TEXT_PARAM,
    "defense": _TEXT_PARAM,
    "dataset": _TEXT_PARAM,
    "model": _TEXT_PARAM,
    "train_steps": _INT_PARAM,
    "model_accuracy": _METRIC,
    "grad_norm": _METRIC,
    "batch_size": _INT_PARAM,
    "labels_policy": _TEXT_PARAM,
    "duplicate_labels": _COUNT,
    "threat_model": _TEXT_PARAM,
    "adaptive": _BOOL_TAG,
    "oracle": _BOOL_TAG,
    "seed": _INT_PARAM,
    "device": _TEXT_PARAM,
    "hardware": _TEXT_TAG,
    "dtype": _TEXT_PARAM,
    "status": _TEXT_TAG,
    "reason": _TEXT_TAG,
    "n_true": _COUNT,
    "n_reconstructed": _COUNT,
    "exact_rate": _METRIC,
    "certified_rate": _METRIC,
    "false_certificates": _COUNT,
    "psnr_mean": _METRIC,
    "psnr_median": _METRIC,
    "psnr_q25": _METRIC,
    "psnr_q75": _METRIC,
    "ssim_mean": _METRIC,
    "lpips_mean": _METRIC,
    "mse_mean": _METRIC,
    "label_accuracy": _METRIC,
    "labels_found": _METRIC,
    "runtime_s": _METRIC,
    "peak_memory_mb": _METRIC,
    "epsilon": _METRIC,
    "delta": _METRIC,
    "accountant": _TEXT_TAG,
    "sampling": _TEXT_TAG,
    "utility_accuracy": _METRIC,
}

Row = dict[str, Any]  # the keys of COLUMNS, in that order


@dataclass(frozen=True)
class Result:
    """What one cell gave. A failure is a row too."""

    row: Row
    images: pd.DataFrame | None = (
        None  # a row an image: truth, reconstruction, mse, psnr, ssim, lpips, exact, certified, nearest
    )
    grid_png: bytes | None = None  # truth over reconstruction
    diagnostics: Mapping[str, Any] = field(default_factory=dict)  # of the attack, as it gave them
    provenance: Mapping[str, Any] = field(default_factory=dict)  # versions, git commit, settings, defense costs, ...
    seconds: Mapping[str, float] = field(default_factory=dict)  # wall clock by stage of the harness
