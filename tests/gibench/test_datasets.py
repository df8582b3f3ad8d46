"""The data sets that need no download: real images, on the 8-bit grid, split once and for all."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

import gibench.datasets
from gibench.datasets.split import split
from gibench.errors import UsageError
from gibench.registry import create

SHAPES = {  # images a split, classes, image shape
    "photos": ((520, 96, 224, 716), 10, (3, 32, 32)),
    "digits": ((1025, 114, 658, 658), 10, (1, 8, 8)),
    "lfw": ((114, 13, 73, 73), 2, (1, 25, 25)),
}
SIDES = {  # of the photographs of `photos`
    "private": {"astronaut": 104, "coffee": 104, "immunohistochemistry": 104, "motorcycle": 104, "hubble": 104},
    "tuning": {"chelsea": 48, "retina": 48},
    "public": {"rocket": 37, "china": 104, "flower": 83},
}
README = Path(gibench.datasets.__file__).parent / "README.md"
PHOTOS = "44bb2c0b6ae744c5107b03e5adde0e86fb78ec80f1fc7acb9566586e6bc238aa"  # SHA-256 of images and labels in order


@pytest.fixture(scope="module", params=SHAPES)
def loaded(request):
    return request.param, create("dataset", request.param).load()


@pytest.fixture(scope="module")
def photos():
    return create("dataset", "photos").load()


def parts(images):
    return images.private, images.tuning, images.public, images.training


def pixels_of(images):
    return torch.cat([part.images for part in parts(images)])


def all_tiles(photos):
    """Every image and label of `photos` once: training holds the public ones too."""
    used = (photos.private, photos.tuning, photos.training)
    return torch.cat([part.images for part in used]), torch.cat([part.labels for part in used])


def psnr_to_nearest(images, others):
    """Of each image, in dB."""
    distances = torch.cdist(
        images.flatten(1).double(), others.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return -20 * torch.log10(distances.min(1).values / images[0].numel() ** 0.5)


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


def test_no_image_is_in_two_splits_or_twice_in_one_but_those_that_are_public_and_train(loaded):
    images = loaded[1]
    pixels = torch.cat([part.images for part in (images.private, images.tuning, images.training)])
    assert len({image.numpy().tobytes() for image in pixels}) == len(pixels)
    training, public = ({image.numpy().tobytes() for image in part.images} for part in (images.training, images.public))
    assert len(public) == len(images.public)
    assert public <= training


def test_no_private_image_has_a_near_duplicate_in_another_split_nor_a_tuning_image_in_public_or_training(loaded):
    images = loaded[1]
    for part in (images.tuning, images.public, images.training):
        assert psnr_to_nearest(images.private.images, part.images).max() < 25
    for part in (images.public, images.training):
        assert psnr_to_nearest(images.tuning.images, part.images).max() < 25


def test_labels_name_classes_and_every_class_is_trained_on(loaded):
    images = loaded[1]
    everything = set(range(images.num_classes))
    assert all(part.labels.dtype == torch.int64 for part in parts(images))
    assert set(images.training.labels.tolist()) == everything
    assert all(set(part.labels.tolist()) <= everything for part in parts(images))


def test_photos_are_split_by_photograph_and_say_that_training_shares_them(photos):
    for split_name, expected in SIDES.items():
        counts = getattr(photos, split_name).labels.bincount(minlength=10).tolist()
        assert {photos.classes[label]: count for label, count in enumerate(counts) if count} == expected
    assert photos.training_shares == "photographs"
    assert set(photos.private.labels.tolist()) <= set(photos.training.labels.tolist())


@pytest.mark.parametrize("name", ["digits", "lfw"])
def test_where_public_images_train_training_shares_nothing_with_private(name):
    images = create("dataset", name).load()
    assert images.training is images.public
    assert images.training_shares == "nothing"


def test_normalised_public_images_have_mean_0_and_std_1_in_each_channel(loaded):
    images = loaded[1]
    std, mean = torch.std_mean(images.normalize(images.public.images), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones_like(std), atol=1e-5, rtol=0)


def test_the_photos_are_1332_tiles_of_ten_photographs(photos):
    counts = all_tiles(photos)[1].bincount()
    assert dict(zip(photos.classes, counts.tolist(), strict=True)) == {
        "astronaut": 177,
        "chelsea": 83,
        "coffee": 159,
        "rocket": 37,
        "immunohistochemistry": 152,
        "retina": 119,
        "china": 134,
        "flower": 83,
        "motorcycle": 237,
        "hubble": 151,
    }
    assert counts.sum() == 1332


def test_no_photo_is_flat(photos):
    assert pixels_of(photos).std(dim=(1, 2, 3), correction=0).min() >= 0.12


def test_the_photos_and_their_order_never_change(photos):
    digest = hashlib.sha256()
    for part in parts(photos):
        digest.update((part.images * 255).round().to(torch.uint8).numpy().tobytes())
        digest.update(part.labels.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == PHOTOS


def test_photos_are_the_tiles_of_the_photograph_as_they_are(photos):
    chelsea = data.chelsea()
    tiles = [chelsea[y : y + 32, x : x + 32] for y in range(0, 288, 32) for x in range(0, 448, 32)]
    expected = {tile.tobytes() for tile in tiles if (tile / 255).std() >= 0.12}
    pixels, labels = all_tiles(photos)
    found = pixels[labels == photos.classes.index("chelsea")]
    assert {(image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy().tobytes() for image in found} == expected


def test_loading_again_gives_the_same_splits(loaded):
    name, images = loaded
    for before, after in zip(parts(images), parts(create("dataset", name).load()), strict=True):
        assert torch.equal(before.images, after.images)
        assert torch.equal(before.labels, after.labels)


def test_the_first_class_of_lfw_are_faces():
    images = create("dataset", "lfw").load()
    used = parts(images)[:3]
    pixels, labels = torch.cat([part.images for part in used]), torch.cat([part.labels for part in used])
    spread = [pixels[labels == label].std(dim=0).mean() for label in range(2)]
    assert images.classes == ("face", "background")
    assert labels.bincount().tolist() == [100, 100]
    assert spread[0] < 0.8 * spread[1]  # centred faces differ less from each other than random background does


def dice(count, seed):
    """Images of two pixels, each 0, 127 or 254, so that there are nine that are no near-duplicates; most repeat."""
    return np.random.default_rng(seed).integers(0, 3, (count, 1, 2, 1), dtype=np.uint8) * 127


@given(st.integers(3, 60), st.integers(0, 10**6))
def test_a_split_takes_each_different_image_once_with_its_label(count, seed):
    pixels = dice(count, seed)
    labels = np.array([int(image[0, 0, 0]) // 127 * 3 + int(image[0, 1, 0]) // 127 for image in pixels])
    if len(set(labels)) < 3:
        with pytest.raises(UsageError, match=f"holds {len(set(labels))} different images, .*: at least 3"):
            split(pixels, labels, [str(label) for label in range(9)])
        return
    images = split(pixels, labels, [str(label) for label in range(9)])
    used = (images.private, images.tuning, images.public)
    assert sorted(label for part in used for label in part.labels.tolist()) == sorted(set(labels))
    for part in used:
        assert len(part)
        values = (part.images * 255).round().flatten(1).long() // 127
        assert torch.equal(values[:, 0] * 3 + values[:, 1], part.labels)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=20), st.integers(0, 10**6))
def test_near_duplicates_stay_together_however_many_there_are(sizes, seed):
    generator = np.random.default_rng(seed)
    scenes = generator.integers(0, 2, (len(sizes), 6, 6, 3)) * 200 + 20  # some 5 dB apart
    frames = np.repeat(scenes, sizes, axis=0) + generator.integers(-8, 9, (sum(sizes), 6, 6, 3))  # 30 dB apart or less
    order = generator.permutation(len(frames))
    pixels, labels = frames.astype(np.uint8)[order], np.repeat(np.arange(len(sizes)), sizes)[order]
    if len(sizes) < 3:
        with pytest.raises(UsageError, match=rf"holds {len(sizes)} different images, near-duplicates .* counted once"):
            split(pixels, labels, ["scene"] * len(sizes))
        return
    images = split(pixels, labels, ["scene"] * len(sizes))
    sides = [set(part.labels.tolist()) for part in (images.private, images.tuning, images.public)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(sizes)


def test_a_chain_of_near_duplicates_leaves_the_other_images_to_all_three_splits():
    """Frames of a slow fade: each is near the next, the ends are not, and one chain holds most of the set."""
    generator = np.random.default_rng(0)
    fade = np.linspace(0, 255, 60).repeat(48).reshape(60, 4, 4, 3).astype(np.uint8)
    others = generator.integers(0, 2, (30, 4, 4, 3), dtype=np.uint8) * 255
    images = split(np.concatenate([fade, others]), np.arange(90) >= 60, ["fade", "other"])
    assert (len(images.private), len(images.tuning), len(images.public)) == (60, 6, 24)
    assert not images.private.labels.any()
    assert images.public.labels.all()


def test_public_images_can_be_set_apart_by_the_data_set_and_near_duplicates_of_private_ones_are_left_out():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    pixels[170:180] = pixels[20:30] // 2 + 64  # not alike
    pixels[190:195] = pixels[:5] ^ 3
    images = split(pixels, np.arange(200), ["unused"], public_from=150)
    assert sorted(images.public.labels.tolist()) == [*range(150, 190), *range(195, 200)]
    assert images.training is images.public
    assert sorted([*images.private.labels.tolist(), *images.tuning.labels.tolist()]) == list(range(150))
    assert len(images.tuning) == 10


def test_public_images_that_are_all_near_private_ones_are_refused():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    with pytest.raises(UsageError, match="each public image is within 25 dB of a private one"):
        split(np.concatenate([pixels, pixels ^ 1]), np.arange(40), ["unused"], public_from=20)


def test_images_of_one_flat_colour_are_normalised_to_finite_values():
    images = split(np.array([1, 1, 1, 90, 180], dtype=np.uint8).reshape(5, 1, 1, 1), np.zeros(5), ["all"])
    assert torch.isfinite(images.normalize(pixels_of(images))).all()


def test_the_readme_states_the_sizes_of_the_splits_and_what_training_shares(loaded):
    name, images = loaded
    sizes = " / ".join(str(len(part)) for part in parts(images))
    rows = [line for line in README.read_text().splitlines() if line.startswith(f"| `{name}`")]
    assert f"| {sizes} | {images.training_shares} |" in rows[0]


def test_the_readme_states_the_tiles_of_each_photograph(photos):
    counts = all_tiles(photos)[1].bincount().tolist()
    tiles = ", ".join(f"{name} {count}" for name, count in zip(photos.classes, counts, strict=True))
    assert f"{sum(counts)} images: {tiles}." in README.read_text()
