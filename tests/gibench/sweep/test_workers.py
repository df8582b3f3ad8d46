"""What jobs do to the processes they run in costs their own row, and changes no other."""

import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

from gibench import fingerprint, seeds, stages
from gibench.errors import GibenchError
from gibench.exchange import receive_file
from gibench.result import Row
from gibench.sweep.executors import Local, Processes
from gibench.sweep.how import How
from gibench.sweep.pair import Pair
from gibench.sweep.suite import Suite
from gibench.sweep.workers import WorkerError

SMALL = {"dataset": "digits", "model": "mlp:width=20,depth=2", "batch_size": 4, "device": "cpu", "threads": 1}
HONEST = ("random", "mean-image", "global-rng", "dlg:max_iterations=3")
MEMORY = 4 * 10**9  # bytes, which honest cells are far from

ENDED = {  # what the row says of an attack that ends its process
    "exit": "the attack did not return: its process ended with exit code 0 in place of a result",
    "crash": "the attack did not return: its process was ended by SIGSEGV",
    "abort": "the attack did not return: its process was ended by SIGABRT",
    "kill-group": "the attack did not return: its process was ended by SIGKILL, perhaps for lack of memory",
    "closed": "the attack did not return: its process ended with exit code 1 in place of a result",
    "written": "the attack did not return: its process sent what is no answer, or closed the line, and was ended",
    "own": "Own: neither an exception nor an exit",
    "not-applicable": "this is a failure, whatever it says",
    "interrupt": "KeyboardInterrupt: ",
    "unspeakable": "Unspeakable: Unspeakable without a text (RuntimeError)",
    "exhaust": "MemoryError: ",
    "complex": "the attack returned images of torch.complex64 where floats in [0, 1] are due",
    "claims-numbers": "the attack returned certified of torch.float32 where booleans are due",
}
CHANGED = {  # what is found to be left by an attack that returns
    "device": "default device",
    "denormal": "flushing of tiny numbers",
    "folder": "working folder",
    "environment": "environment",
    "umask": "umask",
    "signals": "signal handlers",
    "patch": "torch.Tensor",
    "patch-gibench": "gibench.attack",
    "streams": "streams",
    "few-files": "limits",
    "little-memory": "limits",
    "thread": "Python threads",
    "timeout": "socket timeout",
    "process": "processes",
}
RESET = ("dtype", "grad", "threads", "deterministic", "random", "million", "bar")  # leave nothing behind
FEW = ("exit", "closed", "own", "not-applicable", "complex", "device", "patch", "few-files", "dtype", "bar", "fork")
pytestmark = pytest.mark.usefixtures("plugins")


def cells(*attacks, **options):
    return Suite.from_settings("suite", {"attack": list(attacks)} | SMALL | options).cells()


def run(jobs, executor):
    """The results of jobs, in their order."""
    found = dict(executor.results(iter(list(enumerate(jobs))), Row, lambda message, fraction=None: None))
    return [found[number] for number in range(len(jobs))]


def lasting(result):
    """What must be the same whatever else runs."""
    row = replace(result.row, runtime_s=None, peak_memory_mb=None, workers=None)
    return row, result.images.to_csv(), result.grid_png, dict(result.diagnostics)


def hostile(what):
    return f"hostile:what={what}"


