"""scikit-image's subset of Labeled Faces in the Wild."""

from __future__ import annotations

import numpy as np

from gibench.datasets.base import Dataset, Images
from gibench.datasets.split import split


class LFW(Dataset):
    """100 faces and 100 pieces of background, 25x25 grey. Splits: 114 private, 13 tuning, 73 public."""

    bundled = True

    def load(self) -> Images:
        from skimage.data import lfw_subset

        pixels = np.rint(lfw_subset() * 255).astype(np.uint8)
        return split(pixels[..., None], np.repeat([0, 1], 100), ("face", "background"))
