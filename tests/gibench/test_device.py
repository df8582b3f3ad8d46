"""Which device is chosen, what it is called, and what a piece of work took."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gibench import device
from gibench.errors import UsageError


def test_cpu_is_cpu_everywhere():
    assert device.choose("cpu") == torch.device("cpu")


def test_auto_takes_a_gpu_where_there_is_one():
    assert device.choose("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_where_there_is_none_is_refused_with_the_mend():
    with pytest.raises(UsageError, match="no CUDA device is available here: use --device cpu or auto"):
        device.choose("cuda")


def test_an_unknown_device_says_which_exist():
    with pytest.raises(UsageError, match="unknown device 'tpu': use auto, cpu or cuda"):
        device.choose("tpu")


def test_hardware_names_the_threads():
    assert device.hardware(torch.device("cpu")).endswith(f"({torch.get_num_threads()} threads)")


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux says it there")
def test_memory_is_the_machine_s():
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert device.memory_mb(torch.device("cpu")) == pytest.approx(int(total.split()[1]) / 1024, rel=0.1)


def test_memory_is_taken_for_endless_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.delattr("os.sysconf")
    assert device.memory_mb(torch.device("cpu")) == math.inf


@pytest.fixture
def ambient():
    """A function that sets torch's thread count, which is put back with the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def total():
    """A sum whose last bits depend on how it is split among threads."""
    return float(torch.randn(3_000_001, generator=torch.Generator().manual_seed(0)).sum())


def test_pinned_threads_give_the_same_bits_whatever_is_set_around_them(ambient):
    free, pinned = set(), set()
    for count in (1, 2, 3):
        ambient(count)
        free.add(total())
        with device.threads(2):
            pinned.add(total())
            assert device.hardware(torch.device("cpu")).endswith("(2 threads)")
        assert torch.get_num_threads() == count
    assert len(pinned) == 1
    assert len(free) > 1


def test_threads_are_put_back_after_an_error(ambient):
    ambient(2)
    with pytest.raises(KeyError), device.threads(1):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_a_cell_runs_without_what_only_some_systems_have():
    """Windows has neither `resource` and `os.sysconf` nor interval timers and /proc."""
    code = (
        "import os, pathlib, signal, sys\n"
        "sys.modules.update(dict.fromkeys(('resource', 'fcntl', 'pwd', 'grp', 'termios')))\n"
        "del os.sysconf, signal.setitimer, signal.SIGALRM\n"
        "def refuse(path, *arguments, **options):\n"
        "    if str(path).startswith('/proc'):\n"
        "        raise FileNotFoundError(path)\n"
        "    return real(path, *arguments, **options)\n"
        "real, pathlib.Path.open = pathlib.Path.open, refuse\n"
        "exists = pathlib.Path.exists\n"
        "pathlib.Path.exists = lambda path, **options: not str(path).startswith('/proc') and exists(path, **options)\n"
        "from gibench.experiment import run_cell\n"
        "from gibench.sweep.suite import Suite\n"
        "options = {'model': 'mlp:width=20', 'dataset': 'digits', 'batch_size': 2, 'device': 'cpu', 'timeout': 60}\n"
        "(cell,) = Suite.from_settings('suite', {'attack': 'dlg-adaptive:max_iterations=2', **options}).cells()\n"
        "row = run_cell(cell, lambda message, fraction=None: None).row\n"
        "print(row.status, row.peak_memory_mb, row.exact_rate, row.hardware)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, memory, exact, *hardware = done.stdout.split()
    assert (status in ("ok", "budget_exhausted"), memory, exact) == (True, "None", "0.0")
    assert hardware[-1] == "threads)"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory can be measured on Linux alone")
def test_peak_memory_sees_what_was_freed_again():
    """In a process of its own, so that nothing else is freed meanwhile."""
    code = (
        "import torch; from gibench.device import PeakMemory\n"
        "with PeakMemory(torch.device('cpu')) as much:\n    torch.ones(200 * 2**18)\n"
        "print(much.peak_mb)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 180 < float(done.stdout) < 300


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_peak_memory_on_a_gpu_is_beyond_what_was_there():
    gpu = torch.device("cuda")
    ballast = torch.ones(500 * 2**18, device=gpu)
    with device.PeakMemory(gpu) as much:
        torch.ones(200 * 2**18, device=gpu)
    assert ballast.nbytes == 500 * 2**20
    assert much.peak_mb == pytest.approx(200, abs=3)
