"""What cells of large images take: `python tests/benchmarks/image_sizes.py`.

A line for each attack on one batch of photographs cut into tiles: images exact, seconds of the attack, memory of the
attack beyond what it is shown, and the most that all processes of the cell held together: the command's own, the one
that holds the truth and the one that attacks, their private memory and the observation on its way between them. Memory
is in MiB, and in times the update's own size, which is that of the model too. Seconds are of the clock.

    python tests/benchmarks/image_sizes.py --side 224 --width 1000 --batch-size 25 --attacks spearpp layer-pair
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from gibench.result import Row
from gibench.sweep.pair import Pair
from gibench.sweep.suite import Suite

PHOTOGRAPHS = ["astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "retina", "hubble_deep_field"]
ATTACKS = ["spearpp", "layer-pair", "analytic", "invertinggradients:max_iterations=2", "mean-image", "random"]
COLUMNS = ["attack", "status", "exact", "seconds", "attack MiB", "times update", "all MiB", "times update"]
_BETWEEN = 0.1  # seconds from one look at the memory to the next


def cut(folder: Path, side: int) -> None:
    """Write the photographs' tiles that are not flat, a directory a photograph."""
    photographs = {name: getattr(data, name)() for name in PHOTOGRAPHS}
    photographs |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    photographs["motorcycle"] = data.stereo_motorcycle()[0]
    for name, pixels in photographs.items():
        (folder / name).mkdir()
        for y in range(0, pixels.shape[0] - side + 1, side):
            for x in range(0, pixels.shape[1] - side + 1, side):
                tile = pixels[y : y + side, x : x + side]
                if tile.std() > 0.05 * 255:
                    Image.fromarray(tile).save(folder / name / f"{y}-{x}.png")


class Watch(threading.Thread):
    """Looks again and again at what this process and those below it hold, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0  # MiB
        self._stop_it = threading.Event()

    def run(self) -> None:
        while not self._stop_it.wait(_BETWEEN):
            self.peak = max(self.peak, held(os.getpid()))

    def stop(self) -> float:
        """The most that was held."""
        self._stop_it.set()
        self.join()
        return self.peak


def held(root: int) -> float:
    """MiB of private memory of a process and those below it, and of the files in memory that they have open."""
    below: dict[int, list[int]] = {}
    for each in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended meanwhile
            parent = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1]
            below.setdefault(int(parent), []).append(int(each))
    private, files, todo = 0, {}, [root]
    while todo:
        process = todo.pop()
        todo += below.get(process, [])
        with suppress(OSError):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            private += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
        with suppress(OSError):
            for handle in Path(f"/proc/{process}/fd").iterdir():
                if os.readlink(handle).startswith("/memfd:"):
                    status = handle.stat()
                    files[status.st_ino] = 512 * status.st_blocks
    return (private + sum(files.values())) / 2**20


def lines(folder: Path, attacks: Sequence[str], side: int, width: int, batch_size: int) -> None:
    """Print a line for each attack."""
    options = {"dataset": f"folder:path='{folder}'", "batch_size": batch_size, "device": "cpu", "threads": 1}
    cells = Suite.from_settings("sizes", options | {"attack": attacks, "model": f"mlp:width={width},depth=3"}).cells()
    update = 4 * width * (3 * side**2 + 2 * width) / 2**20
    print(f"{side} px, mlp:width={width},depth=3, batches of {batch_size}; the update is {update:.0f} MiB\n")
    print("|", " | ".join(COLUMNS), "|")
    print("|", " --- |" * len(COLUMNS), sep="")
    pair = Pair()
    try:
        for cell in cells:
            watch = Watch()
            watch.start()
            row = pair.run(cell, Row, lambda message, fraction: None).row
            peak, own = watch.stop(), row.peak_memory_mb or 0.0
            figures = f"{row.exact_rate or 0:.2f} | {row.runtime_s or 0:.1f} | {own:.0f} | {own / update:.1f}"
            said = row.status if row.reason is None else f"{row.status}: {row.reason}"
            print(f"| {cell.attack} | {said} | {figures} | {peak:.0f} | {peak / update:.1f} |", flush=True)
    finally:
        pair.quit()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What cells of large images take.")
    parser.add_argument("--side", type=int, default=224, help="of a tile, in pixels")
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--attacks", nargs="*", default=ATTACKS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cut(Path(folder), given.side)
        lines(Path(folder), given.attacks, given.side, given.width, given.batch_size)


if __name__ == "__main__":
    main()
