"""Where a row comes from: versions, source, machine."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gibench import device
from gibench.cell import Cell

LIBRARIES = ("numpy", "scipy", "pandas", "scikit-image", "lpips", "mlflow")


def of(cell: Cell) -> dict[str, Any]:
    """Everything needed to run the cell again and to judge its times."""
    ours = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }  # its build, which metadata leaves out
    return {
        "versions": ours | _libraries() | cell.versions,
        "sources": cell.sources,
        "git_commit": git_commit(),
        "platform": platform.platform(),
        "hardware": device.hardware(torch.device(cell.device)),
        "threads": torch.get_num_threads(),
        "command": command(cell),
    }


def distributions(versions: Mapping[str, str]) -> dict[str, str]:
    """Of the versions in a provenance those that are part of the cell's key: gibench's, and its plugins'."""
    return {name: text for name, text in versions.items() if name not in ("python", "torch", *LIBRARIES)}


def torch_version() -> str:
    """Major and minor, as `2.9`."""
    return ".".join(str(torch.__version__).split(".")[:2])


@lru_cache
def _libraries() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def command(cell: Cell) -> str:
    """The command line that runs this one cell again."""
    options = {name.replace("_", "-"): value for name, value in asdict(cell).items() if value is not None}
    return shlex.join(
        ["gibench", "run", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    )


@lru_cache
def git_commit() -> str | None:
    """The commit of the checkout this code runs from, `-dirty` if changed since; None where it is no checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
