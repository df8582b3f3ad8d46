"""One picture file: every kind that Pillow reads, metadata that nobody can read, and what is damaged."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from gibench.datasets.picture import formats, read_picture
from gibench.errors import UsageError

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (6, 5, 3)).astype(np.uint16)
DEEPER = "from 16 bits a channel to 8"


def png(header, rows, *chunks):
    """A PNG made by hand: bit depth and colour type, unfiltered rows, and chunks before the pixels."""

    def chunk(kind, content, crc=None):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc or zlib.crc32(kind + content))

    size = struct.pack(">2I", COLOURS.shape[1], COLOURS.shape[0])
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", size + bytes([*header, 0, 0, 0])), *(chunk(*each) for each in chunks)]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts, chunk(b"IDAT", pixels), chunk(b"IEND", b"")])


def deep_png(values, colour_type):
    return png((16, colour_type), [row.astype(">u2").tobytes() for row in values])


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def read(tmp_path):
    def from_content(content, name="picture.png"):
        (tmp_path / name).write_bytes(content)
        image, notes = read_picture(tmp_path / name)
        return np.asarray(image), notes

    return from_content


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".bmp", "BMP"), (".tga", "TGA"), (".TIFF", "TIFF"), (".webp", "WEBP"), (".ppm", "PPM")]
)
def test_lossless_formats_are_read_as_they_are(read, suffix, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels, notes = read(saved(Image.fromarray(COLOURS), kind, **options), f"picture{suffix}")
    assert np.array_equal(pixels, COLOURS)
    assert notes == []


@pytest.mark.parametrize(("suffix", "kind"), [(".jfif", "JPEG"), (".jp2", "JPEG2000"), (".avif", "AVIF")])
def test_what_pillow_can_read_is_read(read, suffix, kind):
    feature = {"JPEG": "jpg", "JPEG2000": "jpg_2000", "AVIF": "avif"}[kind]
    if not features.check(feature):
        pytest.skip(f"this Pillow has no {kind}")
    assert suffix in formats()
    pixels, notes = read(saved(Image.new("RGB", (16, 16), (200, 100, 50)), kind), f"picture{suffix}")
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() < 8
    assert notes == []


@pytest.mark.parametrize("suffix", [".eps", ".pdf", ".h5", ".mpg", ".fits"])
def test_documents_data_and_films_are_no_pictures(suffix):
    assert suffix not in formats()


@pytest.mark.parametrize("name", ["grey.png", "colour.png", "grey.tif", "colour.tif"])
def test_16_bits_are_rounded_to_8_in_grey_and_in_colour_alike(read, name):
    values = DEEP if "colour" in name else DEEP[:, :, 0]
    if name.endswith("png"):
        content = deep_png(values, 2 if values.ndim == 3 else 0)
    else:
        file = io.BytesIO()
        tifffile.imwrite(file, values, photometric="rgb" if values.ndim == 3 else "minisblack")
        content = file.getvalue()
    pixels, notes = read(content, name)
    assert np.array_equal(pixels, np.rint(values / 257))
    assert notes == [DEEPER]


def test_16_bits_with_transparency_are_both_said(read):
    pixels, notes = read(deep_png(np.dstack([DEEP, DEEP[:, :, :1]]), 6))
    assert np.array_equal(pixels, np.rint(DEEP / 257))
    assert notes == [DEEPER, "without their transparency"]


def test_a_deep_tiff_is_turned_upright(read):
    file = io.BytesIO()
    tifffile.imwrite(file, DEEP, photometric="rgb", extratags=[(274, "H", 1, 6, False)])
    pixels, _ = read(file.getvalue(), "deep.tif")
    assert np.array_equal(pixels, np.rot90(np.rint(DEEP / 257), -1))


def test_a_deep_pgm_is_said_to_be_converted(read):
    header = b"P5\n# made by hand\n5 6\n65535\n"
    pixels, notes = read(header + DEEP[:, :, 0].astype(">u2").tobytes(), "deep.pgm")
    assert np.array_equal(pixels, np.rint(DEEP[:, :, 0] / 257))
    assert notes == [DEEPER]


def test_lab_becomes_rgb(read):
    white = saved(Image.new("LAB", (5, 6), (255, 128, 128)), "TIFF")
    pixels, notes = read(white, "lab.tif")
    assert pixels.min() >= 253
    assert notes == ["from LAB to RGB"]


def test_cmyk_becomes_rgb(read):
    pixels, notes = read(saved(Image.new("CMYK", (5, 6), (255, 0, 0, 0)), "TIFF"), "print.tif")
    assert pixels[0, 0].tolist() == [0, 255, 255]
    assert notes == ["from CMYK to RGB"]


def test_one_bit_is_black_and_white(read):
    pixels, notes = read(saved(Image.new("1", (5, 6), 1), "PNG"))
    assert pixels.tolist() == [[255] * 5] * 6
    assert notes == []


@pytest.mark.parametrize(("alpha", "notes"), [(255, []), (80, ["without their transparency"])])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_said_where_there_is_any(read, mode, alpha, notes):
    image = Image.fromarray(COLOURS).convert(mode)
    image.putalpha(alpha)
    pixels, said = read(saved(image, "PNG"))
    assert np.array_equal(pixels, np.asarray(Image.fromarray(COLOURS).convert("L" if mode == "LA" else "RGB")))
    assert said == notes


def test_a_palette_with_a_transparent_colour_is_rgb(read):
    image = Image.fromarray(COLOURS).quantize(8)
    pixels, notes = read(saved(image, "PNG", transparency=int(np.asarray(image)[0, 0])))
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))
    assert notes == ["without their transparency"]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_read(read, kind):
    frames = [Image.new("RGB", (5, 6), colour) for colour in ("red", "green", "blue")]
    pixels, notes = read(saved(frames[0], kind, save_all=True, append_images=frames[1:]), f"film.{kind.lower()}")
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert notes == ["by the first frame alone"]


def test_floats_in_0_1_are_rounded_to_8_bits_and_others_refused(read):
    values = np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5)
    pixels, notes = read(saved(Image.fromarray(values), "TIFF"), "float.tif")
    assert np.array_equal(pixels, np.rint(values * 255))
    assert notes == ["from floats in [0, 1] to 8 bits"]
    for wrong in (values * 3, values - 1, np.where(values > 0.5, np.nan, values)):
        with pytest.raises(UsageError, match=r"float\.tif cannot be read as an image \(its pixels of mode F reach"):
            read(saved(Image.fromarray(wrong), "TIFF"), "float.tif")


def test_whole_numbers_of_32_bits_are_refused(read):
    with pytest.raises(UsageError, match=r"wide\.tif cannot be read .* mode I reach from 0 to 29000"):
        read(saved(Image.fromarray(np.arange(30, dtype=np.int32).reshape(6, 5) * 1000), "TIFF"), "wide.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_orientation_is_undone(read, kind, orientation):
    image = Image.fromarray(COLOURS)
    exif = image.getexif()
    exif[274] = orientation
    turned = {1: image, 2: image.transpose(0), 3: image.transpose(3), 4: image.transpose(1), 5: image.transpose(5)}
    turned |= {6: image.transpose(4), 7: image.transpose(6), 8: image.transpose(2)}
    pixels, _ = read(saved(image, kind, exif=exif), f"photo.{kind.lower()}")
    assert np.array_equal(pixels, np.asarray(turned[orientation]))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x07\0\x04\0\0\0H\0\0\0\0\0\0\0",  # a resolution of four bytes
        b"Exif\0\0II*\0\xff\xff\xff\x7f",  # a directory far behind the end
        b"Exif\0\0nonsense",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0up\0\0\0\0\0\0",  # an orientation in words
    ],
)
def test_metadata_never_stop_a_picture(read, exif):
    image = Image.new("RGB", (16, 8), (200, 100, 50))
    pixels, notes = read(saved(image, "JPEG", exif=exif), "photo.jpg")
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(saved(image, "JPEG")))))
    assert notes == (["as they lie, since their metadata cannot be read"] if b"up" in exif else [])


@pytest.mark.parametrize("chunk", [(b"tEXt", b"key\0word", 1), (b"iCCP", b"odd\0\0odd"), (b"zTXt", b"key\0\0odd")])
def test_broken_chunks_beside_the_pixels_of_a_png_do_not_matter(read, chunk):
    pixels, _ = read(png((8, 2), [row.tobytes() for row in COLOURS], chunk))
    assert np.array_equal(pixels, COLOURS)


@given(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", "TGA"]), st.data())
def test_a_damaged_file_is_read_or_named_on_one_line(tmp_path_factory, kind, data):
    content = bytearray(saved(Image.fromarray(COLOURS), kind))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "picture.png"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    problem = None
    try:
        assert read_picture(file)[0].mode in ("L", "RGB")
    except UsageError as error:
        problem = str(error)
    line = rf"{file} cannot be read as an image \(.+\): repair it or take it away"
    assert problem is None or re.fullmatch(line, problem)


def test_a_bomb_is_refused(read):
    size = struct.pack(">2I", 60_000, 60_000)
    content = png((8, 2), [])
    header = b"IHDR" + size + bytes([8, 2, 0, 0, 0])
    bomb = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    with pytest.raises(UsageError, match="decompression bomb"):
        read(bomb)
