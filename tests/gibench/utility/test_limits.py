"""What a training run does costs its own row: one that runs on is stopped at its deadline, one that fails says why."""

from dataclasses import replace

import pytest

from gibench.errors import UsageError
from gibench.result import Row
from gibench.results import Results
from gibench.sweep.executors import Local, Processes
from gibench.sweep.suite import Suite
from gibench.utility.job import TrialRow
from gibench.utility.request import Utility
from gibench.utility.trial import OVERRAN

QUICK = {"model": "mlp:width=9,depth=1", "rounds": 3, "seed": 0, "device": "cpu", "threads": 1}
LONG = 100_000  # rounds, which take longer than any limit here
pytestmark = pytest.mark.usefixtures("plugins")


def trials(**options):
    return Utility.from_settings("utility", QUICK | options).jobs()


def run(jobs, executor):
    found = dict(executor.results(iter(list(enumerate(jobs))), TrialRow, lambda message, fraction=None: None))
    return [found[number].row for number in range(len(jobs))]


def lasting(row):
    return replace(row, round_s=None, workers=None)


def test_training_that_runs_on_is_stopped_at_its_deadline():
    (row,) = run(trials(rounds=LONG, timeout=0.2), Local())
    assert (row.status, row.reason, row.accuracy) == ("timeout", OVERRAN, None)
    assert (row.rounds, row.utility) == (LONG, trials(rounds=LONG)[0].key)  # the limit is no part of the key


def test_training_that_no_signal_reaches_is_ended_with_its_process(monkeypatch):
    """Its model swallows what stops it; the next run has a process of its own, and the bits of one before."""
    (job,) = trials()
    monkeypatch.setattr("gibench.sweep.pair.PATIENCE", 0.0)
    (blocked,) = trials(model="hostile:what=swallow", timeout=2.0)
    before, row, after = run([job, blocked, job], Processes())  # the first one has loaded the data
    assert row.status == "timeout"
    assert row.reason == "running it: it ran on past its deadline and was ended: raise --timeout"
    assert lasting(after) == lasting(before)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"defense": "raises"}, "ValueError: no luck today"),
        ({"model": "hostile:what=own"}, "Own: neither an exception nor an exit"),
    ],
)
def test_training_that_fails_is_a_row_and_the_next_goes_on(options, reason):
    *_, failing = trials(**options)
    (job,) = trials()
    row, after = run([failing, job], Local())
    assert (row.status, row.reason, row.accuracy) == ("failed", reason, None)
    assert (after.status, after.reason) == ("ok", None)


def test_ctrl_c_is_no_row():
    with pytest.raises(KeyboardInterrupt):
        run(trials(model="hostile:what=interrupt"), Local())


@pytest.mark.usefixtures("workplace")
def test_a_run_that_timed_out_is_told_and_left_to_a_later_call(call):
    command = ("utility", "--model", QUICK["model"], "--rounds", LONG, "--seed", "0", "--timeout", "0.2")
    code, out, err = call(*command)
    assert code == 1
    assert "timeout" in out
    (row,) = Results().rows(TrialRow)
    assert (row.status, row.reason) == ("timeout", OVERRAN)
    code, _, err = call(*command, "--retry", "failed")
    assert (code, "stored before" in err) == (1, True)
    call(*command, "--retry", "timeout")
    (again,) = Results().rows(TrialRow)
    assert again.run_id != row.run_id
    assert Results().rows(Row) == []


@pytest.mark.parametrize("timeout", [0, -1, 1e9, float("nan")])
def test_a_limit_that_makes_no_sense_is_refused(timeout):
    with pytest.raises(UsageError, match=r"timeout=.* is refused"):
        trials(timeout=timeout)


def test_the_training_runs_of_a_suite_have_its_limit():
    suite = Suite.from_settings("suite", {"attack": "random", "utility": "digits", "timeout": 7.0, "device": "cpu"})
    (request,) = Utility.of_suite(suite, suite.cells())
    assert {job.timeout for job in request.jobs()} == {7.0}
