"""Reads one picture file as 8-bit grey or colour, upright, and says what was converted."""

from __future__ import annotations

import io
import re
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, TiffImagePlugin

from gibench.errors import UsageError

NO_PICTURES = frozenset({"BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})  # data, programs, films
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_BITS, ORIENTATION = 258, 274  # tags
UPRIGHT = {  # how to undo each orientation of a camera
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def formats() -> dict[str, str]:
    """The suffixes that are read, each with Pillow's name of the format."""
    known = Image.registered_extensions()  # by this Pillow
    return {suffix: name for suffix, name in known.items() if name in Image.OPEN and name not in NO_PICTURES}


def read_picture(file: Path) -> tuple[Image.Image, list[str]]:
    """One picture as mode L or RGB, and what was converted, as `2 ...` would go on.

    Raises:
        UsageError: it cannot be read, or its values have no place on the 8-bit grid.
    """
    try:
        content = file.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about metadata
            return _convert(*_open(content))
    except Exception as error:  # decoders fail on damaged files in every way there is
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{name_of(file)} cannot be read as an image ({cause}): repair it or take it away") from None


def name_of(path: Path) -> str:
    """A path for people to read, whatever bytes it is made of."""
    return bytes(path).decode(errors="replace")


def _open(content: bytes) -> tuple[Image.Image, bytes]:
    """The picture with its pixels loaded; metadata that cannot be read are cut out of a PNG."""
    try:
        return _loaded(content), content
    except (OSError, SyntaxError, ValueError):
        bare = _without_metadata(content)
        if len(bare) == len(content):
            raise
        return _loaded(bare), bare


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=sorted(set(formats().values())))


def _loaded(content: bytes) -> Image.Image:
    image = _opened(content)
    image.load()
    return image


def _without_metadata(content: bytes) -> bytes:
    """A PNG with no chunks but those of its pixels; anything else as it is."""
    if not content.startswith(PNG_MAGIC):
        return content
    kept, position = [PNG_MAGIC], len(PNG_MAGIC)
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(content[position : position + length + 12])
        position += length + 12
    return b"".join(kept)


def _convert(image: Image.Image, content: bytes) -> tuple[Image.Image, list[str]]:
    notes = ["by the first frame alone"] if _frames(content) > 1 else []
    orientation = _orientation(image)
    if orientation is None:
        notes.append("as they lie, since their metadata cannot be read")
    bits = _bits(image, content)
    if bits > 8:
        notes.append(f"from {bits} bits a channel to 8")
        image, cut = _rounded(image, content)
        notes += cut
    if image.has_transparency_data and _alpha(image).getextrema()[0] != 255:
        notes.append("without their transparency")
    converted, note = _eight_bits(image)
    return (converted.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else converted), notes + note


def _alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").getchannel("A")


def _frames(content: bytes) -> int:
    try:
        return int(getattr(_opened(content), "n_frames", 1))
    except Exception:  # the first frame is sound, and what follows is not wanted
        return 2


def _orientation(image: Image.Image) -> int | None:
    """As EXIF says; None where that cannot be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # of damaged metadata, whatever Pillow raises; it becomes a note
        return None


def _eight_bits(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """As mode L or RGB, with what was converted."""
    mode = image.mode
    if mode in ("1", "L", "LA"):
        return image.convert("L"), []
    if mode in ("P", "PA", "RGB", "RGBA", "RGBX"):
        return image.convert("RGB"), []
    if mode in ("CMYK", "YCbCr", "HSV"):
        return image.convert("RGB"), [f"from {mode} to RGB"]
    if mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert converted is not None  # it is no transformation in place
        return converted, ["from LAB to RGB"]
    values = np.asarray(image)
    if mode == "F" and values.min() >= 0 and values.max() <= 1:  # false for NaN
        return Image.fromarray(np.rint(values * 255).astype(np.uint8)), ["from floats in [0, 1] to 8 bits"]
    raise ValueError(
        f"its pixels of mode {mode} reach from {values.min():g} to {values.max():g}, and 8 or 16 bits a channel or "
        "floats in [0, 1] are wanted"
    )


def _bits(image: Image.Image, content: bytes) -> int:
    """Bits a channel in the file, as far as the format is known to have more than the 8 that Pillow gives."""
    if image.mode.startswith("I;16"):
        return 16
    if content.startswith(PNG_MAGIC):
        return content[24]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16 if 16 in tuple(image.tag_v2.get(TIFF_BITS, ())) and image.mode != "I" else 8
    if found := re.match(rb"P[2356]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s+(\d+)", content[:1000]):
        return int(found[1]).bit_length()
    if image.format == "JPEG2000" and (start := content[:200].find(b"ihdr")) > 0:
        return (content[start + 14] & 127) + 1
    return 8


def _rounded(image: Image.Image, content: bytes) -> tuple[Image.Image, list[str]]:
    """A picture of more than 8 bits a channel with 8; a note where deep values cannot be had and Pillow cut them."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_deep(np.asarray(image)), []
    if content.startswith(PNG_MAGIC):
        import torch
        from torchvision.io import ImageReadMode, decode_image

        tensor = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
        return _from_deep(tensor.permute(1, 2, 0).numpy()), []
    return _rounded_tiff(image, content) if image.format == "TIFF" else (image, [])


def _rounded_tiff(image: Image.Image, content: bytes) -> tuple[Image.Image, list[str]]:
    import tifffile

    try:
        page = tifffile.TiffFile(io.BytesIO(content)).pages.first
        values = page.asarray()
        if values.shape[:2] != page.shape[-2:] and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            values = np.moveaxis(values, 0, -1)
        orientation = page.tags.valueof(ORIENTATION, 1)
        deep = _from_deep(values)
    except Exception:  # compressed in a way that only Pillow knows, whose pixels are sound; it becomes a note
        return image, ["which may be one level off"]
    return (deep.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else deep), []


def _from_deep(values: npt.NDArray[Any]) -> Image.Image:
    """Values in [0, 65535], `[H, W]` or `[H, W, channels]`, on the 8-bit grid."""
    rounded = np.rint(values / 257).astype(np.uint8)
    return Image.fromarray(rounded[:, :, 0] if rounded.ndim == 3 and rounded.shape[2] == 1 else rounded)
