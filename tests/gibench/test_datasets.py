"""The data sets that need no download: real images, on the 8-bit grid, split once and for all."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data
from skimage.transform import resize

from gibench.datasets.split import split
from gibench.errors import UsageError
from gibench.registry import create

SHAPES = {  # images a split, classes, image shape
    "photos": ((360, 40, 231), 10, (3, 32, 32)),
    "digits": ((1025, 114, 658), 10, (1, 8, 8)),
    "lfw": ((114, 13, 73), 2, (1, 25, 25)),
}
PHOTOS = "f8f105bbf376a8b64c424d6bf5599083aade579832171a2f2320ecb3881be28a"  # SHA-256 of images and labels in order


@pytest.fixture(scope="module", params=SHAPES)
def loaded(request):
    return request.param, create("dataset", request.param).load()


@pytest.fixture(scope="module")
def photos():
    return create("dataset", "photos").load()


def parts(images):
    return images.private, images.tuning, images.public


def pixels_of(images):
    return torch.cat([part.images for part in parts(images)])


def test_a_data_set_has_the_stated_sizes_and_shapes(loaded):
    name, images = loaded
    sizes, classes, shape = SHAPES[name]
    assert tuple(len(part) for part in parts(images)) == sizes
    assert images.num_classes == classes
    assert images.image_shape == shape


def test_every_pixel_is_on_the_8_bit_grid(loaded):
    pixels = pixels_of(loaded[1])
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, (pixels * 255).round().div(255))
    assert pixels.min() == 0
    assert pixels.max() == 1


def test_no_image_is_in_two_splits_or_twice_in_one(loaded):
    pixels = pixels_of(loaded[1])
    assert len({image.numpy().tobytes() for image in pixels}) == len(pixels)


def test_labels_name_classes_and_every_class_is_private_and_public(loaded):
    images = loaded[1]
    everything = set(range(images.num_classes))
    assert all(part.labels.dtype == torch.int64 for part in parts(images))
    assert set(images.private.labels.tolist()) == set(images.public.labels.tolist()) == everything
    assert set(images.tuning.labels.tolist()) <= everything


def test_normalised_public_images_have_mean_0_and_std_1_in_each_channel(loaded):
    images = loaded[1]
    std, mean = torch.std_mean(images.normalize(images.public.images), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones_like(std), atol=1e-5, rtol=0)


def test_the_photos_are_631_tiles_of_ten_photographs_at_most_80_each(photos):
    counts = torch.cat([part.labels for part in parts(photos)]).bincount()
    assert dict(zip(photos.classes, counts.tolist(), strict=True)) == {
        "astronaut": 80,
        "chelsea": 44,
        "coffee": 80,
        "rocket": 7,
        "immunohistochemistry": 72,
        "retina": 80,
        "china": 58,
        "flower": 57,
        "motorcycle": 80,
        "hubble": 73,
    }
    assert counts.sum() == 631


def test_no_photo_is_flat(photos):
    assert pixels_of(photos).std(dim=(1, 2, 3), correction=0).min() >= 0.12


def test_the_photos_and_their_order_never_change(photos):
    digest = hashlib.sha256()
    for part in parts(photos):
        digest.update((part.images * 255).round().to(torch.uint8).numpy().tobytes())
        digest.update(part.labels.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == PHOTOS


def test_photos_are_what_scikit_image_makes_of_the_tiles_of_the_photograph(photos):
    chelsea = data.chelsea()
    tiles = [chelsea[y : y + 48, x : x + 48] for y in range(0, 288, 48) for x in range(0, 432, 48)]
    reduced = [np.rint(resize(tile, (32, 32), anti_aliasing=True) * 255) for tile in tiles]
    expected = {image.astype(np.uint8).tobytes() for image in reduced if (image / 255).std() >= 0.12}
    label = photos.classes.index("chelsea")
    found = torch.cat([part.images[part.labels == label] for part in parts(photos)])
    assert {(image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy().tobytes() for image in found} == expected


def test_loading_again_gives_the_same_splits(loaded):
    name, images = loaded
    for before, after in zip(parts(images), parts(create("dataset", name).load()), strict=True):
        assert torch.equal(before.images, after.images)
        assert torch.equal(before.labels, after.labels)


def test_the_first_class_of_lfw_are_faces():
    images = create("dataset", "lfw").load()
    pixels, labels = pixels_of(images), torch.cat([part.labels for part in parts(images)])
    spread = [pixels[labels == label].std(dim=0).mean() for label in range(2)]
    assert images.classes == ("face", "background")
    assert labels.bincount().tolist() == [100, 100]
    assert spread[0] < 0.8 * spread[1]  # centred faces differ less from each other than random background does


@given(st.integers(3, 60), st.integers(0, 10**6))
def test_a_split_takes_each_different_image_once_with_its_label(count, seed):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 3, (count, 1, 2, 1), dtype=np.uint8)  # many repeat: there are 9 different ones
    labels = np.array([int(image[0, 0, 0]) * 3 + int(image[0, 1, 0]) for image in pixels])
    if len(set(labels)) < 3:
        with pytest.raises(UsageError, match=f"holds {len(set(labels))} different images: at least 3"):
            split(pixels, labels, [str(label) for label in range(9)])
        return
    images = split(pixels, labels, [str(label) for label in range(9)])
    found = [label for part in parts(images) for label in part.labels.tolist()]
    assert sorted(found) == sorted(set(labels))
    for part in parts(images):
        assert len(part)
        values = (part.images * 255).round().flatten(1).long()
        assert torch.equal(values[:, 0] * 3 + values[:, 1], part.labels)


def test_public_images_can_be_set_apart_by_the_data_set():
    pixels = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1)
    images = split(pixels, np.arange(200), ["unused"], public_from=150)
    assert sorted(images.public.labels.tolist()) == list(range(150, 200))
    assert sorted([*images.private.labels.tolist(), *images.tuning.labels.tolist()]) == list(range(150))
    assert len(images.tuning) == 10


def test_images_of_one_flat_colour_are_normalised_to_finite_values():
    images = split(np.array([1, 1, 1, 2, 3], dtype=np.uint8).reshape(5, 1, 1, 1), np.zeros(5), ["all"])
    assert torch.isfinite(images.normalize(pixels_of(images))).all()
