"""Devices: which one to use, what it is called, waiting for it, and how much memory a piece of work took."""

from __future__ import annotations

import ctypes
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """The device's memory in MiB, whether free or not; of a CPU, the machine's, or infinity where no one tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**20
    if not hasattr(os, "sysconf"):  # Windows
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute on so many CPU threads in the body, and on as many as before afterwards.

    How a sum is split among threads decides its last bits: a result repeats with the same count only (rule E17).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    """Measures what is taken at the peak beyond what was there on entering, in MiB (rule E16).

    Of the CUDA allocator, else of the whole process. Linux alone lets a process start its high-water mark anew:
    elsewhere `peak_mb` is None on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_mb: float | None = None
        self._before: float | None = None

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device) / 2**20
        else:
            _return_free_memory()
            self._before = _high_water_mark_mb() if _reset_high_water_mark() else None
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is None:
            return
        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20 if on_gpu else _high_water_mark_mb()
        self.peak_mb = max(0.0, peak - self._before)


def _return_free_memory() -> None:
    """Give the system what earlier work has freed, so that using it again counts; glibc alone keeps it so long."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).malloc_trim(0)


def _reset_high_water_mark() -> bool:
    """Start the process's high-water mark anew from what it holds now; whether the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water_mark_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
