"""What is published is what its rows say: every table to the letter, every figure by the digest of its rows."""

import csv
import io
import random
import re
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.leaderboard import publish
from gibench.leaderboard.formats import to_csv
from gibench.leaderboard.published import read, seeds
from gibench.leaderboard.render import NOT_MEASURED, RESULTS
from gibench.leaderboard.table import table
from gibench.leaderboard.values import VALUES
from gibench.result import Row
from gibench.spec import parse
from gibench.sweep.suite import Suite
from gibench.utility.job import TrialRow

ROOT = Path(__file__).parents[2]
NOTHING = {"status": "skipped", "psnr_mean": None, "psnr_median": None, "exact_rate": None}
SUITES = Path(str(resources.files("gibench.leaderboard.suites")))


def outdated(root):
    """The published files that do not say what the rows say."""
    wrong = [file for file, text in publish.readmes(root).items() if file.read_text(encoding="utf-8") != text]
    drawn = {name: suite for name, (suite, _) in publish.FIGURES.items()} | {publish.PICTURE: "networks"}
    for name, suite in drawn.items():
        file, rows = root / RESULTS / name, root / RESULTS / f"{suite}.csv"
        if rows.exists() and Image.open(file).text.get(publish.DIGEST) != publish.digest(rows):
            wrong.append(file)
    return wrong


def test_what_is_committed_is_what_the_committed_rows_say():
    assert not outdated(ROOT), "run make results"


def test_every_table_has_a_place_and_no_file_of_rows_is_left_out():
    texts = [page.read_text(encoding="utf-8") for page in publish.pages(ROOT)]
    placed = [name for text in texts for name in re.findall(r"^<!-- results: (\S+) -->", text, re.MULTILINE)]
    assert sorted(placed) == sorted(publish.tables(ROOT))
    assert {match[2] for text in texts for match in publish.VALUE.finditer(text)} == set(VALUES)
    used = {spec.suite for spec in publish.TABLES.values()} | {suite for suite, _ in publish.FIGURES.values()}
    assert {file.stem for file in (ROOT / RESULTS).glob("*.csv")} <= used | {
        "reported",
        "defenses-utility",
        "cramer-rao",
        "hostile-batches",
        "reach",
    }


@pytest.fixture(scope="module")
def measured(make_stored):
    """A function that gives a row for each cell of a suite, with scores drawn at random."""

    def make(suite):
        drawn = random.Random(suite)
        cells = Suite.read(SUITES / f"{suite}.yaml", {"device": ["cpu"], "threads": [2]}).cells()
        return [
            make_stored(
                **{name: getattr(cell, name) for name in axes_of(Cell)},
                run_id=f"{number:032x}",
                control=parse(cell.attack).name in ("random", "mean-image", "wrong-gradient"),
                adaptive="adaptive" in cell.attack,
                exact_rate=drawn.randrange(21) / 20,
                psnr_median=drawn.uniform(5, 100),
                budget="300 iterations" if "max_iterations=300" in cell.attack else None,
            )
            for number, cell in enumerate(cells)
        ]

    return make


@pytest.fixture
def root(tmp_path):
    """A copy of what is published, without rows."""
    for page in publish.pages(ROOT):
        copy = tmp_path / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, copy)
    (tmp_path / RESULTS).mkdir()
    return tmp_path


def put(root, suite, rows):
    (root / RESULTS / f"{suite}.csv").write_text(to_csv(table(rows)), encoding="utf-8")


@pytest.mark.parametrize("name", publish.TABLES)
def test_a_suite_fills_its_table_and_says_what_it_is_of(root, measured, name):
    suite = publish.TABLES[name].suite
    rows = measured(suite)
    assert publish.tables(root)[name] == NOT_MEASURED
    put(root, suite, rows)
    text = publish.tables(root)[name]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) > 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert f"`leaderboard/results/{suite}.csv`, 2026-01-01" in text
    assert "initial weights" in text or "training steps" in text
    assert "a processor (2 threads)" in text
    assert f"seeds {seeds(row.seed for row in rows)[:1]}" in text
    assert "`mean-image`" in text


