"""The data set `folder`: anybody's own images, and a clear line for what cannot be one."""

import numpy as np
import pytest
import torch
from PIL import Image

from gibench.errors import UsageError
from gibench.registry import create


def save(file, size=(9, 7), mode="RGB", seed=0):
    """A picture of noise, so that no two are alike."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(file)
    return np.asarray(Image.fromarray(values).convert(mode))


def load(path, **settings):
    return create("dataset", f"folder:path='{path}'" + "".join(f",{key}={settings[key]}" for key in settings)).load()


def everything(images):
    parts = (images.private, images.tuning, images.public)
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


@pytest.fixture
def flat(tmp_path):
    """A directory of six colour pictures."""
    for number in range(6):
        save(tmp_path / f"{number}.png", seed=number)
    return tmp_path


def test_a_directory_of_images_is_one_class_with_every_pixel_kept(flat):
    images = load(flat)
    assert images.classes == (flat.name,)
    assert images.image_shape == (3, 7, 9)
    expected = {np.asarray(Image.open(file)).tobytes() for file in flat.iterdir()}
    pixels = (everything(images)[0] * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert {image.numpy().tobytes() for image in pixels} == expected


def test_directories_of_images_are_classes_in_alphabetical_order(tmp_path):
    for number, name in enumerate(("cat", "ant", "bee", "cat", "ant", "cat")):
        save(tmp_path / name / f"{number}.jpg", seed=number)
    images = load(tmp_path)
    assert images.classes == ("ant", "bee", "cat")
    assert everything(images)[1].bincount().tolist() == [2, 1, 3]


def test_grey_images_have_one_channel(tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png", mode="L", seed=number)
    assert load(tmp_path).image_shape == (1, 7, 9)


def test_one_colour_image_makes_all_three_channels(flat):
    grey = save(flat / "grey.png", mode="L", seed=9)
    images = load(flat)
    assert images.image_shape == (3, 7, 9)
    wanted = torch.from_numpy(np.repeat(grey[None], 3, axis=0)) / 255
    assert any(torch.equal(image, wanted) for image in everything(images)[0])


def test_repeated_images_are_kept_once(flat):
    save(flat / "again.png", seed=0)
    assert len(everything(load(flat))[1]) == 6


def test_other_and_hidden_files_are_left_alone(flat):
    (flat / "notes.txt").write_text("no image")
    (flat / ".thumbnail.png").write_bytes(b"no image either")
    assert len(everything(load(flat))[1]) == 6


def test_photographs_are_turned_upright(tmp_path):
    for number in range(3):
        sideways = Image.fromarray(np.full((4, 8, 3), 40 * number, np.uint8))
        exif = sideways.getexif()
        exif[0x0112] = 6  # the camera was held on its side
        sideways.save(tmp_path / f"{number}.png", exif=exif)
    assert load(tmp_path).image_shape == (3, 8, 4)


def test_resize_crops_mixed_sizes_to_squares(flat):
    save(flat / "wide.png", size=(40, 20), seed=7)
    assert load(flat, resize=6).image_shape == (3, 6, 6)


def test_mixed_sizes_name_two_files_and_the_mend(flat):
    save(flat / "wide.png", size=(40, 20), seed=7)
    with pytest.raises(UsageError, match=r"0\.png is 9x7 and .*wide\.png is 40x20: .* let resize=N do it$"):
        load(flat)


def test_a_folder_without_a_path_says_how_to_give_one():
    with pytest.raises(UsageError, match="write folder:path=DIRECTORY"):
        create("dataset", "folder").load()


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UsageError, match=f"there is no directory {tmp_path}/gone: give the path"):
        load(tmp_path / "gone")


def test_a_file_is_no_directory(flat):
    with pytest.raises(UsageError, match="there is no directory"):
        load(flat / "0.png")


def test_a_directory_without_images_says_which_files_count(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UsageError, match=r"holds no images: put files with \.bmp, .*\.webp there$"):
        load(tmp_path)


def test_too_few_different_images_are_refused(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", seed=number % 2)
    with pytest.raises(UsageError, match=r"holds 2 different images, near-duplicates .* counted once: at least 3"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "cut short"])
def test_one_broken_image_is_named_on_one_line(flat, content):
    whole = (flat / "3.png").read_bytes()
    (flat / "3.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(
        UsageError, match=r"3\.png cannot be read as an image \(.*\): repair it or take it away$"
    ) as info:
        load(flat)
    assert "\n" not in str(info.value)


def test_images_beside_directories_of_images_are_ambiguous(flat):
    save(flat / "cats" / "one.png", seed=8)
    with pytest.raises(UsageError, match=r"holds both images and directories of images \(cats\)"):
        load(flat)


def test_pixels_of_16_bits_are_refused_since_they_are_not_on_the_8_bit_grid(flat):
    Image.fromarray(np.full((7, 9), 40_000, np.uint16)).save(flat / "deep.png")
    with pytest.raises(UsageError, match=r"deep\.png has pixels of mode I;16: save it with 8 bits a channel"):
        load(flat)
