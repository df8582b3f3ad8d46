"""Anybody's own images: a directory of them, or one directory a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from gibench.datasets.base import Dataset, Images
from gibench.datasets.split import split
from gibench.errors import UsageError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
GREY, COLOUR = frozenset({"1", "L", "LA"}), frozenset({"CMYK", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"})


class Folder(Dataset):
    """Images of a directory (one class) or of its subdirectories (a class each), grey if all of them are.

    Transparency is dropped, and of repeated images the first is kept. Splits: 57%, 6% and 37%.
    """

    path: str = Field("", description="the directory")
    resize: int | None = Field(
        None, ge=4, le=1024, description="crop each image to its middle square and resize it to so many pixels a side"
    )

    def load(self) -> Images:
        files, classes = self._files()
        images = [self._read(file) for file, _ in files]
        for (file, _), image in zip(files, images, strict=True):
            if image.size != images[0].size:
                raise UsageError(
                    f"{files[0][0]} is {_size(images[0])} and {file} is {_size(image)}: images of one data set have "
                    "one size, so resize them, or let resize=N do it"
                )
        mode = "L" if all(image.mode == "L" for image in images) else "RGB"
        pixels = np.stack([np.asarray(image.convert(mode)) for image in images])
        return split(pixels.reshape(*pixels.shape[:3], -1), [label for _, label in files], classes)

    def _files(self) -> tuple[list[tuple[Path, int]], list[str]]:
        """The image files with their labels, and the names of the classes."""
        if not self.path:
            raise UsageError("the data set folder needs a directory: write folder:path=DIRECTORY")
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise UsageError(f"there is no directory {root}: give the path of a directory of images")
        folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _images(folder)]
        if _images(root) and folders:
            raise UsageError(
                f"{root} holds both images and directories of images ({folders[0].name}): put each image into the "
                "directory of its class, or name one class's directory"
            )
        folders = folders or [root]
        files = [(file, label) for label, folder in enumerate(folders) for file in _images(folder)]
        if not files:
            raise UsageError(f"{root} holds no images: put files with {', '.join(sorted(SUFFIXES))} there")
        return files, [folder.name for folder in folders]

    def _read(self, file: Path) -> Image.Image:
        """One image, upright, as mode L or RGB."""
        try:
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # as Pillow's decoders fail
            raise UsageError(f"{file} cannot be read as an image ({error}): repair it or take it away") from None
        if image.mode not in GREY | COLOUR:
            raise UsageError(f"{file} has pixels of mode {image.mode}: save it with 8 bits a channel")
        image = image.convert("L" if image.mode in GREY else "RGB")
        return ImageOps.fit(image, (self.resize, self.resize)) if self.resize else image


def _images(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
