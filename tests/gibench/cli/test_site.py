"""`gibench site` writes pages of what is stored, and runs nothing."""

from gibench.results import Results


def test_it_writes_what_is_stored(call, workplace, make_result):
    Results(workplace / "results", create=True).save(make_result(attack="mean-image"))
    code, out, err = call("site", "pages", "--results", "results")
    assert (code, out, err) == (0, "", "pages/index.html: 1 cells\n")
    assert "1 cells of the experiment gibench, run 20" in (workplace / "pages" / "index.html").read_text()
    assert len(list((workplace / "pages" / "rows").glob("*.html"))) == 1


def test_rows_that_only_mlflow_has_bring_their_files_too(call, uri, record, make_result, workplace):
    record(uri, make_result(attack="mean-image"))
    code, _, _ = call("site", "pages", "--tracking-uri", uri)
    assert code == 0
    (page,) = (workplace / "pages" / "rows").glob("*.html")
    assert "Scores of each image" in page.read_text()
    assert page.with_suffix(".png").read_bytes() == b"\x89PNG"


def test_exported_rows_are_shown_where_nothing_is_stored(call, uri, record, make_result, workplace):
    record(uri, make_result(attack="mean-image"))
    call("leaderboard", "--tracking-uri", uri, "--format", "csv", "--output", "rows.csv")
    (workplace / "gibench.db").unlink()
    code, _, err = call("site", "pages", "--from", "rows.csv")
    assert (code, err) == (0, "pages/index.html: 1 cells\n")
    assert "1 cells of rows.csv" in (workplace / "pages" / "index.html").read_text()


def test_where_nothing_is_stored_nothing_is_written(call, workplace):
    code, _, err = call("site", "pages", "--experiment", "none")
    assert code == 2
    assert err.startswith("error: ")
    assert not (workplace / "pages").exists()


def test_wrong_requests_are_one_clear_line(call, workplace, make_result):
    Results("gibench-results", create=True).save(make_result())
    assert call("site", "pages", "--from", "rows.csv", "--experiment", "other") == (
        2,
        "",
        "error: --from is instead of what is stored: leave out --results, --tracking-uri and --experiment\n",
    )
    code, _, err = call("site", ".")
    assert code == 2
    assert "which is no part of a site of gibench" in err
    assert err.count("\n") == 1
