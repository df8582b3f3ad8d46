"""Which jobs of a grid are wanted: those with certain values, one share of several, the first ones."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from gibench.axes import Axis, axes_of
from gibench.errors import UsageError
from gibench.job import Job
from gibench.registry import resolve
from gibench.spec import parse_chain
from gibench.sweep.request import listed, values_of

_SHARE = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)

AnyJob = TypeVar("AnyJob", bound=Job)
Fits = Callable[[Any], bool]


@dataclass(frozen=True)
class Choice:
    """What `--only`, `--shard` and `--limit` say."""

    only: Mapping[str, Sequence[str]] | None = None  # axis to the values of which one is to be had; None: all
    share: int = 1  # this one, from 1,
    shares: int = 1  # of so many
    limit: int | None = None  # so many at most, the first ones

    @classmethod
    def of_options(cls, only: Iterable[str], shard: str | None, limit: int | None) -> Self:
        """As people write it: `AXIS=VALUE`, several of one axis for either; `I/N`; a number.

        Raises:
            UsageError: it is written in another way, or there is no such share.
        """
        wanted: dict[str, list[str]] = {}
        for text in only:
            axis, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"--only {text} names no value: write AXIS=VALUE, such as attack=spearpp")
            wanted.setdefault(axis.strip().replace("-", "_"), []).append(value)
        share, shares = (1, 1) if shard is None else _share(shard)
        return cls(wanted or None, share, shares, limit)

    def values(self, jobs: Sequence[AnyJob]) -> list[AnyJob]:
        """The jobs that have the values, in the same order.

        Raises:
            UsageError: no such axis or value, or no job has it.
        """
        if not self.only or not jobs:
            return list(jobs)
        fits = pattern(type(jobs[0]), self.only, "--only")
        found = [job for job in jobs if fits(job)]
        if not found:
            wanted = " ".join(f"{axis}={value}" for axis, values in self.only.items() for value in values)
            raise UsageError(f"none of {len(jobs)} cells has {wanted}: see them with --dry-run")
        return found

    def part(self, jobs: Sequence[AnyJob]) -> list[AnyJob]:
        """The first ones of the share, in the same order; there may be none."""
        return [job for job in jobs if self.shares == 1 or share_of(job, self.shares) == self.share][: self.limit]


def _share(text: str) -> tuple[int, int]:
    match = _SHARE.fullmatch(text)
    share, shares = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= share <= shares:
        raise UsageError(f"--shard {text} is no share: write I/N, from 1/N to N/N")
    return share, shares


def share_of(job: Job, shares: int) -> int:
    """Which of so many shares a job is in, from 1: the same on every machine, whatever else is in the grid."""
    names = [name for name, axis in axes_of(type(job)).items() if not axis.of_machine]
    text = json.dumps({name: getattr(job, name) for name in names}, sort_keys=True)
    return 1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % shares


def pattern(kind: type[Job], wanted: Mapping[str, Any], where: str) -> Fits:
    """Whether a job has, of each axis that is named, one of the values.

    A spec fits every one of its name that has the settings that it gives.

    Args:
        kind: of the jobs.
        wanted: axis to one value or a list, as people write them.
        where: they stand, in error messages.

    Raises:
        UsageError: no such axis, or no such value.
    """
    axes = axes_of(kind)
    if unknown := [name for name in wanted if name not in axes]:
        raise UsageError(f"{where} has no axis '{unknown[0]}': there are {', '.join(sorted(axes))}")
    tests = {name: _test(name, axes[name], listed(values), where) for name, values in wanted.items()}
    return lambda job: all(test(getattr(job, name)) for name, test in tests.items())


def _test(name: str, axis: Axis, values: Sequence[Any], where: str) -> Fits:
    try:
        read = TypeAdapter(values_of(axis)).validate_python(list(values))
    except ValidationError as error:
        raise UsageError(f"{where}: {name}={values[0]!r} is refused: {error.errors()[0]['msg']}") from None
    if axis.plugin is None:
        return {_canonical(axis, value) for value in read}.__contains__
    fits = [_part(axis.plugin, text) for text in read]
    return lru_cache(maxsize=None)(lambda text: any(each(text) for each in fits))


def _canonical(axis: Axis, value: Any) -> Any:
    """The value as jobs hold it; one of few choices may be one that this machine does not have."""
    return value if axis.choices and value != axis.default else axis.canonical(value)


def _part(kind: str, text: str) -> Fits:
    """Whether a canonical spec, or chain of them, has these names and these settings."""
    wanted = {}
    for spec in parse_chain(text):
        every = dict(resolve(kind, spec).settings)
        wanted[spec.name] = {(key, every[key]) for key, _ in spec.settings}

    def fits(canonical: str) -> bool:
        found = {spec.name: set(spec.settings) for spec in parse_chain(canonical)}
        return found.keys() == wanted.keys() and all(wanted[name] <= found[name] for name in wanted)

    return fits
