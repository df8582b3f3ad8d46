"""Renders all that is published from the rows in `results/`: every table and figure between markers, every picture.

`make results` runs it. A page says where a table goes by `<!-- results: NAME -->` and `<!-- end -->` on lines of their
own, and where a single figure goes in a sentence by `<!-- figure: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from gibench.errors import UsageError
from gibench.registry import readable
from gibench.result import Row
from gibench.utility.job import TrialRow

from . import pick, plots
from .columns_page import columns_table
from .published import read
from .render import (
    NOT_MEASURED,
    RESULTS,
    Line,
    Table,
    costs_table,
    hostile_table,
    inventory,
    reach_table,
    rendered,
    reported_table,
)
from .skipped import skipped_table
from .table import newest, table
from .values import VALUES

_FOLDERS = ("attacks", "defenses", "leaderboard", "gibench")  # whose pages have markers, beside the front page
DIGEST = "gibench rows"  # the key in a PNG's metadata of the hash of the rows it was drawn from
TABLE = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
VALUE = re.compile(r"(<!-- figure: ([a-z][a-z0-9-]*) -->).*?(<!-- end -->)")


def _plain(line: Line) -> bool:
    return bool(line["train_steps"] == 0)


def _undefended(line: Line) -> bool:
    return bool(line["defense"] == "none")


_SIZES = ("exact", "PSNR dB")
TABLES: Mapping[str, Table] = {
    "headline": Table(
        "headline",
        ("attack", "batch", "width", "defense"),
        ("rank", "ok / tried", "exact", "certified", "false certificates", "PSNR dB", "epsilon, delta", "seconds"),
    ),
    "demo": Table(
        "demo", ("defense", "attack"), ("rank", "exact", "certified", "PSNR dB", "epsilon, delta", "seconds")
    ),
    "ablation": Table("ablation", ("attack",), ("exact", "certified"), ("labels",)),
    "objectives": Table("objectives", ("attack",), ("exact",), ("batch", "width")),
    "hard-batches": Table("hard-batches", ("batch", "labels"), ("exact", "certified"), ("attack",)),
    "shallow": Table("shallow", ("attack", "labels"), ("exact",), ("width", "depth")),
    "training": Table("training", ("attack", "width"), ("exact", "certified"), ("training steps",)),
    "spear-wall": Table("spear-wall", ("batch",), ("exact", "seconds"), ("attack",)),
    "networks": Table(
        "baselines",
        ("attack", "budget"),
        _SIZES,
        ("network", "batch"),
        lambda line: "labels" in line["knows"].split(","),
    ),
    "labels": Table(
        "baselines",
        ("attack",),
        ("labels found", "PSNR dB"),
        ("network", "batch"),
        lambda line: "labels" not in line["knows"].split(","),
    ),
    "networks-exact": Table("networks", ("network", "batch"), ("exact",), ("attack",), _undefended),
    "networks-psnr": Table("networks", ("network", "batch"), ("PSNR dB", "LPIPS"), ("attack",), _undefended),
    "networks-defended": Table(
        "networks", ("network", "defense"), _SIZES, ("attack",), lambda line: not _undefended(line)
    ),
    "pooling": Table("pooling", ("attack", "budget"), ("PSNR dB", "LPIPS"), ("batch",)),
    "noise": Table("noise", ("defense",), _SIZES, ("attack",)),
    "tuning": Table("tuning", ("attack", "network", "batch"), _SIZES, ("labels",)),
    "paper": Table("paper", ("attack", "batch"), ("exact", "seconds"), ("width",)),
    "defenses-exact": Table("defenses", ("defense",), ("exact",), ("attack",), _plain),
    "defenses-psnr": Table("defenses", ("defense",), ("PSNR dB",), ("attack",), _plain),
    "defenses-trained": Table("defenses", ("defense",), _SIZES, ("attack",), lambda line: not _plain(line)),
}
_AS_IN_PAPERS = ("headline", "baselines", "scaling", "spear-wall", "training")  # attacks at their defaults
FRONT_PAGE = ("demo",)  # the suites whose tables README.md shows
FIGURES: Mapping[str, tuple[str, str]] = {  # the file, of which suite's rows, and the plot
    "defenses.png": ("defenses", "matrix"),
    "privacy-utility.png": ("privacy-utility", "privacy_utility"),
    "noise.png": ("noise", "noise"),
}
PICTURE = "networks.png"  # of images, which `families.py` draws where the suite `networks` was run
_SHOWN = "For each network photographs, over the best baseline's, over ours; certified ones in green frames"


def tables(root: Path) -> dict[str, str]:
    """Every published table by the name of its marker, as Markdown."""
    found = {name: rendered(spec, root / RESULTS / f"{spec.suite}.csv") for name, spec in TABLES.items()}
    suites = [*(spec.suite for spec in TABLES.values()), *(suite for suite, _ in FIGURES.values())]
    return found | {
        "costs": costs_table(root / RESULTS / "defenses-utility.csv"),
        "hostile-batches": hostile_table(root / RESULTS / "hostile-batches.csv"),
        "networks-picture": _picture(root),
        "networks-skipped": skipped_table(root / RESULTS / "networks.csv"),
        "reach": reach_table(root / RESULTS / "reach.csv"),
        "reported": reported_table(root / RESULTS / f"{suite}.csv" for suite in _AS_IN_PAPERS),
        "published": inventory(root / RESULTS, suites),
        "columns": columns_table(Row),
        "training-columns": columns_table(TrialRow),
    }


def _picture(root: Path) -> str:
    """For a page in one of the folders."""
    return f"\n![{_SHOWN}](../{RESULTS / PICTURE})\n" if (root / RESULTS / PICTURE).exists() else NOT_MEASURED


def pages(root: Path) -> list[Path]:
    """Every page that may have markers: the front page, and Markdown in the folders of the package."""
    found = (file for folder in _FOLDERS for file in (root / folder).rglob("*.md"))
    return [root / "README.md", *sorted(found)]


def readmes(root: Path) -> dict[Path, str]:
    """The pages with every table and figure in its place.

    Raises:
        UsageError: a marker names none.
    """
    made = tables(root)

    def put(match: re.Match[str]) -> str:
        if match[2] not in made:
            raise UsageError(f"there is no published table '{match[2]}': there are {', '.join(made)}")
        return f"{match[1]}{made[match[2]]}\n{match[3]}"

    def put_value(match: re.Match[str]) -> str:
        if match[2] not in VALUES:
            raise UsageError(f"there is no published figure '{match[2]}': there are {', '.join(VALUES)}")
        return f"{match[1]}{VALUES[match[2]](root)}{match[3]}"

    texts = {page: page.read_text(encoding="utf-8") for page in pages(root)}
    return {page: VALUE.sub(put_value, TABLE.sub(put, text)) for page, text in texts.items()}


def digest(file: Path) -> str:
    """Of the rows that a figure is drawn from."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def figures(root: Path) -> dict[Path, bytes]:
    """The figures whose rows are there, as PNG with the digest of the rows inside."""
    found = {}
    for name, (suite, plot) in FIGURES.items():
        file = root / RESULTS / f"{suite}.csv"
        if file.exists():
            kind = plots.PLOTS[plot]
            picked = kind.pick(pick.describe(table(newest(read(Row, file))), readable))
            stream = io.BytesIO()
            plots.draw(kind, picked).savefig(stream, format="png", dpi=150, metadata={DIGEST: digest(file)})
            found[root / RESULTS / name] = stream.getvalue()
    return found


def main(root: Path) -> None:
    """Write every page and every figure anew.

    Raises:
        UsageError: see `readmes`; or rows cannot be read.
    """
    for file, text in readmes(root).items():
        file.write_text(text, encoding="utf-8")
    for file, image in figures(root).items():
        file.write_bytes(image)


if __name__ == "__main__":
    try:
        main(Path.cwd())
    except UsageError as error:
        sys.exit(f"error: {error}")
