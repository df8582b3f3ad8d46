"""The evaluation rules that can be read off rows beside each other: controls, seeds, machines, promises, copies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.leaderboard.published import seeds as as_ranges
from gibench.leaderboard.ranks import CONTROLS, SCENARIO
from gibench.registry import readable
from gibench.result import Row
from gibench.spec import parse
from gibench.submission import content
from gibench.submission.export import HERE, place_of
from gibench.submission.findings import Finding, named, scene
from gibench.sweep import named as suites
from gibench.sweep.suite import Suite

_PROMISE = ("epsilon", "delta", "max_grad_norm", "noise_multiplier", "accountant", "sampling", "run_steps")
# What the batch and the model alone decide: rows that share both, and the machine, must agree in it.
_FACTS = ("grad_norm", "model_accuracy", "training_shares", "duplicate_labels", "split_size")
_BATCH = ("dataset", "split", "batch_size", "labels", "seed", "n_true", "hardware", "torch")
_DRAWN = (*_BATCH, "model", "train_steps", "dtype", "device", "threads")
_MANY = 4  # images that two seeds do not draw alike; one image they sometimes do
Groups = Mapping[tuple[Any, ...], list[Row]]


def faults(rows: Sequence[Row], images: Mapping[str, str]) -> Iterator[Finding]:
    """What breaks a rule."""
    met = _grouped(rows, lambda row: tuple(getattr(row, name) for name in (*SCENARIO, "defense")))
    yield from _twice(rows)
    yield from _controls(met)
    yield from _seeds(met)
    yield from _counted(met)
    yield from _machines(met)
    yield from _tuned(rows)
    yield from _promises(rows)
    yield from _facts(rows)
    yield from _copies(rows, images)


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _twice(rows: Sequence[Row]) -> Iterator[Finding]:
    """One trial has one row, or the better could have been picked."""
    trials: tuple[tuple[str, Callable[[Row], Any]], ...] = (
        ("cell", lambda row: row.cell),
        ("run_id", lambda row: row.run_id),
        ("trial", place_of),
    )
    told: set[int] = set()
    for what, key in trials:
        for same in _grouped(rows, key).values():
            if len(same) > 1 and id(same[1]) not in told:
                told |= {id(row) for row in same}
                yield Finding(named(same[1]), f"{len(same)} rows are of this {what}", "leave the newest alone")


def _controls(met: Groups) -> Iterator[Finding]:
    for rows in met.values():
        if missing := sorted(CONTROLS - {parse(row.attack).name for row in rows}):
            yield Finding(
                scene(rows[0]),
                f"the controls {', '.join(missing)} are missing (rule E15)",
                "run them on the same seeds",
            )


def _seeds(met: Groups) -> Iterator[Finding]:
    """Every attack has met the same batches."""
    for rows in met.values():
        every = {row.seed for row in rows}
        for attack, its in _grouped(rows, lambda row: row.attack).items():
            if missing := every - {row.seed for row in its}:
                yield Finding(
                    scene(rows[0]),
                    f"{readable('attack', attack)} lacks the seeds {as_ranges(missing)} of others (rules E9, E21)",
                    "run and export them, whatever they give",
                )


def _counted(met: Groups) -> Iterator[Finding]:
    """What failed counts as mid-grey; no score is for batches that nobody could attack (rule E9)."""
    for rows in met.values():
        for same in _grouped(rows, lambda row: row.seed).values():
            if any(row.psnr_mean is not None for row in same):
                for row in same:
                    if row.psnr_mean is None and row.status != "skipped":
                        told = f"it is {row.status} without a score, so no mean counts it (rule E9)"
                        yield Finding(named(row), told, "run it again")


def _machines(met: Groups) -> Iterator[Finding]:
    for rows in met.values():
        machines = sorted({row.machine or "an unknown machine" for row in rows if row.runtime_s is not None})
        if len(machines) > 1:
            yield Finding(
                scene(rows[0]), f"its seconds are of {' and of '.join(machines)} (rule E16)", "run all of it on one"
            )


def _tuned(rows: Sequence[Row]) -> Iterator[Finding]:
    for row in rows:
        if row.split != "private":
            yield Finding(
                named(row), f"it is of the {row.split} split (rule E18)", "publish what is of the private one"
            )


def _promises(rows: Sequence[Row]) -> Iterator[Finding]:
    """Epsilon stands with all that it depends on, or not at all (rules E12, E12a)."""
    for row in rows:
        if row.epsilon is None and row.run_epsilon is None:
            continue
        if not (row.max_grad_norm and row.noise_multiplier):
            yield Finding(
                named(row), "it states an epsilon without a clip norm and noise (rule E12)", "leave epsilon empty"
            )
        elif lacking := [name for name in _PROMISE if getattr(row, name) is None]:
            yield Finding(named(row), f"its epsilon lacks {', '.join(lacking)} (rule E12)", "run the cell again")


def _facts(rows: Sequence[Row]) -> Iterator[Finding]:
    """Every attack in a column sees the same batch and the same model (rules E10, E11)."""
    scored = [row for row in rows if row.psnr_mean is not None]
    groups = _grouped(scored, lambda row: tuple(getattr(row, name) for name in _DRAWN))
    for same in groups.values():
        for name in _FACTS:
            values = _grouped(same, lambda row, name=name: getattr(row, name))  # type: ignore[misc]
            if len(values) > 1:
                odd = min(values.values(), key=len)[0]
                others = ", ".join(str(value) for value in values if value != getattr(odd, name))
                told = f"{name} is {getattr(odd, name)}, where others of its batch and model have {others}"
                yield Finding(named(odd), told, "run its cell again")
    large = [row for row in scored if (row.n_true or 0) >= _MANY]
    for norm, alike in _grouped(large, lambda row: row.grad_norm).items():
        first, *copied = (some[0] for some in _grouped(alike, lambda row: row.seed).values())
        if norm and copied:
            told = f"its gradient has the norm of that of {named(first)}"
            yield Finding(named(copied[0]), told, "run it: another seed is another batch")


def _copies(rows: Sequence[Row], texts: Mapping[str, str]) -> Iterator[Finding]:
    """Figures of one seed that stand under another, and tables of one batch that tell it differently."""
    seen: dict[tuple[Any, ...], Row] = {}
    near: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        try:
            table = content.images(texts.get(row.cell, ""))
        except ValueError:
            continue  # which is a finding of its own
        errors = tuple(table["mse"])
        batch = tuple(getattr(row, name) for name in _BATCH)
        if len(errors) >= _MANY and sum(errors) > 0:
            first = seen.setdefault(errors, row)
            if first.seed != row.seed:
                yield Finding(named(row), f"its images have the errors of those of {named(first)}", "run its own seed")
        likeness = tuple(table["nearest"].astype(object).where(table["nearest"].notna(), None))
        if any(each is not None for each in likeness) and near.setdefault(batch, likeness) != likeness:
            told = "its images are not as like each other as those of others of its batch (nearest)"
            yield Finding(named(row), told, "run its cell again")


def against_suite(rows: Sequence[Row], text: bytes, name: str | None) -> Iterator[Finding]:
    """What is not as the suite asks, and whether a suite of ours is as it is here."""
    ours = suites.suites().get(name or "")
    if ours is not None and ours.read_bytes() != text:
        yield Finding("suite.yaml", f"it is not the suite {name} that is installed here", "export the suite unedited")
    try:
        cells = Suite.parsed(text, "suite.yaml", HERE).cells()
    except UsageError as error:
        yield Finding("suite.yaml", f"it cannot be read here ({error})", "give a suite whose plugins are installed")
        return
    there, wanted = set(map(place_of, rows)), set(map(place_of, cells))
    missing: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        if place_of(cell) not in there:
            missing[(cell.attack, cell.defense, cell.batch_size, cell.model, cell.labels)].append(cell)
    for (attack, defense, batch, *_), some in missing.items():
        where = f"{readable('attack', str(attack))} | {readable('defense', str(defense))} | batch {batch}"
        told = f"the seeds {as_ranges(cell.seed for cell in some)} of the suite are missing (rule E9)"
        yield Finding(where, told, "run and export them, whatever they give")
    for row in rows:
        if place_of(row) not in wanted:
            yield Finding(named(row), "it is no cell of the suite", "export with the suite that it was run from")
