"""How a published table is made of rows: its fields, its conditions, what was not above the control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gibench.datasets.hostile import PICTURES
from gibench.errors import UsageError
from gibench.registry import readable
from gibench.result import Row, mixture
from gibench.spec import parse
from gibench.text import code, prose
from gibench.utility.job import TrialRow

from .columns import certified, claims, number, place, within
from .formats import markdown_table, reported_lines
from .intervals import at_most
from .published import read, seeds
from .ranks import SCENARIO
from .table import newest, records, summarize
from .utility import newest as newest_trials
from .utility import summarize as costs

RESULTS = Path("leaderboard/results")
NOT_MEASURED = "Not measured on this version."

Line = dict[str, Any]
Show = Callable[[Line], str]


class Table(NamedTuple):
    """A published table: of which suite's rows, what stands down its side, and what beside or across.

    Without `across` a line has the fields of `shows`; with it, one column for each value across, which holds them.
    """

    suite: str
    down: tuple[str, ...]
    shows: tuple[str, ...]
    across: tuple[str, ...] = ()
    where: Callable[[Line], bool] = lambda line: True


def _settings(line: Line, name: str) -> str:
    return str(dict(parse(line["model"]).settings).get(name, "-"))


def _tried(show: Show) -> Show:
    """A figure, with how many cells ended ok if not all did, and a mark if it is not above the control."""

    def shown(line: Line) -> str:
        if not line["n_tried"]:
            return "n/a"
        ended = "" if line["n_ok"] == line["n_tried"] else f" ({line['n_ok']} / {line['n_tried']} ok)"
        return show(line) + ended + (" °" if line["above_control"] is False else "")

    return shown


def _plainly(show: Callable[[Line, Callable[[str, str], str]], str]) -> Show:
    return lambda line: show(line, readable)


def _attack(line: Line) -> str:
    return code(readable("attack", line["attack"])) + (" (adaptive)" if line["adaptive"] else "")


_EXACT = _plainly(within("exact_rate", "exact_low", "exact_high", 2))
FIELDS: Mapping[str, Show] = {  # heading to what stands below it
    "attack": _attack,
    "defense": lambda line: code(readable("defense", line["defense"])),
    "network": lambda line: code(readable("model", line["model"])),
    "batch": lambda line: str(line["batch_size"]),
    "width": lambda line: _settings(line, "width"),
    "depth": lambda line: _settings(line, "depth"),
    "labels": lambda line: code(line["labels"]),
    "training steps": lambda line: str(line["train_steps"]),
    "budget": lambda line: prose(line["budget"] or "-"),
    "ok / tried": lambda line: f"{line['n_ok']} / {line['n_tried']}",
    "rank": _plainly(place),
    "exact": _EXACT,
    "certified": lambda line: certified(line, 2),
    "false certificates": _plainly(claims),
    "labels found": lambda line: "-" if line["labels_found"] is None else f"{line['labels_found']:.2f}",
    "PSNR dB": _plainly(within("psnr_median", "psnr_low", "psnr_high", 1)),
    "LPIPS": _plainly(number("lpips_mean", 3)),
    "seconds": _plainly(number("runtime_s", 2)),
    "epsilon, delta": lambda line: "-" if line["epsilon"] is None else f"{line['epsilon']:.4g}, {line['delta']:.2g}",
}


def rendered(spec: Table, file: Path) -> str:
    """The table and below it what it is of; a word that there is none where its rows are not there.

    Raises:
        UsageError: two lines stand in one field, or the rows cannot be read.
    """
    if not file.exists():
        return NOT_MEASURED
    rows = newest(read(Row, file))
    lines = [line for line in records(summarize(rows)) if spec.where(line)]
    if not lines:
        return NOT_MEASURED
    told = {line["attack"]: line["budget"] for line in lines if line["budget"]}  # by its cells that were not skipped
    lines = [line | {"budget": told.get(line["attack"])} for line in lines]
    same = {tuple(line[name] for name in (*SCENARIO, "defense", "attack")) for line in lines}
    shown = [row for row in rows if tuple(getattr(row, name) for name in (*SCENARIO, "defense", "attack")) in same]
    body = _pivot(spec, lines) if spec.across else _listing(spec, lines)
    marked = bool(spec.across) and any(line["above_control"] is False for line in lines)
    return f"\n{body}\n\n{_conditions(shown, file, marked)}\n"


def _listing(spec: Table, lines: list[Line]) -> str:
    fields = (*spec.down, *spec.shows)
    lines = sorted(lines, key=lambda line: line["batch_size"])  # else as in the summary, the best of rivals first
    return markdown_table(list(fields), [[FIELDS[name](line) for name in fields] for line in lines])


def _pivot(spec: Table, lines: list[Line]) -> str:
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    order = sorted(lines, key=lambda line: (bool(line["control"]), bool(line["adaptive"])))  # attacks first
    show = _tried(lambda line: " / ".join(FIELDS[name](line) for name in spec.shows))
    places = [tuple(FIELDS[name](line) for name in spec.down) for line in order]
    heads = [
        ", ".join(f"{name} {FIELDS[name](line)}" if name not in _NAMED else FIELDS[name](line) for name in spec.across)
        for line in order
    ]
    for down, across, line in zip(places, heads, order, strict=True):
        if across in cells.setdefault(down, {}):
            raise UsageError(f"two rows of {spec.suite} stand in one field of its table: {down}, {across}")
        cells[down][across] = show(line)
    columns = list(dict.fromkeys(heads))
    body = [[*down, *(found.get(name, "") for name in columns)] for down, found in cells.items()]
    return markdown_table([*spec.down, *columns], body)


_NAMED = ("attack", "network", "labels")  # whose values need no name beside them


def _conditions(rows: list[Row], file: Path, marked: bool) -> str:
    """What all of a table's rows are of: rules E1, E10 and E16."""
    steps = sorted({row.train_steps for row in rows})
    states = ["initial weights" if step == 0 else f"{step} training steps" for step in steps]
    parts = [
        ", ".join(sorted({prose(row.dataset) for row in rows})),
        ", ".join(sorted({code(row.model) for row in rows})),
        ", ".join(states),
        f"batches of {', '.join(map(str, sorted({row.batch_size for row in rows})))}",
        f"labels {', '.join(sorted({row.labels for row in rows}))}",
        f"server knows {' or '.join(sorted({row.knows for row in rows}))}",
        f"seeds {seeds(row.seed for row in rows)}",
        f"{', '.join(sorted({row.dtype for row in rows}))} on {_machines(rows)}",
    ]
    figures = "rates are means, PSNR the median of the cells' medians, in brackets 95 % intervals over cells"
    control = "; ° is not above the control" if marked else ""
    mixed = mixture(row.torch for row in rows)
    control += f"; {mixed}" if mixed else ""
    return f"{'; '.join(parts)}; {figures}{control} (`{RESULTS / file.name}`, {_dates(rows)})."