def test_a_pivot_has_each_figure_where_it_belongs(root, measured):
    put(root, "ablation", [row for row in measured("ablation") if row.seed == 3])
    (row,) = [r for r in measured("ablation") if "preset=paper" in r.attack and (r.labels, r.seed) == ("same", 3)]
    header, _, *lines = [line for line in publish.tables(root)["ablation"].splitlines() if line.startswith("|")]
    (line,) = [line for line in lines if "preset=paper" in line]
    assert header.split(" | ")[1:] == ["`iid`", "`same` |"]
    assert line.split(" | ")[2].startswith(f"{row.exact_rate:.2f} / 0.90")


def test_what_failed_what_never_applies_and_what_is_not_above_the_control_says_so(root, measured):
    rows = [row for row in measured("ablation") if row.seed == 0 and row.labels == "iid"]
    late = next(row for row in rows if row.attack.startswith("spearpp:")).attack
    changed = {late: {"status": "timeout", "exact_rate": 0.0, "psnr_median": 1.0}}
    changed |= {row.attack: NOTHING for row in rows if row.attack.startswith("layer-pair")}
    put(root, "ablation", [replace(row, **changed.get(row.attack, {})) for row in rows])
    text = publish.tables(root)["ablation"]
    assert "| `layer-pair` | n/a |" in text
    assert "| `spearpp` | 0.00 / 0.90 (0 / 1 ok) ° |" in text
    assert "; ° is not above the control" in text


def test_a_changed_digit_is_noticed_wherever_it_is(root, measured):
    put(root, "demo", measured("demo"))
    put(root, "defenses", measured("defenses"))
    publish.main(root)
    assert not outdated(root)
    readme, rows = root / "README.md", root / RESULTS / "demo.csv"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("| 4.2, 1e-05 |", "| 4.3, 1e-05 |", 1), encoding="utf-8")
    assert outdated(root) == [readme]
    readme.write_text(text, encoding="utf-8")
    held = rows.read_text()
    value = read(Row, rows)[0].psnr_median
    rows.write_text(held.replace(repr(value), repr(value + 1)))
    assert readme in outdated(root)
    rows.write_text(held)
    assert not outdated(root)
    file = root / RESULTS / "defenses.csv"
    file.write_text(file.read_text().replace(",1.25,", ",1.5,", 1))  # the seconds of one cell, which no table has
    assert outdated(root) == [root / RESULTS / "defenses.png"]


def test_rendering_twice_changes_nothing(root, measured):
    put(root, "headline", measured("headline"))
    publish.main(root)
    once = (root / "README.md").read_bytes()
    publish.main(root)
    assert (root / "README.md").read_bytes() == once


def test_a_figure_in_a_sentence_is_that_of_the_rows(root, measured):
    page = root / "attacks" / "optimization" / "some.md"  # any page of the folders has markers
    page.parent.mkdir(exist_ok=True)
    shown = "There are <!-- figure: private-tiles -->{}<!-- end --> tiles, and `<!-- figure: NAME -->` says so.\n"
    page.write_text(shown.format(7))
    publish.main(root)
    assert page.read_text() == shown.format("?")
    put(root, "headline", [replace(row, split_size=345) for row in measured("headline")[:6]])
    assert page in outdated(root)
    publish.main(root)
    assert page.read_text() == shown.format(345)
    assert "<!-- figure: false-rate -->0.86 %<!-- end -->" in (root / "attacks/spearpp/README.md").read_text()
    assert not outdated(root)
    page.write_text("<!-- figure: nothing -->7<!-- end -->")
    with pytest.raises(UsageError, match="no published figure 'nothing': there are private-tiles"):
        publish.readmes(root)