@pytest.fixture(scope="module")
def honest(plugin_site):
    """Honest cells and their results without any others, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin_site))
        jobs = cells(*HONEST)
        return jobs, [lasting(each) for each in run(jobs, Local())]


def among(jobs, others):
    """The others, an honest job after each and all of them at the end."""
    mixed = [job for number, other in enumerate(others) for job in (other, jobs[number % len(jobs)])]
    return [*mixed, *jobs]


def check_attacks(honest, whats):
    jobs, expected = honest
    mixed = among(jobs, cells(*map(hostile, whats)))
    found = run(mixed, Processes(1, MEMORY))
    for number, (job, result) in enumerate(zip(mixed, found, strict=True)):
        if job in jobs:
            assert lasting(result) == expected[jobs.index(job)], mixed[number - 1].attack
            assert "left_changed" not in result.provenance
    for what, result in zip(whats, found[::2], strict=False):
        row, changes = result.row, result.provenance.get("left_changed", [])
        if what in ENDED:
            assert (row.status, row.n_reconstructed, row.exact_rate) == ("failed", 0, 0.0), what
            assert row.reason.startswith(ENDED[what].strip()), what
            assert row.mse_mean > 0  # it is scored as grey
        else:
            assert (row.status, row.reason) == ("ok", None), what
            assert CHANGED.get(what, "") in ["", *changes], what
            assert what not in RESET or changes == [], what


def test_what_a_few_attacks_do_costs_their_own_row_and_changes_no_other(honest):
    check_attacks(honest, FEW)


@pytest.mark.slow
def test_whatever_an_attack_does_costs_its_own_row_and_changes_no_other(honest):
    check_attacks(honest, [*ENDED, *CHANGED, *RESET, "fork"])


@pytest.mark.slow
def test_whatever_a_model_does_costs_its_own_row_and_changes_no_other(honest):
    jobs, expected = honest
    ends = ("exit", "crash", "own", "exhaust", "closed")
    leaves = ("dtype", "threads", "patch", "signals", "few-files")
    mixed = among(jobs, [cell for what in (*ends, *leaves) for cell in cells("mean-image", model=hostile(what))])
    found = run(mixed, Processes(1, MEMORY))
    assert all(
        lasting(result) == expected[jobs.index(job)] for job, result in zip(mixed, found, strict=True) if job in jobs
    )
    for what, result in zip((*ends, *leaves), found[::2], strict=False):
        if what in ends:
            assert (result.row.status, result.row.psnr_mean, result.row.runtime_s) == ("failed", None, None)
            assert ", before any attack: " in result.row.reason


@pytest.mark.slow
def test_a_wall_clock_ends_what_no_signal_reaches(honest, monkeypatch):
    jobs, expected = honest
    monkeypatch.setattr("gibench.sweep.pair.PATIENCE", 30.0)
    deaf = cells(hostile("swallow"), hostile("block"), timeout=1.0) + cells(
        "random", model=hostile("block"), timeout=1.0
    )
    found = run(among(jobs, deaf), Processes())
    assert [result.row.status for result in found[:6:2]] == ["timeout"] * 3
    assert [result.row.reason for result in found[:4:2]] == [stages.OVERRAN] * 2
    assert found[4].row.reason.startswith("preparing the cell, before any attack: it ran on past its deadline")
    assert [lasting(result) for result in found[6:]] == expected


@pytest.mark.slow
def test_who_starts_workers_imports_none_of_what_they_do(tmp_path):
    heavy = ["torch._dynamo", "pandas", "skimage", "scipy", "gibench.stages", "gibench.worker"]
    script = (
        f"import gibench.cli.grid, gibench.sweep.pair, sys; print([each for each in {heavy} if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[]\n"


def test_two_workers_give_the_bits_of_one_and_of_none(honest):
    jobs, expected = honest
    found = run(jobs, Processes(2))
    assert [lasting(result) for result in found] == expected
    assert {result.row.workers for result in found} == {2}


@pytest.mark.parametrize(
    ("visible", "count", "shared"),
    [
        ("GPU-a, GPU-b,GPU-gone", 2, ["GPU-a", "GPU-b"]),
        (None, 0, ["all"]),
        pytest.param(None, 2, ["0", "1"], marks=pytest.mark.slow),
        pytest.param("3", 1, ["3"], marks=pytest.mark.slow),
    ],
)
def test_each_pair_of_workers_is_shown_one_gpu_in_turn(monkeypatch, visible, count, shared):
    """The processes are real, the number of GPUs is not; `--jobs auto` takes one job for each."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    jobs = cells("tells-gpu", seed=[0, 1])
    if count:
        on_gpu = [replace(job, device="cuda") for job in jobs]
        assert vars(How(jobs="auto").executor(on_gpu))["_count"] == count
    found = run(jobs, Processes(2))
    assert sorted({result.diagnostics["gpus"] for result in found}) == shared


