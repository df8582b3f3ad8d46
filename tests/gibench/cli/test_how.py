"""What the options say of how cells are run, down to the rows and the exit code."""

import json
import sys

import pytest

from gibench.result import Row
from gibench.results import Results
from gibench.sweep.how import How
from gibench.sweep.run import prepare
from gibench.sweep.suite import Suite

SMALL = ("--dataset", "digits", "--model", "linear", "--batch-size", "2", "--device", "cpu")
pytestmark = pytest.mark.usefixtures("plugins", "workplace")


def attacks(*names):
    return [part for name in names for part in ("--attack", name)]


def rows_of(out):
    return {row["attack"].removeprefix("hostile:what="): row for row in json.loads(out)}


def test_an_attack_that_ends_its_process_or_takes_too_much_memory_is_a_row_and_exit_code_1(call, monkeypatch):
    """In processes of their own, as many as there are cores; each cell has one thread then."""
    monkeypatch.setattr("gibench.sweep.how._cores", lambda: 2)
    names = ("hostile:what=exit", "hostile:what=exhaust", "random")
    how = ("--executor", "process", "--jobs", "auto", "--memory", "4")
    code, out, _ = call("run", *attacks(*names), *SMALL, *how, "--json")
    rows = rows_of(out)
    assert code == 1
    assert [(name, row["status"]) for name, row in rows.items()] == [
        ("exit", "failed"),
        ("exhaust", "failed"),
        ("random", "ok"),
    ]
    assert rows["exit"]["reason"] == (
        "the attack did not return: its process ended with exit code 0 in place of a result"
    )
    assert rows["exhaust"]["reason"].startswith("MemoryError")
    assert {(row["threads"], row["workers"]) for row in rows.values()} == {(1, 2)}
    assert sorted(row.cell for row in Results().rows(Row)) == sorted(row["cell"] for row in rows.values())


@pytest.mark.parametrize(
    ("jobs", "given", "threads", "count"),
    [
        ("auto", "auto", 1, 6),
        ("auto", 3, 3, 2),
        ("auto", 8, 8, 1),
        ("2", "auto", 3, 2),
        ("4", "auto", 1, 4),
        ("9", "auto", 1, 9),
        ("2", 6, 6, 2),
    ],
)
def test_cells_at_a_time_share_the_cores(monkeypatch, jobs, given, threads, count):
    monkeypatch.setattr("gibench.sweep.how._cores", lambda: 6)
    how = How(jobs=jobs)
    with how.sharing_threads():
        cells = prepare(
            [Suite.from_settings("suite", {"attack": "random", "device": "cpu", "threads": given})], plan=True
        )
    assert {cell.threads for cell in cells} == {threads}
    assert vars(how.executor(cells))["_count"] == count


@pytest.mark.parametrize(
    ("retry", "again"),
    [("failed", {"raises"}), ("timeout", {"returns-late"}), ("none", set()), ("all", {"raises", "returns-late"})],
)
def test_what_is_run_again_can_be_chosen(call, make_result, retry, again):
    """The rows of the call before are made up, as if each had ended in its way."""
    command = ("run", *attacks("raises", "returns-late", "random"), *SMALL, "--timeout", "0.05", "--json")
    cells = json.loads(call(*command, "--dry-run").out)
    before = {}
    for cell, status in zip(cells, ("failed", "timeout", "ok"), strict=True):
        row = Results(create=True).save(make_result(cell=cell["cell"], attack=cell["attack"], status=status))
        before[cell["attack"]] = row.run_id
    code, out, err = call(*command, "--retry", retry)
    rows = rows_of(out)
    assert code == 1
    assert {name for name, row in rows.items() if row["run_id"] != before[name]} == again
    assert err.count("stored before") == 3 - len(again)
    assert rows["raises"]["status"] == "failed"


def test_without_ray_its_executor_is_a_wrong_request_and_no_cell_is_left_claimed(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ("run", *attacks("random"), *SMALL)
    code, out, err = call(*command, "--executor", "ray")
    assert (code, out) == (2, "")
    assert "error: Ray is not installed: pip install 'gibench[ray]', or use --executor process" in err
    assert Results().rows(Row) == []
    assert call(*command).code == 0  # it can be had at once


@pytest.mark.slow
def test_the_cells_of_a_cluster_are_those_of_this_machine(call, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed here")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers wait for whatever else a machine does
    command = ("run", *attacks("random", "mean-image"), *SMALL, "--threads", "1", "--json")
    code, out, _ = call(*command, "--executor", "ray")
    assert code == 0
    here = rows_of(call(*command, "--force").out)
    measured = {"runtime_s", "peak_memory_mb", "workers", "run_id", "started"}
    for name, row in rows_of(out).items():
        assert {key for key in row if row[key] != here[name][key]} <= measured
