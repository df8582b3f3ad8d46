"""Which device is chosen, what it is called, and what a piece of work took."""

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


def test_peak_memory_sees_what_was_freed_again():
    """In a process of its own: one that has grown before hands out memory that it already has."""
    code = (
        "import torch; from gibench.device import PeakMemory\n"
        "with PeakMemory(torch.device('cpu')) as nothing:\n    pass\n"
        "with PeakMemory(torch.device('cpu')) as much:\n    torch.ones(200 * 2**18)\n"
        "print(much.peak_mb - nothing.peak_mb)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 180 < float(done.stdout) < 300
