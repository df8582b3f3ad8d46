"""The leaderboard as a static site: what its pages say, and that nothing which rows hold does more than be read."""

import csv
import io
import re
from base64 import b64decode
from collections import Counter
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.errors import UsageError
from gibench.leaderboard import columns, formats
from gibench.leaderboard.site import build
from gibench.leaderboard.site.cell import name_of
from gibench.leaderboard.site.pages import render
from gibench.leaderboard.site.rows import Beside, Shown, of_files, of_store
from gibench.leaderboard.table import records, summarize, table
from gibench.registry import readable
from gibench.result import COLUMNS
from gibench.results import Results
from gibench.stored import Stored
from tests.leaderboard.markup import Page

PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
HOSTILE = "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`&amp;{{7*7}}\u202e\ud800\0\x1b"
DP = "dp:delta=1e-05,max_grad_norm=1.0"
SCRIPTS = {"script.js", "../script.js"}
PLACES = {
    f"{prefix}{name}" for prefix in ("", "../") for name in ("index.html", "map.html", "curves.html", "style.css")
}


@pytest.fixture
def rows(make_stored):
    """Two attacks and a control against two defenses on two seeds, one cell of which was too slow."""
    found = [
        make_stored(
            f"{number:032x}", attack=attack, defense=defense, control=attack == "random", seed=seed, split_size=520
        )
        for number, (seed, defense, attack) in enumerate(
            (seed, defense, attack)
            for seed in (0, 1)
            for defense in ("none", DP)
            for attack in ("spearpp", "dlg", "random")
        )
    ]
    found[1] = replace(found[1], status="timeout", reason="90 s were too few", exact_rate=0.0, certified_rate=0.0)
    return found


@pytest.fixture
def site(tmp_path):
    """A function that builds a site of rows and gives its pages by name."""

    def make(rows, beside=lambda row: None):
        folder = tmp_path / "site"
        build(folder, Shown(rows, "a source", beside))
        return {file.relative_to(folder).as_posix(): Page(file.read_bytes()) for file in folder.rglob("*.html")}

    return make


def test_every_page_is_valid_and_whatever_it_refers_to_is_there(site, rows, tmp_path):
    pages = site(rows)
    assert len(pages) == 3 + len(rows)
    for name, page in pages.items():
        assert page.faults == []
        for address in page.addresses():
            target = (tmp_path / "site" / name).parent / unquote(address.split("#")[0])
            assert address.startswith("#") or target.is_file(), address
    linked = {each for each in pages["index.html"].addresses() if each.startswith("rows/")}
    assert linked == {name for name in pages if name.startswith("rows/")}


def test_every_page_forbids_what_is_not_its_own(site, rows):
    for page in site(rows).values():
        (policy,) = [each["content"] for each in page.of("meta") if each.get("http-equiv") == "Content-Security-Policy"]
        assert dict(part.strip().split(" ", 1) for part in policy.split(";")) == {
            "default-src": "'none'",
            **dict.fromkeys(("img-src", "style-src", "script-src"), "'self'"),
            **dict.fromkeys(("base-uri", "form-action"), "'none'"),
        }


def test_the_index_says_what_the_table_in_a_terminal_does(site, rows):
    text = " ".join(site(rows)["index.html"].text.split())
    summary = summarize(rows)
    for each in columns.shown(summary, None).values():
        assert each.heading in text
        assert all(each.show(line, readable) in text for line in records(summary))
    assert "timeout: 90 s were too few (seed 0)" in text
    assert "1 / 2" in text  # of dlg without a defense
    assert "seconds of the attack alone on a processor (2 threads)" in text
    assert "0 of 36 (< 8 %)" in text  # the certificates of both seeds


def test_a_column_that_the_summary_gains_is_shown(site, rows, monkeypatch):
    more = columns.Shown("new column", lambda line, shorten: f"new of {line['attack'][:7]}", says="what is new")
    monkeypatch.setattr(columns, "SHOWN", {**columns.SHOWN, "n_tried": more})
    text = site(rows)["index.html"].text
    assert "new column" in text
    assert text.count("new of spearpp") == 2
    assert "new column: what is new." in text


def test_scenarios_are_groups_of_their_own_and_controls_are_marked(site, rows):
    page = site([*rows, *(replace(row, batch_size=4, run_id="f" + row.run_id[1:]) for row in rows)])["index.html"]
    bodies = [each for each in page.of("tbody") if "data-batch" in each]
    assert sorted(each["data-batch"] for each in bodies) == ["20", "4"]
    marks = Counter((each["data-attack"], each.get("class")) for each in page.of("tr") if "data-attack" in each)
    assert marks["random", "control"] == 4
    assert not [mark for (attack, mark) in marks if attack != "random" and "control" in (mark or "")]


