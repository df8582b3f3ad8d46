"""Exact recovery of large photographs, of layers much wider than high: `python tests/benchmarks/wide.py`.

The lines of `reach.py`, for crops of SIDE x SIDE pixels of the photographs that ship with scikit-image and
scikit-learn: they must be exact and certified, and take no more memory beside model and update than a part of what
these take themselves, which the first line states.

    python tests/benchmarks/wide.py --side 224 --sizes 25x1000x3 --seeds 0 1 2
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from reach import ATTACKS, lines, parsed

from gibench import device
from gibench.datasets.base import Images
from gibench.datasets.photos import _PHOTOGRAPHS, MIN_STD
from gibench.datasets.split import split


def crops(side: int) -> Images:
    """The crops of so many pixels a side, without overlap, that are not flat."""
    pixels, labels = [], []
    for label, read in enumerate(_PHOTOGRAPHS.values()):
        photograph = read()
        rows, columns = (range(0, length - side + 1, side) for length in photograph.shape[:2])
        for tile in (photograph[row : row + side, column : column + side] for row in rows for column in columns):
            if (tile / 255).std() >= MIN_STD:
                pixels.append(tile)
                labels.append(label)
    return split(np.stack(pixels), labels, list(_PHOTOGRAPHS))


def main() -> None:
    """Print what the update takes, and the table."""
    parser = argparse.ArgumentParser(description="Exact recovery of large photographs.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--sizes", nargs="*", default=["25x1000x3"], metavar="BATCHxWIDTH[xDEPTH]")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--attacks", nargs="*", choices=ATTACKS, default=list(ATTACKS))
    given = parser.parse_args()
    on = device.choose(given.device)
    if on.type == "cpu":
        torch.set_num_threads(1)
    images = crops(given.side)
    print(f"{device.hardware(on)}, torch {torch.__version__}, {len(images.private)} private crops of {given.side} px")
    for size in given.sizes:
        inputs, width = images.private.images[0].numel(), parsed(size)[1]
        print(f"gradient of the first layer at {size}: {width} x {inputs} float32, {width * inputs / 2**18:.0f} MiB")
    print()
    for _ in lines(images, given.sizes, given.seeds, on, given.attacks):
        pass


if __name__ == "__main__":
    main()
