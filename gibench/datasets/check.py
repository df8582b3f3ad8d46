"""Whether what a data set gives keeps its contract, found out when it is loaded and before anything is attacked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gibench.datasets.base import Images, Split

SPLITS = ("private", "tuning", "public", "training")
_CHUNK = 4096  # images
_OFF_GRID = 0.01  # of a grey level


def fault(images: Any) -> str | None:
    """What is wrong with a loaded data set, in words that follow its name, or None; see `Images` and `Split`."""
    if not isinstance(images, Images):
        return f"loads {type(images).__name__}, where Images is due"
    for name in SPLITS:
        if wrong := _of_split(getattr(images, name), images):
            return f"has a {name} split that {wrong}"
    channels = images.image_shape[0]
    for name in ("mean", "std"):
        values = getattr(images, name)
        if not (isinstance(values, Tensor) and tuple(values.shape) == (channels,) and bool(values.isfinite().all())):
            return f"has a {name} that is not {channels} finite numbers, one a channel"
    return None if bool((images.std > 0).all()) else "has a std that is not above 0: clamp it to 1/255"


def _of_split(split: Any, images: Images) -> str | None:
    if not (isinstance(split, Split) and isinstance(split.images, Tensor) and isinstance(split.labels, Tensor)):
        return "is no Split of tensors"
    pixels, labels = split.images, split.labels
    if pixels.ndim != 4 or pixels.shape[1:] != images.private.images.shape[1:]:
        return f"has images of shape {list(pixels.shape)}, where [N, C, H, W] as in the private split is due"
    if pixels.dtype != torch.float32:
        return f"has images of {pixels.dtype}, where float32 in [0, 1] is due"
    if labels.dtype != torch.int64 or tuple(labels.shape) != (len(pixels),):
        return (
            f"has labels of {labels.dtype} and shape {list(labels.shape)} for {len(pixels)} images, where int64 is due"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < images.num_classes:
        return (
            f"has labels from {int(labels.min())} to {int(labels.max())}, where there are {images.num_classes} classes"
        )
    return next(filter(None, map(_of_pixels, torch.split(pixels, _CHUNK))), None)


def _of_pixels(pixels: Tensor) -> str | None:
    if not pixels.numel():
        return None
    low, high = map(float, pixels.aminmax())
    if not (low >= 0 and high <= 1):  # neither is NaN
        return f"has pixels from {low:.3g} to {high:.3g}, where [0, 1] is due: divide 8-bit pixels by 255"
    grey = pixels * 255
    if float((grey - grey.round()).abs().max()) > _OFF_GRID:
        return "has pixels off the 8-bit grid, where k/255 is due: round them"
    return None
