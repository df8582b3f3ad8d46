"""The measures of one pair of images in [0, 1]: MSE, PSNR and SSIM (rules E4, E6, E8)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

PSNR_CAP = 100.0  # dB, so that one exact image does not make a batch infinite
_SSIM_WINDOW = 7  # pixels, scikit-image's default


def mse(truth: NDArray[np.floating], image: NDArray[np.floating]) -> float:
    """Mean squared error over all pixels and channels, in float64."""
    return float(np.mean(np.square(truth.astype(np.float64) - image)))


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio in dB of an MSE at a data range of 1, at most `PSNR_CAP`."""
    return min(PSNR_CAP, -10 * math.log10(error)) if error > 0 else PSNR_CAP


def ssim(truth: NDArray[np.floating], image: NDArray[np.floating]) -> float:
    """Structural similarity of `[C, H, W]` images; the window shrinks with images under 7 px, NaN under 3 px."""
    side = min(truth.shape[1:])
    if side < 3:
        return math.nan
    window = min(_SSIM_WINDOW, side - 1 + side % 2)
    first, second = truth.astype(np.float64), image.astype(np.float64)
    return float(structural_similarity(first, second, win_size=window, channel_axis=0, data_range=1.0))
