"""A row says where it comes from, and its command makes the same cell."""

import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

import gibench.cell
from gibench import provenance
from gibench.device import threads
from gibench.sweep.suite import Suite


def cell(**options):
    suite = {"attack": "random", "model": "mlp:width=10", "batch_size": 4, "seed": 3, "device": "cpu"} | options
    (only,) = Suite.from_settings("suite", suite).cells()
    return only


def test_it_names_versions_hardware_and_threads():
    found = provenance.of(cell())
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["gibench"] == version("gibench")
    assert found["threads"] == torch.get_num_threads()
    assert found["hardware"].endswith("threads)")


def test_it_names_the_threads_that_are_pinned():
    with threads(3):
        found = provenance.of(cell())
    assert found["threads"] == 3
    assert found["hardware"].endswith("(3 threads)")


def test_the_command_makes_the_same_cell_again():
    original = cell(defense="dp:noise_multiplier=1e-4", knows="nothing", labels="same", timeout=2.5)
    program, verb, *options = shlex.split(provenance.command(original))
    assert (program, verb) == ("gibench", "run")
    settings = {
        name.removeprefix("--").replace("-", "_"): value
        for name, value in zip(options[::2], options[1::2], strict=True)
    }
    for name, number in {"train_steps": int, "batch_size": int, "timeout": float}.items():
        settings[name] = number(settings[name])
    (again,) = Suite.from_settings("suite", settings).cells()
    assert again == original
    assert again.key == original.key


def test_the_commit_is_that_of_the_checkout():
    root = Path(gibench.cell.__file__).parents[1]
    provenance.git_commit.cache_clear()
    found = provenance.git_commit()
    if not (root / ".git").exists():
        assert found is None
        return
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert found.removesuffix("-dirty") == head.stdout.strip()
