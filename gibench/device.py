"""Devices: which one to use, what it is called, waiting for it, and how much memory a piece of work took."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Self

import torch

from gibench.errors import UsageError


def choose(name: str) -> torch.device:
    """The device for `--device auto|cpu|cuda`.

    Raises:
        UsageError: unknown name, or CUDA asked for where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device '{name}': use auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("no CUDA device is available here: use --device cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def choose_threads(count: str | int) -> int:
    """How many CPU threads `--threads N|auto` means; `auto` is as many as torch would take here.

    Raises:
        UsageError: no number from 1 to 1024.
    """
    if count == "auto":
        return torch.get_num_threads()
    text = str(count)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1024):
        raise UsageError(f"threads={count!r} is refused: give a number from 1 to 1024, or auto")
    return int(text)


def hardware(device: torch.device) -> str:
    """The device's model name, as stored in every row."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor() or platform.machine()} ({torch.get_num_threads()} threads)"


def memory_mb(device: torch.device) -> float:
    """The device's memory in MiB, whether free or not; of a CPU, the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**20
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def warm_up(device: torch.device) -> None:
    """Load the device's linear algebra, so that the first timed call does not pay for it."""
    square = torch.eye(8, device=device)
    torch.linalg.svd(square @ square)
    synchronize(device)


class PeakMemory:
    """Measures the peak memory, in MiB, while it is entered: of the CUDA allocator, else of the whole process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_mb = 0.0

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _reset_high_water_mark()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.peak_mb = torch.cuda.max_memory_allocated(self.device) / 2**20
        else:
            self.peak_mb = _high_water_mark_mb()


def _reset_high_water_mark() -> None:
    """Start the process's high-water mark anew, where the system can (Linux); else it is that of the process's life."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _high_water_mark_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