def _machines(rows: list[Any]) -> str:
    return ", ".join(sorted({prose(row.machine or "unknown") for row in rows}))


def _dates(rows: list[Any]) -> str:
    days = sorted({row.started[:10] for row in rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def reach_table(file: Path) -> str:
    """How far exact recovery reaches, from the lines that `tests/benchmarks/reach.py` wrote: one for all seeds."""
    if not file.exists():
        return NOT_MEASURED
    body = []
    for _, some in pd.read_csv(file).groupby(["machine", "width", "batch", "depth", "attack"], sort=False):
        one = some.iloc[0]
        body.append(
            [
                f"`{one['attack']}`",
                *(str(one[axis]) for axis in ("batch", "width", "depth")),
                seeds(some["seed"]),
                f"{some['exact'].sum()} of {one['batch'] * len(some)}",
                f"{some['certified'].sum()}",
                f"{some['false'].sum()}",
                f"{some['seconds'].median():.1f}",
                f"{some['MiB'].max():.0f}",
                f"{some['times floor'].median():.1f}",
                one["machine"],
            ]
        )
    header = [
        *("attack", "batch", "width", "hidden layers", "seeds", "exact", "certified", "falsely"),
        *("seconds", "MiB", "times floor", "machine"),
    ]
    return f"\n{markdown_table(header, body)}\n"


def reported_table(files: Iterable[Path]) -> str:
    """What papers report, and below each figure what published rows give for its attack, never mixed."""
    rows = newest(row for file in files if file.exists() for row in read(Row, file))
    table = reported_lines(summarize(rows), readable)
    return f"\n{table}\n" if table else NOT_MEASURED


def hostile_table(file: Path) -> str:
    """Certificates among near-duplicates, of all parts of the data; copies of one picture are one in the bound."""
    if not file.exists():
        return NOT_MEASURED
    rows = [row for row in newest(read(Row, file)) if row.status == "ok" and not row.control]
    body = []
    for attack in sorted({row.attack for row in rows}):
        some = [row for row in rows if row.attack == attack]
        images, exact, sure = (
            sum(round((rate or 0) * (row.n_true or 0)) for row, rate in zip(some, rates, strict=True))
            for rates in ([1.0] * len(some), [r.exact_rate for r in some], [r.certified_rate for r in some])
        )
        false = sum(row.false_certificates or 0 for row in some)
        distinct = min(sure, PICTURES)
        bound = at_most(min(false, distinct), distinct)
        told = f"{false}" if bound is None else f"{false} (< {100 * bound:.2g} %)"
        body.append([f"`{readable('attack', attack)}`", *map(str, (len(some), images, exact, sure)), told])
    table = markdown_table(["attack", "batches", "images", "exact", "certified", "of these false"], body)
    where = f"batches of {', '.join(map(str, sorted({row.batch_size for row in rows})))}; {rows[0].model}"
    return f"\n{table}\n\n{where}; {_machines(rows)} (`{RESULTS}/{file.name}`, {_dates(rows)}).\n"


def costs_table(file: Path) -> str:
    """What each defense costs: the accuracy of training with it, seconds and bytes (rule E13)."""
    if not file.exists():
        return NOT_MEASURED
    rows = newest_trials(read(TrialRow, file))
    body = [
        [
            code(readable("defense", line["defense"])),
            f"{line['n_ok']} / {line['n_tried']}",
            "-"
            if line["accuracy"] is None
            else f"{line['accuracy']:.3f} [{line['accuracy_low']:.3f}, {line['accuracy_high']:.3f}]",
            "-" if line["overhead"] is None else f"{line['overhead']:.1f}",
            "-" if line["round_bytes"] is None else f"{line['round_bytes'] / 1000:.1f}",
            "-" if line["run_epsilon"] is None else f"{line['run_epsilon']:.4g}, {line['delta']:.2g}",
        ]
        for line in costs(rows)
    ]
    header = [
        "defense",
        "ok / tried",
        "accuracy [least, most]",
        "overhead of a round",
        "kB an update",
        "epsilon, delta of the run",
    ]
    rounds = ", ".join(map(str, sorted({row.rounds for row in rows})))
    where = f"{', '.join(sorted({prose(row.dataset) for row in rows}))}; "
    where += ", ".join(sorted({code(row.model) for row in rows}))
    sizes = ", ".join(map(str, sorted({row.batch_size for row in rows})))
    below = f"{where}; {rounds} rounds of {sizes} images; seeds {seeds(row.seed for row in rows)}; {_machines(rows)}"
    return f"\n{markdown_table(header, body)}\n\n{below} (`{RESULTS / file.name}`, {_dates(rows)}).\n"


def inventory(folder: Path, suites: Iterable[str]) -> str:
    """What has been measured on this version: the files of rows, how many, of which seeds, when and on what."""
    body = []
    for suite in sorted(set(suites)):
        file = folder / f"{suite}.csv"
        if file.exists():
            rows = read(Row, file)
            body.append([f"`{suite}`", str(len(rows)), seeds(row.seed for row in rows), _dates(rows), _machines(rows)])
    return f"\n{markdown_table(['suite', 'cells', 'seeds', 'date', 'machine'], body)}\n" if body else NOT_MEASURED
