"""What a submission holds: rows, their per-image tables, the suite, and a manifest that says where they come from."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from gibench.axes import axes_of
from gibench.errors import UsageError
from gibench.leaderboard.formats import to_csv
from gibench.leaderboard.published import read_text
from gibench.leaderboard.table import table
from gibench.result import Row
from gibench.results.document import DamagedError, parsed
from gibench.submission import archive
from gibench.submission.archive import CODE, COSTS, MANIFEST, ROWS, SUITE, images_of
from gibench.utility.job import TrialRow

Read = TypeVar("Read", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Code(_Part):
    """What a cell's key is made of beside its axes, see `gibench.job.Job`."""

    versions: dict[str, str]
    sources: dict[str, str]


class _Codes(_Part):
    """Few cells have a code of their own, so each is noted once."""

    codes: list[Code]
    cells: dict[str, int]  # a cell's key to its code's place


class Manifest(_Part):
    """Where the rows come from."""

    format: Literal[1] = 1
    gibench: str  # the version that wrote the file
    distributions: dict[str, list[str]]  # of the plugins in the cells, gibench's included, with their versions
    hardware: list[str]
    torch: list[str]
    date: str  # UTC, of the newest row
    suite: str | None  # its name
    members: dict[str, str]  # the SHA-256 of every other member


@dataclass(frozen=True)
class Submission:
    """What was read of a file, or is to be written."""

    rows: list[Row]
    images: Mapping[str, str]  # the per-image table of each cell with a score, by its key, as CSV
    codes: Mapping[str, Code] = field(default_factory=dict)  # by cell, where it is known
    costs: list[TrialRow] = field(default_factory=list)
    suite: bytes | None = None
    name: str | None = None  # of the suite
    altered: list[str] = field(default_factory=list)  # members that are not those the manifest was made of


def written(found: Submission, version: str) -> bytes:
    """The file that holds a submission; `version` is that of the gibench that writes it."""
    members = {ROWS: to_csv(table(found.rows)).encode()}
    members |= {images_of(key): text.encode() for key, text in found.images.items()}
    if found.costs:
        members[COSTS] = to_csv(table(found.costs, TrialRow)).encode()
    if found.suite is not None:
        members[SUITE] = found.suite
    members[CODE] = _json(_codes(found))
    versions: dict[str, set[str]] = {}
    for code in found.codes.values():
        for name, each in code.versions.items():
            versions.setdefault(name, set()).add(each)
    manifest = Manifest(
        gibench=version,
        distributions={name: sorted(some) for name, some in versions.items()},
        hardware=sorted({row.machine for row in found.rows if row.machine}),
        torch=sorted({row.torch for row in found.rows if row.torch}),
        date=max((row.started for row in found.rows), default="")[:10],
        suite=found.name,
        members={name: _digest(content) for name, content in members.items()},
    )
    return archive.packed(members | {MANIFEST: _json(manifest)})


def _codes(found: Submission) -> _Codes:
    texts = {key: code.model_dump_json() for key, code in found.codes.items()}
    places = {text: place for place, text in enumerate(sorted(set(texts.values())))}
    return _Codes(
        codes=[Code.model_validate_json(text) for text in places],
        cells={key: places[text] for key, text in texts.items()},
    )


def _json(part: _Part) -> bytes:
    return (json.dumps(part.model_dump(), indent=1, sort_keys=True) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(file: Path) -> tuple[Manifest, Submission]:
    """The manifest and what is in a file.

    Raises:
        UsageError: it is no submission. What it says may be wrong all the same: see `gibench.submission.check`.
    """
    members = archive.unpacked(file)
    manifest = _part(Manifest, members.pop(MANIFEST), f"{MANIFEST} in {file}")
    digests = {name: _digest(content) for name, content in members.items()}
    altered = sorted({name for name, _ in digests.items() ^ manifest.members.items()})
    codes = _part(_Codes, members.get(CODE, b'{"codes": [], "cells": {}}'), f"{CODE} in {file}")
    if not all(0 <= place < len(codes.codes) for place in codes.cells.values()):
        raise UsageError(f"{CODE} in {file} names code that it has not: export it anew")
    texts = {name: _text(content, f"{name} in {file}") for name, content in members.items() if name.endswith(".csv")}
    rows = read_text(Row, texts.pop(ROWS), f"{ROWS} in {file}")
    for row in rows:
        if lacking := [name for name in axes_of(Row) if getattr(row, name) in (None, "")]:
            raise UsageError(f"{ROWS} in {file}: the cell {row.cell} does not say its {lacking[0]}: export it anew")
    costs = read_text(TrialRow, texts.pop(COSTS), f"{COSTS} in {file}") if COSTS in texts else []
    images = {name.removeprefix("images/").removesuffix(".csv"): text for name, text in texts.items()}
    cells = {key: codes.codes[place] for key, place in codes.cells.items()}
    return manifest, Submission(rows, images, cells, costs, members.get(SUITE), manifest.suite, altered)


def _part(kind: type[Read], content: bytes, where: str) -> Read:
    try:
        return kind.model_validate(parsed(content))
    except DamagedError as error:
        raise UsageError(f"{where} cannot be read ({error}): export it anew") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where} has a wrong '{place}' ({first['msg']}): export it with this version") from None


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is no UTF-8 ({error.reason}): export it anew") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is none of its numbers")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise ValueError(f"{text} is no number of an image")
    return value


def _nullable(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "" else read(text)


_TRUTH = {"True": True, "False": False}
_COLUMNS: Mapping[str, tuple[str, Callable[[str], Any]]] = {  # of `gibench.scoring.Score.images`: its type, its values
    "truth": ("int64", _whole),
    "reconstruction": ("Int64", _nullable(_whole)),
    **dict.fromkeys(("mse", "psnr"), ("float64", _finite)),
    "ssim": ("float64", _nullable(_finite)),
    "lpips": ("float64", _finite),
    **dict.fromkeys(("exact", "certified"), ("bool", _TRUTH.__getitem__)),
    "nearest": ("float64", _nullable(_finite)),
    "reidentified": ("boolean", _nullable(_TRUTH.__getitem__)),
}
_LATER = 2  # of these, the last ones, which tables of earlier versions end without


def images(text: str) -> pd.DataFrame:
    """A per-image table, read to the last bit; columns that there were not yet are null.

    Raises:
        ValueError: it is none; in words.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header, *lines = [line for line in reader if line] or [[]]
        if header not in (list(_COLUMNS)[: len(_COLUMNS) - later] for later in range(_LATER + 1)):
            raise ValueError(f"it has other columns than {', '.join(_COLUMNS)}")
        kinds = [_COLUMNS[name] for name in header]
        values = [[read(each) for (_, read), each in zip(kinds, line, strict=True)] for line in lines]
        values = [[*line, *[None] * (len(_COLUMNS) - len(header))] for line in values]
    except KeyError as error:
        raise ValueError(f"{error} is neither True nor False") from None
    except csv.Error as error:
        raise ValueError(str(error)) from None
    columns = zip(*values, strict=True) if values else [()] * len(_COLUMNS)
    return pd.DataFrame(
        {
            name: pd.Series(list(column), dtype=kind)
            for (name, (kind, _)), column in zip(_COLUMNS.items(), columns, strict=True)
        }
    )
