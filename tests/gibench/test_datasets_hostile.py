"""Near-duplicates made of many distinct pictures."""

import numpy as np
import pytest
import torch

from gibench import batches
from gibench.datasets.hostile import ALTERED, PARTS, PICTURES, Hostile
from gibench.datasets.photos import Photos


@pytest.fixture(scope="module")
def part():
    return Hostile(part=3).load()


def levels(images):
    return (images * 255).round().to(torch.int64)


def test_the_parts_hold_a_thousand_pictures_of_which_none_is_tuning_or_public():
    photos = Photos().load()
    first = [Hostile(part=number, copies=2).load().private for number in (0, 1, PARTS - 1)]
    pictures = len(photos.private) + len(photos.training) - len(photos.public)
    assert pictures == PICTURES
    seen = [image.numpy().tobytes() for split in first for image in split.images]
    assert len(set(seen)) == len(seen)
    assert not set(seen) & {
        image.numpy().tobytes() for image in torch.cat([photos.tuning.images, photos.public.images])
    }


def test_copies_are_on_the_grid_all_different_and_near_their_picture(part):
    images = part.private.images
    assert images.shape[1:] == part.image_shape == (3, 32, 32)
    torch.testing.assert_close(images * 255, levels(images).float(), rtol=0, atol=1e-4)
    assert len(torch.unique(levels(images).flatten(1), dim=0)) == len(images) > 450
    distance = torch.cdist(images.flatten(1), images.flatten(1)).fill_diagonal_(torch.inf)
    psnr = -20 * (distance.amin(1) / images[0].numel() ** 0.5).log10()
    assert psnr.median() > 30
    assert psnr.min() > 10


def test_a_batch_holds_several_copies_of_some_picture(part):
    for seed in range(3):
        batch = batches.draw(part, 20, "iid", 1, torch.Generator().manual_seed(seed)).images.flatten(1)
        near = torch.cdist(batch, batch).fill_diagonal_(torch.inf).amin(1) / batch.shape[1] ** 0.5 < 0.1
        assert near.sum() >= 4


def test_the_same_part_is_the_same_images(part):
    assert torch.equal(Hostile(part=3).load().private.images, part.private.images)


@pytest.mark.parametrize("way", ALTERED)
def test_each_way_alters_a_picture_a_little(way):
    picture = levels(Photos().load().private.images[0]).permute(1, 2, 0).numpy().astype(np.uint8)
    altered = [ALTERED[way](picture, np.random.RandomState(seed), 1) for seed in range(3)]
    apart = [np.abs(other.astype(int) - picture).mean() for other in altered]
    assert max(apart) > 0
    assert max(apart) < 40
    assert all(other.dtype == np.uint8 and other.shape == picture.shape for other in altered)
