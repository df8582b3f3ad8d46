"""Whatever an attack reports, its cell gives one row that can be stored and shown."""

import json

import pytest

from gibench.jsonable import jsonable
from gibench.result import Row
from gibench.results import Results
from gibench.stored import Stored
from gibench.sweep.executors import Processes
from gibench.sweep.run import prepare, run_jobs
from gibench.sweep.suite import Suite
from tests.gibench.sweep.test_kills import Silent

SMALL = ("--model", "mlp:width=20,depth=2", "--batch-size", "4", "--device", "cpu")
VALUES = (
    *("circular", "deep", "large", "endless", "endless-list", "broken", "evil", "no-text", "exits", "no-text-key"),
    *("surrogate", "keys", "wide", "text", "float", "tensor", "meta", "escapes", "nan", "liar", "numb"),
)
FEW = ("circular", "large", "no-text", "exits", "keys", "tensor", "nan", "liar", "numb")
MAPPINGS = ("circular", "endless", "broken", "evil", "no-text-key", "surrogate", "keys")


def assert_storable(result):
    text = json.dumps(
        {"row": result.row.as_dict(), "diagnostics": result.diagnostics, "provenance": result.provenance},
        allow_nan=False,
        ensure_ascii=False,
    )
    assert len(text.encode()) < 3_000_000  # strict UTF-8, bounded
    assert "\0" not in text


@pytest.mark.parametrize("what", VALUES)
def test_diagnostics_of_any_kind_leave_a_row(run_one, what):
    result = run_one(f"reports:what={what}")
    assert result.row.status == "ok"
    assert (result.diagnostics["before"], list(result.diagnostics)) == (1.0, ["before", "value"])
    assert_storable(result)


@pytest.mark.parametrize("what", MAPPINGS)
def test_diagnostics_stay_a_mapping(run_one, what):
    result = run_one(f"reports:what={what},where=diagnostics")
    assert result.row.status == "ok"
    assert isinstance(result.diagnostics, dict)
    assert_storable(result)


@pytest.mark.parametrize("where", ["reason", "supports", "error"])
@pytest.mark.parametrize("what", VALUES)
def test_a_reason_of_any_kind_is_one_line(run_one, what, where):
    result = run_one(f"reports:what={what},where={where}")
    text = {"reason": "diverged", "supports": "skipped"} if what == "escapes" else {}  # the others are none
    assert result.row.status == text.get(where, "failed")
    assert len(result.row.reason or "") < 12_000
    assert "\n" not in (result.row.reason or "")
    assert_storable(result)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("whats", [FEW, pytest.param([*set(VALUES) - set(FEW)], marks=pytest.mark.slow)])
def test_what_is_reported_comes_through_a_worker_is_kept_and_outlives_a_resume(tmp_path, whats):
    """As it was reported in this process; nothing of it is run again."""
    asked = {"attack": [f"reports:what={what}" for what in sorted(whats)], "model": "linear", "batch_size": 2}
    grid = Suite.from_settings("suite", asked | {"dataset": "digits", "device": "cpu", "threads": 1})
    jobs, results = prepare([grid]), Results(tmp_path / "results", create=True)
    listener = Silent()
    first = run_jobs(jobs, results, grid, listener, Processes())
    assert ([row.status for row in first], listener.begun) == (["ok"] * len(jobs), len(jobs))
    again = Results(results.root, create=True)
    assert run_jobs(jobs, again, grid, listener, Processes()) == first
    assert listener.begun == len(jobs)
    for job in jobs:
        here = job.run(listener.working)
        # Between processes sizes are bounded once more, which says anew how much is left out of a cut text.
        assert again.document(job.key)["diagnostics"] == jsonable(here.diagnostics)
        assert here.diagnostics["before"] == 1.0


@pytest.mark.usefixtures("plugins", "workplace")
def test_what_is_reported_is_stored_and_shown_without_what_a_terminal_obeys(call):
    attacks = ("escapes,where=error", "escapes,where=reason", "keys", "surrogate,where=diagnostics", "circular")
    options = [part for what in attacks for part in ("--attack", f"reports:what={what}")]
    code, out, err = call("run", *options, *SMALL)
    rows = Stored().rows(Row)
    assert (code, len(rows)) == (1, len(attacks))
    shown = [call("show", row.run_id) for row in rows]
    tables = [call("leaderboard", "--format", form) for form in ("table", "md")]
    for text in (out, err, *(each.out for each in (*shown, *tables))):
        assert not [letter for letter in text if not letter.isprintable() and letter != "\n"]
    assert "`diverged: \\x1b[2J\\x07\\u202e<script>[a](b) (seed 0)`" in tables[1].out


@pytest.mark.usefixtures("plugins", "workplace")
def test_however_much_is_reported_nothing_else_of_the_row_is_cut_short(call):
    (row,) = json.loads(call("run", "--attack", "reports:what=keys,where=diagnostics", *SMALL, "--json").out)
    (shown,) = json.loads(call("show", row["run_id"], "--json").out)
    assert len(shown["diagnostics"]) > 500
    assert {"data", "attack", "scoring"} <= set(shown["seconds"])
    assert shown["provenance"]["versions"]["gibench-misbehaving"] == "1.2.3"
