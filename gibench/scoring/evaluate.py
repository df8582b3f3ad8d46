"""The score of one reconstruction: a row an image and the summary that goes into the result (rules E4 to E8)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from gibench.attack import Reconstruction
from gibench.scoring.lpips import lpips
from gibench.scoring.match import is_exact, match
from gibench.scoring.metrics import mse, psnr, ssim

GREY = 0.5  # every pixel of a missing reconstruction


@dataclass(frozen=True)
class Score:
    """What a reconstruction is worth.

    `images`: a row a true image with the columns truth (its index), reconstruction (the index of its match, null if
    missing), mse, psnr (dB), ssim, lpips, exact, certified, and nearest: the PSNR in dB, at most 100, of the other true
    image that is most like it, null in a batch of one; a near-duplicate has a high one.
    `summary`: the result columns from `n_true` to `labels_found`; null where nothing can be said.
    `matched`: `[B, C, H, W]` in [0, 1], the images that were scored, in the order of the truth.
    """

    images: pd.DataFrame
    summary: dict[str, Any]
    matched: Tensor


def score(truth: Tensor, reconstruction: Reconstruction | None, true_labels: Tensor | None = None) -> Score:
    """Match a reconstruction with the truth and measure every pair.

    Only the first B images of the reconstruction count (rule E5); missing ones, all of them if it is None, are
    mid-grey and not certified.

    Args:
        truth: `[B, C, H, W]` in [0, 1].
        reconstruction: images of the same shape; its labels and certificates are optional.
        true_labels: `[B]`.

    Raises:
        GibenchError: LPIPS fails its self-test.
    """
    truth = _pixels(truth)
    images = truth[:0] if reconstruction is None else _pixels(reconstruction.images[: len(truth)])
    originals = truth.numpy()
    matches = match(originals, images.numpy())
    matched = torch.full_like(truth, GREY)
    for index, found in enumerate(matches):
        if found is not None:
            matched[index] = images[found]
    scored = matched.numpy()
    errors = [mse(original, image) for original, image in zip(originals, scored, strict=True)]
    table = pd.DataFrame(
        {
            "truth": range(len(truth)),
            "reconstruction": pd.array(matches, dtype="Int64"),
            "mse": errors,
            "psnr": [psnr(error) for error in errors],
            "ssim": [ssim(original, image) for original, image in zip(originals, scored, strict=True)],
            "lpips": lpips(truth, matched).double().numpy(),
            "exact": [is_exact(original, image) for original, image in zip(originals, scored, strict=True)],
            "certified": _certified(reconstruction, matches),
            "nearest": _nearest(originals),
        }
    )
    count = 0 if reconstruction is None else len(reconstruction.images)
    summary = summary_of(table, count) | _labels(reconstruction, matches, true_labels)
    return Score(table, summary, matched)


def _pixels(images: Tensor) -> Tensor:
    return images.detach().to("cpu", torch.float32).clamp(0, 1)


def _nearest(truth: NDArray[np.float32]) -> list[float]:
    """For each image the PSNR of the other one that is most like it; NaN if there is no other."""
    if len(truth) == 1:
        return [math.nan]
    pixels = truth.reshape(len(truth), -1).astype(np.float64)
    errors = cdist(pixels, pixels, "sqeuclidean") / pixels.shape[1]
    np.fill_diagonal(errors, np.inf)
    return [psnr(error) for error in errors.min(axis=1)]


def _certified(reconstruction: Reconstruction | None, matches: list[int | None]) -> list[bool]:
    if reconstruction is None or reconstruction.certified is None:
        return [False] * len(matches)
    claims = reconstruction.certified.tolist()
    return [found is not None and bool(claims[found]) for found in matches]


def _labels(
    reconstruction: Reconstruction | None, matches: list[int | None], true_labels: Tensor | None
) -> dict[str, float | None]:
    """The share of true images whose match carries the true label, and of true labels found, whoever carries them.

    A missing image's label is wrong. A label that occurs twice must be found twice.
    """
    if reconstruction is None or reconstruction.labels is None or true_labels is None:
        return {"label_accuracy": None, "labels_found": None}
    labels, true = reconstruction.labels.tolist(), true_labels.tolist()
    right = sum(found is not None and labels[found] == label for found, label in zip(matches, true, strict=True))
    found = Counter(labels[: len(true)]) & Counter(true)
    return {"label_accuracy": right / len(true), "labels_found": found.total() / len(true)}


def summary_of(table: pd.DataFrame, n_reconstructed: int) -> dict[str, Any]:
    """The result columns from `n_true` to `mse_mean`.

    Args:
        table: `Score.images`.
        n_reconstructed: images that the attack returned.
    """
    low, median, high = np.quantile(table["psnr"], [0.25, 0.5, 0.75])
    ssim_mean = float(table["ssim"].mean())
    return {
        "n_true": len(table),
        "n_reconstructed": n_reconstructed,
        "exact_rate": float(table["exact"].mean()),
        "certified_rate": float(table["certified"].mean()),
        "false_certificates": int((table["certified"] & ~table["exact"]).sum()),
        "psnr_mean": float(table["psnr"].mean()),
        "psnr_median": float(median),
        "psnr_q25": float(low),
        "psnr_q75": float(high),
        "ssim_mean": None if np.isnan(ssim_mean) else ssim_mean,
        "lpips_mean": float(table["lpips"].mean()),
        "mse_mean": float(table["mse"].mean()),
    }
