"""The same table as CSV, strict JSON, Markdown and for a terminal."""

import csv
import io
import json
import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gibench.leaderboard.formats import to_csv, to_json, to_markdown
from gibench.leaderboard.sections import of_summary
from gibench.leaderboard.table import summarize, table
from gibench.leaderboard.terminal import to_terminal
from gibench.result import COLUMNS

NAMES = [*COLUMNS, "run_id", "started"]


def printed(summary):
    console = Console(width=200, file=io.StringIO())
    console.print(to_terminal(of_summary(summary)))
    return console.file.getvalue()


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@settings(max_examples=50, deadline=None)
@given(
    number=st.none() | st.floats(),
    count=st.none() | st.integers(0, 10**6),
    flag=st.none() | st.booleans(),
    text=st.none() | st.text(max_size=10),
)
def test_json_is_strict_and_holds_the_rows(make_stored, number, count, flag, text):
    row = make_stored(psnr_mean=number, n_true=count, adaptive=flag, reason=text)
    (read,) = json.loads(to_json(table([row])), parse_constant=refuse)
    finite = number is not None and abs(number) < float("inf")
    assert read == row.as_dict() | {"psnr_mean": number if finite else None}
    assert list(read) == NAMES
    assert type(read["n_true"]) is type(count)


def test_json_of_no_rows_is_an_empty_array():
    assert json.loads(to_json(table([]))) == []


def test_csv_holds_the_columns_and_empty_fields_for_null(make_stored):
    row = make_stored(reason='a "quoted", long\nreason', oracle=True)
    (read,) = csv.DictReader(io.StringIO(to_csv(table([row]))))
    assert list(read) == NAMES
    assert read["reason"] == row.reason
    assert (read["adaptive"], read["oracle"], read["label_accuracy"]) == ("false", "true", "")
    assert (int(read["seed"]), float(read["mse_mean"])) == (0, 1e-9)


def test_csv_of_no_rows_is_the_header():
    assert to_csv(table([])).split(",")[0] == "cell"


def test_the_summary_can_be_exported_too(make_stored):
    (line,) = json.loads(to_json(summarize([make_stored()])), parse_constant=refuse)
    assert (line["rank"], line["n_ok"], line["n_tried"], line["reason"]) == (1, 1, 1, None)


def test_markdown_has_a_section_for_each_threat_model(make_stored):
    rows = [make_stored(), make_stored(attack="random", psnr_median=8.0, exact_rate=0.95), make_stored(knows="nothing")]
    text = to_markdown(summarize(rows))
    headings = [line for line in text.splitlines() if line.startswith("### ")]
    assert len(headings) == 2
    assert "server knows batch_size,local_hyperparameters,prior" in headings[0]
    assert "server knows nothing" in headings[1]
    assert "`photos`; `mlp:depth=5,width=200` untrained (accuracy 0.10); batch 20 iid" in headings[0]
    assert (
        "| `dp:delta=1e-05,max_grad_norm=1.0` | `random` | 2 | 1 / 1 | 0.950 | 8.00 | 0.970 | 0.010 | 0.900 "
        "| 0 of 18 | 1.250 | 4.2, 1e-05 |"
    ) in text


def test_another_split_than_the_private_one_is_named(make_stored):
    assert "### `photos`, tuning split; " in to_markdown(summarize([make_stored(split="tuning")]))


def test_a_promise_has_its_delta_its_run_and_its_mechanism_beside_it(make_stored):
    row = make_stored(run_epsilon=31.5, run_steps=300, noise_multiplier=0.25, max_grad_norm=2.0)
    text = to_markdown(summarize([row]))
    assert "| clip norm, noise | epsilon, delta | of the run; steps |" in text
    assert "| 2, 0.25 | 4.2, 1e-05 | 31.5, 1e-05; 300 |" in text
    assert "of the run" not in to_markdown(summarize([make_stored()]))


def test_a_budget_is_shown_where_there_is_one(make_stored):
    assert "| 300 iterations |" in to_markdown(summarize([make_stored(budget="300 iterations")]))
    assert "budget" not in to_markdown(summarize([make_stored()]))


def test_an_interval_stands_beside_what_several_cells_gave(make_stored):
    rows = [make_stored(seed=seed, exact_rate=rate, psnr_median=40.0) for seed, rate in enumerate((0.0, 0.5, 1.0))]
    assert "| 0.500 [0.000, 1.000] | 40.00 [40.00, 40.00] |" in to_markdown(summarize(rows))


@pytest.mark.parametrize("form", [to_markdown, printed])
def test_what_is_not_above_the_controls_says_so(make_stored, form):
    rows = [make_stored(attack="mean-image", control=True), make_stored(psnr_median=99.0)]
    text = form(summarize(rows))
    assert "1, not above the control" in text
    assert "no control was run" not in text
    assert "no control was run against dp:delta=1e-05,max_grad_norm=1.0" in form(summarize(rows[1:])).replace("`", "")


