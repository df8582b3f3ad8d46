"""Batches full of near-duplicates: pictures of `photos`, each altered a little in many ways."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field

from gibench.datasets.base import Dataset, Images, Split
from gibench.datasets.near import Pixels
from gibench.datasets.photos import Photos

PARTS, PICTURES = 32, 1012


class Hostile(Dataset):
    """1012 pictures, the tiles of `photos` that are neither tuning nor public, in 32 parts; each altered in many ways.

    A private split is one part: every picture as it is and in copies that differ by what a camera, an editor or a
    burst of shots leaves: a shift of a pixel or two, brightness, JPEG quality, noise of one grey level, a crop, and
    steps of a burst, by turns. So a batch of 20 holds several copies of some pictures. Labels, tuning and public images
    are those of `photos`; training is public.
    """

    bundled = True

    part: int = Field(0, ge=0, lt=PARTS, description="which part of the pictures")
    copies: int = Field(16, ge=2, le=64, description="of each picture, itself one of them")

    def load(self) -> Images:
        photos = Photos().load()
        known = {image.numpy().tobytes() for image in photos.public.images}
        others = [k for k, image in enumerate(photos.training.images) if image.numpy().tobytes() not in known]
        pictures = torch.cat([photos.private.images, photos.training.images[others]])[self.part :: PARTS]
        labels = torch.cat([photos.private.labels, photos.training.labels[others]])[self.part :: PARTS]
        pixels = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        altered = [np.unique(self._copies(picture, number), axis=0) for number, picture in enumerate(pixels)]
        images = torch.from_numpy(np.concatenate(altered)).permute(0, 3, 1, 2).contiguous().float().div_(255)
        counts = torch.tensor([len(some) for some in altered])
        return Images(
            private=Split(images, labels.repeat_interleave(counts)),
            tuning=photos.tuning,
            public=photos.public,
            training=photos.public,
            classes=photos.classes,
            mean=photos.mean,
            std=photos.std,
        )

    def _copies(self, picture: Pixels, number: int) -> Pixels:
        """The picture `[H, W, 3]` and its altered copies, `[copies, H, W, 3]`; some may turn out the same."""
        # RandomState, because NumPy promises that its stream never changes.
        random = np.random.RandomState([self.part, number])
        ways = [ALTERED[name] for name in ALTERED]
        altered = [ways[k % len(ways)](picture, random, 1 + k // len(ways)) for k in range(self.copies - 1)]
        return np.stack([picture, *altered])


def shifted(picture: Pixels, random: np.random.RandomState, strength: int) -> Pixels:
    """Moved by up to two pixels, the edge repeated."""
    height, width = picture.shape[:2]
    down, right = random.randint(0, 5, size=2)
    moved: Pixels = np.pad(picture, ((2, 2), (2, 2), (0, 0)), mode="edge")[down : down + height, right : right + width]
    return moved


def brightened(picture: Pixels, random: np.random.RandomState, strength: int) -> Pixels:
    """All pixels a few grey levels brighter or darker."""
    return _on_grid(picture + float(random.choice([-1, 1]) * strength))


def compressed(picture: Pixels, random: np.random.RandomState, strength: int) -> Pixels:
    """Through JPEG of high quality."""
    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, "JPEG", quality=int(random.randint(80, 99)))
    with Image.open(stored) as opened:
        return np.asarray(opened.convert("RGB"))


def noisy(picture: Pixels, random: np.random.RandomState, strength: int) -> Pixels:
    """Noise of one grey level."""
    return _on_grid(picture + random.randint(-1, 2, size=picture.shape).astype(np.float64))


def cropped(picture: Pixels, random: np.random.RandomState, strength: int) -> Pixels:
    """A border of one pixel or two cut off, and as large again."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture).crop((strength, strength, width - strength, height - strength))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def burst(picture: Pixels, random: np.random.RandomState, strength: int) -> Pixels:
    """A later shot of a burst: a fraction of a pixel further, a touch brighter, with noise of its own."""
    step = 0.15 * strength
    moved = Image.fromarray(picture).transform(
        (picture.shape[1], picture.shape[0]),
        Image.Transform.AFFINE,
        (1, 0, step, 0, 1, step / 2),
        Image.Resampling.BILINEAR,
    )
    return _on_grid(np.asarray(moved) * (1 + 0.002 * strength) + random.normal(0, 0.5, size=picture.shape))


def _on_grid(pixels: npt.NDArray[Any]) -> Pixels:
    rounded: Pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    return rounded


Altered = Callable[[Pixels, np.random.RandomState, int], Pixels]
ALTERED: dict[str, Altered] = {
    "shift": shifted,
    "brightness": brightened,
    "jpeg": compressed,
    "noise": noisy,
    "crop": cropped,
    "burst": burst,
}
