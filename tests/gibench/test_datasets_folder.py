"""The data set `folder`: anybody's own images, and a clear line for what cannot be one."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from gibench.errors import DataWarning, UsageError
from gibench.registry import create, resolve
from gibench.spec import Spec


def save(file, size=(9, 7), mode="RGB", seed=0):
    """A picture of noise, so that no two are alike."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(file)
    return np.asarray(Image.fromarray(values).convert(mode))


def load(path, **settings):
    return create("dataset", f"folder:path='{path}'" + "".join(f",{key}={settings[key]}" for key in settings)).load()


def load_and_listen(path, **settings):
    """The data set, and the one warning without the path it begins with (None if there is none)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = load(path, **settings)
    assert len(caught) <= 1
    assert all(each.category is DataWarning for each in caught)
    return images, str(caught[0].message).removeprefix(f"{path}: ") if caught else None


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
    images, said = load_and_listen(flat)
    assert images.image_shape == (3, 7, 9)
    wanted = torch.from_numpy(np.repeat(grey[None], 3, axis=0)) / 255
    assert any(torch.equal(image, wanted) for image in everything(images)[0])
    assert said == "7 images read (1 from grey to RGB)"


def test_repeated_images_are_kept_once(flat):
    save(flat / "again.png", seed=0)
    images, said = load_and_listen(flat)
    assert len(everything(images)[1]) == 6
    assert said == "7 images read; left out: 1 repeated"


def test_what_is_no_picture_is_left_out_with_counts(flat):
    (flat / "notes.txt").write_text("no image")
    (flat / "LICENSE").write_text("no image")
    (flat / ".thumbnail.png").write_bytes(b"no image either")
    (flat / ".DS_Store").write_bytes(b"of no interest")
    for name in ("a.heic", "b.HEIC"):
        (flat / name).write_bytes(b"not read here")
    (flat / "gone.png").symlink_to(flat / "nowhere")
    (flat / "loop.png").symlink_to(flat / "loop.png")
    os.mkfifo(flat / "pipe.png")
    images, said = load_and_listen(flat)
    assert len(everything(images)[1]) == 6
    assert said == (
        "6 images read; left out: 2 .heic, 1 .txt, 1 hidden, 3 no file or a broken link, 1 without a suffix"
    )


def test_a_folder_with_nothing_to_say_is_read_in_silence(flat):
    assert load_and_listen(flat)[1] is None


def test_hidden_directories_and_those_without_images_are_no_classes(tmp_path):
    for number in range(6):
        save(tmp_path / ("cat", "dog.png")[number % 2] / f"{number}.PNG", seed=number)
    save(tmp_path / ".ipynb_checkpoints" / "0-checkpoint.png", seed=9)
    save(tmp_path / "cat" / "more" / "7.png", seed=7)
    (tmp_path / "empty").mkdir()
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "1.heic").write_bytes(b"not read here")
    images, said = load_and_listen(tmp_path)
    assert images.classes == ("cat", "dog.png")
    assert said == (
        "6 images read; left out: 1 .heic, 1 directories in directories, 1 directory without images (empty), "
        "1 directory without images (phone), 1 hidden directory (.ipynb_checkpoints)"
    )


def test_directories_of_directories_are_named_as_such(tmp_path):
    save(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(UsageError, match=r"holds no images.*: put .*; the directories in its directories are not"):
        load(tmp_path)


def test_near_duplicates_are_on_one_side(tmp_path):
    generator = np.random.default_rng(0)
    for scene in range(6):
        colours = generator.integers(0, 256, (3, 3, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        for quality in (70, 80, 90, 95):
            (tmp_path / str(scene)).mkdir(exist_ok=True)
            Image.fromarray(colours).save(tmp_path / str(scene) / f"{quality}.jpg", quality=quality)
    images = load(tmp_path)
    sides = [set(part.labels.tolist()) for part in (images.private, images.tuning, images.public)]
    assert all(sides)
    assert sum(map(len, sides)) == 6


def test_the_versions_of_one_picture_are_no_data_set(tmp_path):
    for quality in (70, 80, 90, 95):
        colours = np.random.default_rng(0).integers(0, 256, (3, 3, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(colours).save(tmp_path / f"{quality}.jpg", quality=quality)
    with pytest.raises(UsageError, match=r"holds 1 different images, near-duplicates .* counted once"):
        load(tmp_path)


def test_the_canonical_spec_holds_the_absolute_path(flat, monkeypatch):
    monkeypatch.chdir(flat.parent)
    absolute = resolve("dataset", f"folder:path='{flat}'")
    assert resolve("dataset", f"folder:path='{flat.name}'") == absolute
    assert resolve("dataset", f"folder:path='./{flat.name}/../{flat.name}'") == absolute
    monkeypatch.chdir(flat)
    assert resolve("dataset", "folder:path=.") == absolute
    assert resolve("dataset", "folder:path=elsewhere") != absolute
    assert resolve("dataset", absolute) == absolute


def test_a_path_that_is_not_utf_8_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds bytes that are no UTF-8: rename it"):
        create("dataset", Spec.of("folder", {"path": os.fsdecode(bytes(tmp_path) + b"/caf\xe9")}))


def test_a_file_name_that_is_not_utf_8_is_read_and_can_be_named(flat):
    odd = os.fsdecode(bytes(flat) + b"/caf\xe9.png")
    save(flat / "new.png", seed=8)
    os.rename(flat / "new.png", odd)
    assert len(everything(load(flat))[1]) == 7
    with open(odd, "wb"):
        pass
    with pytest.raises(UsageError, match="caf�" + r"\.png cannot be read as an image"):
        load(flat)


def test_the_program_says_on_one_line_what_is_left_out(tmp_path, call, workplace):
    pictures = tmp_path / "pictures"
    for number in range(6):
        save(pictures / f"{number}.png", seed=number)
    (pictures / "a.heic").write_bytes(b"not read here")
    options = ("--attack", "random", "--model", "linear", "--batch-size", "2", "--device", "cpu")
    code, out, err = call("run", *options, "--dataset", "folder:path=pictures")
    assert code == 0
    assert f"warning: {pictures}: 6 images read; left out: 1 .heic" in err.splitlines()
    assert "heic" not in out


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
    with pytest.raises(UsageError, match=r"holds no images \(only 1 \.txt\): put files such as \.bmp, .* there$"):
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