def test_more_workers_than_gpus_share_them_evenly(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    places = []
    monkeypatch.setattr("gibench.sweep.pair.Pair", lambda memory, gpu: places.append(gpu) or Pair(memory, gpu))
    run(cells("random"), Processes(5))
    assert places == ["0", "1", "0", "1", "0"]


def test_the_truth_is_not_in_the_process_that_attacks(plugins):
    searching = cells("searches", seed=[0, 123456789])
    local, apart = run(searching, Local()), run(searching, Processes())
    assert [result.row.exact_rate for result in local] == [1.0, 1.0]  # it finds what is there
    assert [result.row.exact_rate for result in apart] == [0.0, 0.0]
    assert all(result.diagnostics["cells"] > 0 for result in local)
    assert [result.diagnostics for result in apart] == [{"batches": 1, "cells": 0}] * 2


def test_what_an_attack_is_run_with_does_not_tell_the_seed_of_the_data():
    (cell,) = cells("random", seed=123456789)
    told = vars(stages.Task.of(cell)).values()
    assert seeds.derive(cell.seed, "attack") in told
    assert not {cell.seed, *(seeds.derive(cell.seed, role) for role in ("data", "model", "defense"))} & set(told)


def test_a_worker_is_ended_at_its_deadline_and_replaced(plugins):
    pair = Pair()
    try:
        worker = pair._attacking
        with pytest.raises(WorkerError, match="ran on past its deadline") as end:
            worker.ask(print, 0.1, "facts", "blocks-facts")
        assert end.value.overran
        head, _ = worker.ask(print, None, "facts", "random")
        assert head["control"] is True
        process = worker._process.pid
    finally:
        pair.quit()
    with pytest.raises(WorkerError, match="not started any more"):
        pair._trusted.ask(print, None, "facts", "random")
    assert is_gone(process)


def test_a_worker_that_ended_since_its_last_answer_is_replaced_and_no_job_pays_for_it():
    pair = Pair()
    try:
        worker = pair._attacking
        worker.ask(print, None, "facts", "random")
        process, pid = worker._process, worker._process.pid
        process.kill()
        process.join(600)  # its threads included: while one lives, its end of the line is open
        head, _ = worker.ask(print, None, "facts", "random")
        assert head["control"] is True
        assert worker._process.pid != pid
    finally:
        pair.quit()


def test_who_hangs_up_in_place_of_a_file_has_ended_and_who_sends_something_else_has_not():
    for sent, error in ((b"", EOFError), (b".", ValueError)):
        ours, theirs = multiprocessing.Pipe()
        with ours, theirs:
            os.write(theirs.fileno(), sent)
            theirs.close()
            with pytest.raises(error):
                receive_file(ours)


def is_gone(process):
    """Whether a process has ended, which it may be about to."""
    gone = threading.Event()
    for _ in range(600):
        try:
            with open(f"/proc/{process}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except OSError:
            return True
        gone.wait(0.1)
    return False


def test_a_scoring_that_cannot_be_trusted_ends_the_grid(plugins):
    pair = Pair()
    try:
        head = {"error": "LPIPS fails", "usage": False}
        pair._trusted._started()
        pair._trusted._head = lambda connection, progress: head
        with pytest.raises(GibenchError, match="LPIPS fails"):
            pair._trusted.ask(print, None, "facts", "random")
    finally:
        pair.quit()


def test_our_own_code_in_a_library_is_told_and_its_own_is_not(monkeypatch):
    monkeypatch.setattr(fingerprint, "_foreign", lambda: {__name__.partition(".")[0]})
    watched = fingerprint.Code()
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # puts code of torch's in place of torch's
    assert watched.changes() == []
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Linear, "forward", lambda self, inputs: inputs)
        patch.setattr(torch.nn.Parameter, "mean", lambda self: self, raising=False)
        assert sorted(watched.changes()) == ["torch.nn.modules.linear.Linear", "torch.nn.parameter.Parameter"]


def test_the_state_of_a_process_is_as_it_was_until_it_is_not(monkeypatch, tmp_path):
    state = fingerprint.State()
    assert state.changes() == []
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        mask = os.umask(0o123)
        try:
            assert state.changes() == ["working folder", "umask"]
        finally:
            os.umask(mask)
    assert state.changes() == []
