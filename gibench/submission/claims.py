"""What the plugins that are installed here say of a row: its flags, its promise, and the key of its cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

import torch

from gibench import chain, stages
from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.defense import Defense
from gibench.errors import UsageError
from gibench.job import key_of
from gibench.outcome import Facts
from gibench.registry import create
from gibench.result import Row
from gibench.spec import parse_chain
from gibench.submission.content import Code
from gibench.submission.export import axes_named
from gibench.submission.findings import Finding, named
from gibench.submission.schema import is_installed

_FLAGS = ("adaptive", "oracle", "control", "budget")
_ROUNDING = 1e-6  # relative, of what root finding gives with another version of scipy


def faults(rows: list[Row], codes: Mapping[str, Code]) -> Iterator[Finding]:
    """What is claimed and not so."""
    for row in rows:
        for fault, mend in (*_flags(row), *_promise(row), *_key(row, codes)):
            yield Finding(named(row), fault, mend)


def unchecked(rows: list[Row], codes: Mapping[str, Code]) -> Iterator[str]:
    """What cannot be told here, in words."""
    absent = {
        f"the {axis.plugin} {spec.name}"
        for row in rows
        for name, axis in axes_of(Cell).items()
        if axis.plugin and not is_installed(axis.plugin, getattr(row, name))
        for spec in parse_chain(getattr(row, name))
        if not is_installed(axis.plugin, spec.name)
    }
    if absent:
        yield f"not installed here, so what it claims is not checked: {', '.join(sorted(absent))}"
    if unknown := sum(row.cell not in codes for row in rows):
        yield f"{unknown} of {len(rows)} rows do not say what source their key was made of, so it is not checked"
    if costs := sum(row.utility_accuracy is not None for row in rows):
        yield f"{costs} rows state a utility_accuracy, which is of other runs and not checked"


def _flags(row: Row) -> Iterator[tuple[str, str]]:
    facts = _facts(row.attack)
    if facts is None or row.psnr_mean is None:
        return
    for name in _FLAGS:
        if getattr(row, name) != getattr(facts, name):
            told = f"{name} is {getattr(row, name)}, and its attack declares {getattr(facts, name)} (rules E2, E14)"
            yield told, "state what the attack is"


@lru_cache(maxsize=1000)
def _facts(attack: str) -> Facts | None:
    """What an attack declares; None where it is not installed, or refuses its settings, which is said elsewhere."""
    try:
        return stages.facts_of(attack) if is_installed("attack", attack) else None
    except UsageError:
        return None


def _promise(row: Row) -> Iterator[tuple[str, str]]:
    """Epsilon and what it depends on, computed again from the settings of the defenses (rules E12, E12a)."""
    if row.psnr_mean is None or row.split_size is None:
        return
    promised = _columns(row.defense, row.batch_size, row.split_size)
    clients = _clients(row.defense)
    if clients is not None and row.n_true != clients * row.batch_size:
        yield f"n_true is {row.n_true}, where {clients} clients have {row.batch_size} images each", "run the cell again"
    for name, value in (promised or {}).items():
        stated = getattr(row, name)
        if not _agree(stated, value):
            yield f"{name} is {stated}, and its defense promises {value} (rule E12)", "state what the defense promises"


def _agree(stated: Any, value: Any) -> bool:
    if isinstance(stated, float) and isinstance(value, float | int):
        return math.isclose(stated, value, rel_tol=_ROUNDING)
    return bool(stated == value)


@lru_cache(maxsize=1000)
def _columns(defense: str, batch_size: int, split_size: int) -> dict[str, Any] | None:
    defenses = _defenses(defense)
    if defenses is None:
        return None
    try:
        context = chain.context_of(defenses, torch.Generator(), batch_size, split_size)
    except UsageError:
        return {}  # such a cell cannot have been run, and its key or a second run says so
    return chain.guarantee(defenses, context).columns()


def _clients(defense: str) -> int | None:
    defenses = _defenses(defense)
    return None if defenses is None else chain.client_count(defenses)


@lru_cache(maxsize=1000)
def _defenses(text: str) -> list[Defense] | None:
    try:
        if not is_installed("defense", text):
            return None
        return [cast(Defense, create("defense", spec)) for spec in parse_chain(text)]
    except UsageError:
        return None


def _key(row: Row, codes: Mapping[str, Code]) -> Iterator[tuple[str, str]]:
    code = codes.get(row.cell)
    if code and key_of(axes_named(row), code.versions, code.sources) != row.cell:
        yield "its key is not that of its axes and source: one of them was changed", "export the row as it was stored"
