"""The folder of a site: whole at any moment, without pages of rows that are gone, and never somebody else's."""

import os
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gibench.errors import UsageError
from gibench.leaderboard.site import build
from gibench.leaderboard.site.place import MARKER
from gibench.leaderboard.site.rows import Beside, Shown
from gibench.results.folder import Results
from tests.leaderboard.markup import Page


@pytest.fixture
def rows(make_stored):
    return [make_stored(f"{seed:032x}", seed=seed) for seed in range(3)]


def content(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_same_rows_make_the_same_bytes_in_whatever_order_they_come(rows, tmp_path):
    build(tmp_path / "one", Shown(rows, "rows"))
    build(tmp_path / "two", Shown(rows[::-1], "rows"))
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_site_over_another_is_as_one_in_a_new_folder(rows, tmp_path):
    build(tmp_path / "old", Shown(rows, "rows", lambda row: Beside(b"a picture", None, {})))
    assert any(name.endswith(".png") for name in content(tmp_path / "old"))
    changed = [rows[0], replace(rows[1], run_id="f" * 32, psnr_mean=1.0)]
    for folder in ("old", "new"):
        build(tmp_path / folder, Shown(changed, "rows"))
    assert content(tmp_path / "old") == content(tmp_path / "new")


def test_whenever_it_is_ended_the_index_has_all_its_pages(rows, tmp_path, monkeypatch):
    """Every write in turn is the one that does not come."""
    rename, ended = os.replace, 0
    before = Shown(rows[:2], "rows")
    after = Shown([rows[1], rows[2], replace(rows[0], run_id="f" * 32)], "rows")
    build(tmp_path / "site", before)
    old = content(tmp_path / "site")

    for last in range(100):
        left = iter(range(last))

        def end(source, target, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            rename(source, target)

        monkeypatch.setattr(os, "replace", end)
        try:
            build(tmp_path / "site", after)
        except KeyboardInterrupt:
            ended += 1
            found = content(tmp_path / "site")
            assert found["index.html"] == old["index.html"]
            linked = {each for each in Page(found["index.html"]).addresses() if each.startswith("rows/")}
            assert {name: found[name] for name in linked} == {name: old[name] for name in linked}
        else:
            break
    monkeypatch.undo()
    assert ended > len(after.rows)
    build(tmp_path / "whole", after)
    assert content(tmp_path / "site") == content(tmp_path / "whole")  # what was begun is cleared away, too


@pytest.mark.parametrize(
    "other", ["notes.txt", "index.html", "rows/notes.txt", ".git/config", "rows/0123456789abcdef.txt", "map.html/x"]
)
@pytest.mark.parametrize("is_site", [True, False], ids=["site", "no site"])
def test_a_folder_with_something_else_is_refused_and_stays_as_it_is(other, is_site, rows, tmp_path):
    folder = tmp_path / "folder"
    if is_site and other != "index.html":
        build(folder, Shown(rows, "rows"))
    if other == "map.html/x":
        (folder / "map.html").unlink(missing_ok=True)
    (folder / other).parent.mkdir(parents=True, exist_ok=True)
    (folder / other).write_text("mine")
    before = content(folder)
    with pytest.raises(UsageError, match=r"is no part of a site of gibench: name a folder that is new, empty or such"):
        build(folder, Shown(rows[:1], "rows"))
    assert content(folder) == before


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=40))
def test_only_the_names_of_a_site_are_taken_for_its_own(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    if name in (".", ".."):
        return
    (folder / MARKER).touch()
    (folder / name).write_text("mine")
    ours = re.fullmatch(
        r"(index|map|curves)\.html|style\.css|script\.js|\.[0-9a-f]{32}\.new|" + re.escape(MARKER), name
    )
    if not ours:
        with pytest.raises(UsageError):
            build(folder, Shown([], "rows"))
        assert (folder / name).read_text() == "mine"


def test_nothing_is_written_through_a_link(rows, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0123456789abcdef.html").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / MARKER).touch()
    (tmp_path / "folder" / "rows").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="rows"):
        build(tmp_path / "folder", Shown(rows, "rows"))
    assert len(content(tmp_path / "elsewhere")) == 1


def test_an_empty_folder_and_one_that_is_new_are_taken(rows, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "one"):
        build(folder, Shown(rows, "rows"))
        assert (folder / "index.html").is_file()


def test_a_file_in_its_place_is_one_clear_line(rows, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file cannot be written: .*: name another folder"):
        build(tmp_path / "file", Shown(rows, "rows"))


def test_a_site_of_no_rows_says_so(tmp_path):
    build(tmp_path / "site", Shown([], "nothing"))
    page = Page((tmp_path / "site" / "index.html").read_bytes())
    assert "No stored rows." in page.text
    assert page.faults == []


@pytest.mark.parametrize("inside", [".", "site", "gibench/site"])
def test_no_site_is_written_among_results(rows, tmp_path, monkeypatch, inside):
    results = Results(tmp_path / "stored", create=True)
    with pytest.raises(UsageError, match=r"is within the results folder .*stored: name a folder beside it"):
        build(results.root / inside, Shown(rows, "rows"))
    monkeypatch.setenv("GIBENCH_RESULTS", str(tmp_path / "empty"))  # where none are yet
    with pytest.raises(UsageError, match=r"is within the results folder .*empty"):
        build(tmp_path / "empty" / inside, Shown(rows, "rows"))
    assert not list(tmp_path.rglob("index.html"))
