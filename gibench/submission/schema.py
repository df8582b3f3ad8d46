"""Whether a row by itself can be one: axes in canonical form, figures in range, a score where there has to be one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache

from gibench.axes import Axis, axes_of
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.registry import find
from gibench.result import STATUSES, Row
from gibench.spec import parse_chain
from gibench.submission.findings import Finding, named

_RUN = "run the cell again, and export what is stored"
_RATES = (
    *("exact_rate", "certified_rate", "recognisable_rate", "reidentified_rate", "label_accuracy", "labels_found"),
    *("model_accuracy", "utility_accuracy"),
)
_DECIBELS = ("psnr_mean", "psnr_median", "psnr_q25", "psnr_q75")
_MOST = 2.0**63
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_RATES, (0, 1)),
    **dict.fromkeys(_DECIBELS, (0, 100)),
    **{"ssim_mean": (-1, 1), "mse_mean": (0, 1), "lpips_mean": (0, _MOST)},
    **dict.fromkeys(("duplicate_labels", "n_reconstructed", "false_certificates"), (0, _MOST)),
    **dict.fromkeys(("n_true", "split_size", "workers", "run_steps"), (1, _MOST)),
    **dict.fromkeys(("runtime_s", "peak_memory_mb", "grad_norm", "noise_multiplier"), (0, _MOST)),
    **dict.fromkeys(("epsilon", "run_epsilon", "utility_epsilon", "max_grad_norm"), (0, float("inf"))),
    "delta": (0, 1),
}
_SCORE = (
    *("n_true", "n_reconstructed", "exact_rate", "certified_rate", "false_certificates", *_DECIBELS),
    *("lpips_mean", "mse_mean", "duplicate_labels", "split_size", "grad_norm", "hardware", "torch"),
    *("adaptive", "oracle", "control"),
)
_MAY_END_EARLY = ("failed", "timeout", "diverged")
_KEY, _RUN_ID = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{32}")


def faults(rows: Iterable[Row]) -> Iterator[Finding]:
    """What is wrong with single rows, whatever else there is."""
    for row in rows:
        for fault in (*_axes(row), *_figures(row), *_score(row)):
            yield Finding(named(row), fault, _RUN)


def _axes(row: Row) -> Iterator[str]:
    for name, axis in axes_of(Cell).items():
        value = getattr(row, name)
        if fault := _value(name, axis, value):
            yield fault
    if not _KEY.fullmatch(row.cell) or not _RUN_ID.fullmatch(row.run_id):
        yield "its cell or run_id is no hexadecimal number of its length"
    try:
        datetime.fromisoformat(row.started)
    except ValueError:
        yield f"started={row.started!r} is no time"


def _value(name: str, axis: Axis, value: object) -> str | None:
    """What is wrong with the value of an axis, as far as it can be told without plugins that are not here."""
    if isinstance(value, int):
        return None if (axis.least or 0) <= value <= axis.most else f"{name}={value} is out of range"
    if axis.choices:
        here = value in axis.choices and not (axis.of_machine and value == axis.default)
        return None if here else f"{name}={value!r} is none of {', '.join(axis.choices)}"
    if axis.plugin and not is_installed(axis.plugin, str(value)):
        return None
    return _uncanonical(name, str(value))


@lru_cache(maxsize=10_000)
def _uncanonical(name: str, text: str) -> str | None:
    try:
        canonical = axes_of(Cell)[name].canonical(text)
    except UsageError as error:
        return f"its {name} is refused ({error})"
    return (
        None if canonical == text else f"its {name} is not in canonical form with every setting, which is {canonical}"
    )


def is_installed(kind: str, text: str) -> bool:
    """Whether every plugin that a spec or chain of them names is installed; what is no spec counts as if."""
    try:
        names = [spec.name for spec in parse_chain(text)]
    except UsageError:
        return True  # and is refused where it is used
    return all(_is_found(kind, name) for name in names)


def _is_found(kind: str, name: str) -> bool:
    try:
        return bool(find(kind, name))
    except UsageError:
        return False


def _figures(row: Row) -> Iterator[str]:
    for name, (low, high) in _RANGES.items():
        value = getattr(row, name)
        if value is not None and not low <= value <= high:
            yield f"{name}={value} is out of range ({low:g} to {high:g})"
    if row.status not in STATUSES:
        yield f"its status {row.status!r} is none of {', '.join(STATUSES)}"
    elif row.status != "ok" and not row.reason:
        yield f"it is {row.status} without a reason"


def _score(row: Row) -> Iterator[str]:
    """A failure counts as one: whatever was attacked has a score, that of mid-grey if need be (rule E9)."""
    if row.status == "skipped":
        if row.psnr_mean is not None or row.exact_rate is not None:
            yield "it is skipped and has a score all the same"
        return
    if row.status in _MAY_END_EARLY and row.psnr_mean is None:
        return  # before any attack; see `gibench.submission.rules`
    lacking = [name for name in _SCORE if getattr(row, name) is None]
    if lacking:
        yield f"it is {row.status} and lacks {', '.join(lacking)}, so no mean would count it (rules E9, E11)"
    if row.status == "ok" and row.runtime_s is None:
        yield "it is ok and has no runtime_s"
    if row.runtime_s is not None and row.workers is None:
        yield "it does not say how many cells ran at a time (workers), on which its seconds depend (rule E16)"