def test_a_marker_that_names_nothing_is_an_error(root):
    (root / "README.md").write_text("<!-- results: nothing -->\n<!-- end -->\n")
    with pytest.raises(UsageError, match="no published table 'nothing'"):
        publish.readmes(root)


def test_costs_are_those_of_the_training_runs(root):
    common = {"dataset": "digits", "model": "linear", "device": "cpu", "threads": 2, "batch_size": 8, "rounds": 300}
    runs = [
        TrialRow(
            **common,
            defense=defense,
            seed=seed,
            accuracy=accuracy,
            loss=0.1,
            round_s=0.25 * factor,
            round_bytes=4000.0,
            hardware="a processor",
            run_id=f"{defense}{seed}",
            started="2026-01-02T00:00:00.000+00:00",
        )
        for defense, accuracy, factor in (("none", 0.9, 1), ("clip:max_norm=1.0", 0.5, 4))
        for seed in (0, 1)
    ]
    (root / RESULTS / "defenses-utility.csv").write_text(to_csv(table(runs, TrialRow)))
    text = publish.tables(root)["costs"]
    assert "| `clip` | 2 / 2 | 0.500 [0.500, 0.500] | 4.0 | 4.0 | - |" in text
    assert "digits; `linear`; 300 rounds of 8 images; seeds 0-1; a processor" in text


@example(number=0.1, count=None, flag=None, text="\r")
@settings(max_examples=50, deadline=None)
@given(
    number=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    count=st.none() | st.integers(0, 10**6),
    flag=st.none() | st.booleans(),
    text=st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9),
)
def test_rows_are_read_back_to_the_last_bit(make_stored, tmp_path_factory, number, count, flag, text):
    row = make_stored(psnr_mean=number, n_true=count, adaptive=flag, reason=text)
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    file.write_text(to_csv(table([row])), encoding="utf-8", newline="")
    assert read(Row, file) == [row]


def test_a_file_that_is_none_of_rows_is_one_clear_line(root, make_stored):
    file = root / RESULTS / "demo.csv"
    put(root, "demo", [make_stored()])
    text = file.read_text()
    file.write_text(text.replace("exact_rate", "exactness"))
    with pytest.raises(UsageError, match="other columns than rows have now \\(exactness\\)"):
        publish.tables(root)
    file.write_text("\n")
    with pytest.raises(UsageError, match=r"demo\.csv is empty: give a file of rows"):
        publish.tables(root)
    file.write_text(text.replace(",0.95,", ",much,", 1))
    with pytest.raises(UsageError, match="line 2 is no row"):
        publish.tables(root)


@given(st.sets(st.integers(0, 30), min_size=1))
def test_seeds_are_written_as_ranges_that_can_be_read_back(numbers):
    found = set()
    for part in seeds(numbers).split(", "):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == numbers


def test_a_table_of_which_no_row_was_run_yet_says_so(root, measured):
    put(root, "defenses", [row for row in measured("defenses") if row.train_steps == 0])
    made = publish.tables(root)
    assert made["defenses-trained"] == NOT_MEASURED
    assert made["defenses-exact"] != NOT_MEASURED


def test_rows_from_before_something_was_measured_are_read_and_rows_without_an_axis_are_not(root, make_stored):
    file = root / RESULTS / "demo.csv"
    put(root, "demo", [make_stored(torch="2.9")])
    header, line = csv.reader(io.StringIO(file.read_text()))
    for name, error in (("torch", None), ("mode", None), ("batch_size", UsageError)):
        place = header.index(name)
        text = "\n".join(",".join(f'"{each}"' for each in (*row[:place], *row[place + 1 :])) for row in (header, line))
        file.write_text(text)
        if error:
            with pytest.raises(error, match=rf"other columns than rows have now \({name}\)"):
                read(Row, file)
        else:
            assert read(Row, file) == [make_stored(torch=None if name == "torch" else "2.9")]
