"""`gibench merge` puts results folders together, and `gibench sync` delivers them once."""

import json

import pytest

from gibench.result import Row
from gibench.results import Results
from gibench.tracking import Store

pytestmark = pytest.mark.usefixtures("workplace")


def test_the_shards_of_a_job_array_become_one_and_are_delivered_once(call, workplace, make_result):
    rows = []
    for shard in range(2):
        results = Results(workplace / f"shard-{shard}", create=True)
        grid = results.grids.open(f"shard {shard}", {"attack": "random"})
        rows += [results.save(make_result(cell=f"{2 * n + shard:016x}", seed=n), grid) for n in range(2)]
        results.grids.close(grid)
    call("sync", "--results", "shard-0")  # one has been delivered before
    assert call("merge", "shard-0", "shard-1") == (0, "", "4 cells merged, 0 kept as they are here\n")
    assert json.loads(call("leaderboard", "--json").out) == [row.as_dict() for row in rows]
    assert call("sync") == (0, "", "2 rows delivered to sqlite:///gibench.db\n")
    store = Store(Row)
    assert sorted(row.cell for row in store.rows()) == sorted(row.cell for row in rows)
    assert call("merge", "shard-0", "shard-1").err == "0 cells merged, 4 kept as they are here\n"


def test_a_damaged_cell_is_named_and_the_others_are_merged(call, workplace, make_result):
    results = Results(workplace / "other", create=True)
    row, damaged = (results.save(make_result(cell=f"{n:016x}")) for n in range(2))
    (results.folder / damaged.cell / "result.json").write_text("{")
    code, _, err = call("merge", "other")
    assert code == 0
    assert f"warning: other/gibench/{damaged.cell} is damaged and left out" in err
    assert Results().rows(Row) == [row]


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("nowhere", "there is no folder nowhere: give results folders"),
        (".", "holds no results: give the folder that --results names"),
        ("gibench-results", "is the folder that is merged into: give others"),
    ],
)
def test_what_cannot_be_merged_is_one_clear_line(call, make_result, folder, complaint):
    Results(create=True).save(make_result())
    code, out, err = call("merge", folder)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert complaint in err


def test_there_is_nothing_to_sync_without_results(call, workplace):
    code, _, err = call("sync")
    assert code == 2
    assert err.startswith(f"error: there is no results folder {workplace}/gibench-results yet: run something first")