def test_markdown_cells_cannot_break_the_table(make_stored):
    text = to_markdown(summarize([make_stored(defense="folder:path='a|b'")]))
    (line,) = [line for line in text.splitlines() if "folder" in line and line.startswith("|")]
    assert r"a\|b" in line


@pytest.mark.parametrize("form", [to_markdown, printed])
def test_what_is_not_ok_is_named_below_the_table(make_stored, form):
    rows = [make_stored(), make_stored(seed=1, status="failed", reason="NaN in the gradient")]
    text = form(summarize(rows))
    assert "1 / 2" in text
    assert "against dp:delta=1e-05,max_grad_norm=1.0: failed: NaN in the gradient (seed 1)" in text.replace("`", "")


def test_seconds_name_their_hardware(make_stored):
    one, two = make_stored(attack="one"), make_stored(attack="two", hardware="a faster one")
    assert "seconds of the attack alone on a processor (2 threads)" in to_markdown(summarize([one]))
    both = to_markdown(summarize([one, two]))
    assert "| epsilon, delta | hardware |" in both
    assert "| 4.2, 1e-05 | a faster one |" in both
    assert "seconds of the attack" not in both


def test_what_was_skipped_altogether_says_so_in_its_line(make_stored):
    assert "| not run | 0 / 0 | - |" in to_markdown(summarize([make_stored(status="skipped", psnr_mean=None)]))


def test_the_terminal_shows_brackets_as_they_are(make_stored):
    assert "a [bold]value" in printed(summarize([make_stored(defense="noise:path='a [bold]value'")]))


def test_adaptive_and_oracle_attacks_are_marked(make_stored):
    rows = [make_stored(attack="one", adaptive=True), make_stored(attack="two", oracle=True)]
    text = to_markdown(summarize(rows))
    assert "| `one` (adaptive) | 1 |" in text
    assert "| `two` (oracle) | oracle |" in text


def test_specs_can_be_shortened(make_stored):
    text = to_markdown(summarize([make_stored()]), lambda kind, spec: f"{kind} {spec.partition(':')[0]}")
    assert "| `defense dp` | `attack spearpp` |" in text


def test_no_rows_are_said_to_be_none():
    assert to_markdown(summarize([])) == "No stored rows.\n"
    assert printed(summarize([])).strip() == "no stored rows"


def test_formatting_leaves_the_table_alone(make_stored):
    found = table([make_stored()])
    before = found.copy(deep=True)
    for form in (to_csv, to_json):
        form(found)
    pd.testing.assert_frame_equal(found, before)


def test_a_control_certifies_nothing(make_stored):
    text = to_markdown(summarize([make_stored(attack="wrong-gradient", control=True, false_certificates=20)]))
    assert "| 0.010 | - | - | 1.250 |" in text


def test_no_defense_comes_first(make_stored):
    rows = [make_stored(defense=defense) for defense in ("clip", "none", "dp")]
    assert summarize(rows)["defense"].tolist() == ["none", "clip", "dp"]


@pytest.mark.parametrize("form", [to_markdown, printed])
def test_rows_of_two_versions_of_torch_carry_a_warning(make_stored, form):
    rows = [make_stored(torch="2.9"), make_stored(seed=1, torch="2.10"), make_stored(seed=2)]
    assert "rows of torch 2.9 and 2.10 stand side by side here" in form(summarize(rows))
    assert "rows of torch" not in form(summarize([rows[0], rows[2]]))


HOSTILE = "<script>[a](http://b.c) `x` **y** |z| \x1b[2J\u202e"


def test_whatever_a_row_says_is_shown_as_letters(make_stored):
    rows = [
        make_stored(attack=f"evil:a='{HOSTILE}'", dataset=f"folder:path='{HOSTILE}'", model=f"mlp:a='{HOSTILE}'",
                    defense=f"evil:b='{HOSTILE}'", status="failed", reason=HOSTILE, budget=HOSTILE, hardware=HOSTILE),
        make_stored(dataset=f"folder:path='{HOSTILE}'", model=f"mlp:a='{HOSTILE}'", hardware="another"),
    ]  # fmt: skip
    text = to_markdown(summarize(rows))
    bare = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)  # what is outside of code spans
    assert "script" in text
    assert not any(part in bare for part in ("<", "http", "**", "x1b", "script"))
    assert text.replace("\n", "").isprintable()
    assert printed(summarize(rows)).replace("\n", "").isprintable()
    columns = [line.count("|") - line.count(r"\|") for line in text.splitlines() if line.startswith("|")]
    assert len(set(columns)) == 1