def test_the_heat_map_has_every_pair(site, rows):
    page = site(rows)["map.html"]
    squares = [each["class"] for each in page.of("td") if "class" in each]
    assert len(squares) == 2 * 3 * 2
    assert "0.47*" in page.text  # 0.95 and 0 of what was too slow
    assert site(rows[:1])["map.html"].of("table") == []


@pytest.fixture
def stored(tmp_path, make_result, monkeypatch):
    """A results folder with one cell, its picture and its per-image table included."""
    monkeypatch.chdir(tmp_path)  # where no other rows are stored
    results = Results(tmp_path / "results", create=True)
    result = make_result(attack="spearpp")
    results.save(replace(result, grid_png=PNG, diagnostics={"note": HOSTILE, "nested": {HOSTILE: [1, None]}}))
    return tmp_path / "results"


def test_a_row_has_its_picture_its_images_its_settings_and_where_it_is_from(stored, tmp_path):
    (row,) = build(tmp_path / "site", of_store(Stored(stored)))
    page = Page((tmp_path / "site" / "rows" / f"{name_of(row)}.html").read_bytes())
    (picture,) = page.of("img")
    assert (tmp_path / "site" / "rows" / picture["src"]).read_bytes() == PNG
    assert (picture["width"], picture["height"]) == ("1", "1")
    for word in ("truth", "0.25", row.attack, row.hardware, row.run_id, "gibench: 0.1.0", "attack: 1.25"):
        assert word in page.text
    assert set(COLUMNS) - {"status", "reason"} <= set(page.text.split())
    assert page.faults == []


def test_a_row_whose_files_are_damaged_is_shown_all_the_same(stored, tmp_path):
    shown = of_store(Stored(stored))
    next(stored.glob("gibench/*/result.json")).write_text("{")
    with pytest.warns(UserWarning, match="run its cell again"):
        (row,) = build(tmp_path / "site", shown)
    assert "its pictures" in (tmp_path / "site" / "rows" / f"{name_of(row)}.html").read_text()


def test_nothing_that_a_row_holds_is_more_than_text(make_stored, site, tmp_path):
    words = {name: HOSTILE for name, column in COLUMNS.items() if column.type is str}
    row = make_stored("../../../" + HOSTILE, HOSTILE, **words | {"status": "failed"})
    other = replace(row, attack=HOSTILE + "2", defense=HOSTILE + "2", run_id="other", cell="other", batch_size=4)
    images = io.StringIO(newline="")
    csv.writer(images).writerows([["truth", HOSTILE], ["0", HOSTILE]])
    noted = {"diagnostics": {HOSTILE: HOSTILE}, "provenance": {"a": {HOSTILE: [HOSTILE]}}}
    files = Beside(None, images.getvalue().encode("utf-8", "surrogatepass"), noted)
    pages = site([row, other, replace(row, defense=other.defense, run_id="third", cell="third")], lambda row: files)
    assert len(pages) == 6
    for page in pages.values():
        assert page.faults == []
        assert {each.get("src") for each in page.of("script")} <= SCRIPTS
        assert page.of("img") == []
        assert {each for each in page.addresses() if not re.fullmatch(r"#main|rows/[0-9a-f]{16}\.html", each)} <= (
            PLACES | SCRIPTS
        )
        assert not set("\u202e\ud800\0\x1b") & set(page.text)
        assert "49" not in page.text  # no template either
    assert all("<script>alert(1)</script>" in page.text for name, page in pages.items() if name.startswith("rows/"))


@settings(max_examples=30)
@given(text=st.text())
def test_any_text_is_read_as_it_is(text):
    page = Page(render("curves.html", title=text, groups=[]))
    assert page.faults == []
    assert len(page.of("script")) == 1
    if text.isascii() and text.isprintable():
        assert text in page.text


def test_names_of_pages_are_ours_and_differ(make_stored):
    rows = [make_stored("../x"), make_stored("../y"), make_stored("../x", cell="\ud800")]
    names = {name_of(row) for row in rows}
    assert len(names) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in names)


def test_rows_come_from_exported_files_too(rows, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(formats.to_csv(table(rows)))
    shown = of_files([file])
    assert [row.as_dict() for row in shown.rows] == [row.as_dict() for row in rows]
    assert len(build(tmp_path / "site", shown)) == len(rows)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a,b\n1,2\n", b"", None], ids=["bytes", "columns", "empty", "gone"])
def test_a_file_of_something_else_is_one_clear_line(content, tmp_path):
    if content is not None:
        (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"rows\.csv") as refusal:
        of_files([tmp_path / "rows.csv"])
    assert "\n" not in str(refusal.value)
