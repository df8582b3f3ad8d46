"""scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np

from gibench.datasets.base import Dataset, Images
from gibench.datasets.split import split


class Digits(Dataset):
    """1797 handwritten digits, 8x8 grey, ten classes. Splits: 1025 private, 114 tuning and 658 public."""

    bundled = True

    def load(self) -> Images:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # the values are 0 to 16
        return split(pixels[..., None], digits.target, [str(digit) for digit in range(10)])
