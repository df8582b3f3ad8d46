"""Rows and results to store and to make tables of."""

import os
import signal

import pandas as pd
import pytest
from hypothesis import settings

from gibench.result import Result, Row

settings.register_profile("repeatable", deadline=None, derandomize=True)  # nor does a slow machine fail a test
settings.load_profile("repeatable")

ROW = {
    "cell": "0123456789abcdef",
    "attack": "spearpp:preset=ours,restarts=3",
    "defense": "dp:delta=1e-05,max_grad_norm=1.0",
    "dataset": "photos",
    "model": "mlp:depth=5,width=200",
    "train_steps": 0,
    "mode": "train",
    "model_accuracy": 0.1,
    "grad_norm": 1.5,
    "batch_size": 20,
    "labels": "iid",
    "duplicate_labels": 11,
    "knows": "batch_size,local_hyperparameters,prior",
    "split": "private",
    "threads": 2,
    "adaptive": False,
    "oracle": False,
    "control": False,
    "seed": 0,
    "device": "cpu",
    "hardware": "a processor (2 threads)",
    "workers": 1,
    "dtype": "float32",
    "status": "ok",
    "reason": None,
    "n_true": 20,
    "n_reconstructed": 20,
    "exact_rate": 0.95,
    "certified_rate": 0.9,
    "false_certificates": 0,
    "psnr_mean": 95.5,
    "psnr_median": 100.0,
    "psnr_q25": 100.0,
    "psnr_q75": 100.0,
    "ssim_mean": 0.97,
    "lpips_mean": 0.01,
    "mse_mean": 1e-9,
    "label_accuracy": None,
    "labels_found": None,
    "runtime_s": 1.25,
    "peak_memory_mb": 300.0,
    "epsilon": 4.2,
    "delta": 1e-5,
    "accountant": "analytic-gaussian",
    "sampling": "full batch",
    "utility_accuracy": None,
}


def pytest_configure():
    """One thread for each process, before anything imports torch.

    The workers of the tests share the cores already, and threads that wait for a core spin: two on a busy core take
    several times the processor time of one.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """Ctrl-C works, also where the tests run as a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _no_store_of_others():
    """Nothing goes to the store of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        environment.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        environment.delenv("GIBENCH_RESULTS", raising=False)
        yield


@pytest.fixture(scope="session")
def make_row():
    """A function that gives a result's row, with some columns changed."""

    def make(**changes):
        return Row(**(ROW | changes))

    return make


@pytest.fixture(scope="session")
def make_stored(make_row):
    """A function that gives a row as it is read back from a store."""

    def make(run_id="0" * 32, started="2026-01-01T00:00:00.000+00:00", **changes):
        return make_row(**changes, run_id=run_id, started=started)

    return make


@pytest.fixture(scope="session")
def make_result(make_row):
    """A function that gives a whole result, with some columns changed."""

    def make(**changes):
        return Result(
            make_row(**changes),
            pd.DataFrame({"truth": [0, 1], "mse": [0.0, 0.25], "exact": [True, False]}),
            b"\x89PNG",
            {"gap": 12.5, "rounds": 3, "stages": {"svd": 0.25, "lost": None}, "losses": [1.0, 0.5], "kind": "sphere"},
            {"versions": {"gibench": "0.1.0"}, "git_commit": None},
            {"data": 0.5, "attack": 1.25},
        )

    return make


@pytest.fixture(autouse=True)
def no_width(monkeypatch):
    """Tables are as wide as a test says, and not as the terminal is that the tests were started in."""
    monkeypatch.delenv("COLUMNS", raising=False)
