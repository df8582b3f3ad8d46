"""A cell of a large network takes few times what its update takes, and what it took is given back."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from gibench.result import Row
from gibench.sweep.pair import Pair
from gibench.sweep.suite import Suite

SIDE, WIDTH = 128, 800
UPDATE = (3 * SIDE**2 + 1) * WIDTH * 4  # bytes of the first layer's gradient, which is nearly all of it
CLIENT = 5.5  # times the update: a kept network, three copies of it and the gradient, and what images take
ATTACK = 4.0  # what it is shown is two, and its own work
BESIDE = 0.6  # of the update: what comes with other code and data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="Linux tells what a process has held"),
]


def said(process, what):
    """Bytes that a process holds (VmRSS) or has held at most (VmHWM)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def test_no_process_holds_more_than_a_few_times_the_update(tmp_path):
    for name in ("astronaut", "coffee"):
        (tmp_path / name).mkdir()
        photograph = getattr(data, name)()
        for row, column in np.ndindex(3, 4):
            y, x = row * SIDE, column * SIDE
            Image.fromarray(photograph[y : y + SIDE, x : x + SIDE]).save(tmp_path / name / f"{row}{column}.png")
    options = {"dataset": f"folder:path='{tmp_path}'", "batch_size": 4, "device": "cpu", "threads": 1}
    options["attack"] = ["random", "layer-pair"]
    small = Suite.from_settings("suite", options | {"model": "mlp:width=60,depth=3"}).cells()
    large = Suite.from_settings("suite", options | {"model": f"mlp:width={WIDTH},depth=3"}).cells()
    pair = Pair()
    try:
        for cell in small:
            pair.run(cell, Row, print)
        processes = [os.getpid(), pair._trusted._process.pid, pair._attacking._process.pid]
        before = [said(process, "VmRSS") for process in processes]
        for cell in large * 2:
            for process in processes:
                Path(f"/proc/{process}/clear_refs").write_text("5")
            row = pair.run(cell, Row, print).row
            assert (row.status, row.exact_rate) == ("ok", float(cell.attack != "random")), row.reason
            held = [(said(process, "VmHWM") - was) / UPDATE for process, was in zip(processes, before, strict=True)]
            assert held[0] < BESIDE  # what is observed does not pass through it
            assert held[1] < CLIENT + BESIDE
            assert held[2] < (2 if cell.attack == "random" else ATTACK) + BESIDE
            left = [(said(process, "VmRSS") - was) / UPDATE for process, was in zip(processes, before, strict=True)]
            assert left[1] < 1 + BESIDE  # the network, which is kept for the next cell
            assert left[2] < BESIDE
            print(held, left)
        assert processes[1:] == [pair._trusted._process.pid, pair._attacking._process.pid]
    finally:
        pair.quit()
