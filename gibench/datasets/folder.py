"""Anybody's own images: a directory of them, or one directory a class."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, field_validator

from gibench.datasets.base import Dataset, Images
from gibench.datasets.picture import formats, name_of, read_picture
from gibench.datasets.split import split
from gibench.errors import DataWarning, UsageError


class Folder(Dataset):
    """Images of a directory (one class) or of its subdirectories (a class each), grey if all of them are.

    Splits: about 57% private, 6% tuning and 37% public, whole clusters of near-duplicates each. What was left out or
    converted is one warning.
    """

    path: str = Field("", description="the directory")
    resize: int | None = Field(
        None, ge=4, le=1024, description="crop each image to its middle square and resize it to so many pixels a side"
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        """The same text in two working directories names two data sets, so a cell's key holds the whole path."""
        return os.path.realpath(os.path.expanduser(path)) if path else ""

    def check(self) -> None:
        _Tree(self.path)

    def files(self) -> list[Path]:
        return [file for file, _ in _Tree(self.path).files]

    def load(self) -> Images:
        tree = _Tree(self.path)
        images, converted = [], Counter[str]()
        for file, _ in tree.files:
            image, notes = read_picture(file)
            images.append(ImageOps.fit(image, (self.resize, self.resize)) if self.resize else image)
            converted.update(notes)
            if images[-1].size != images[0].size:
                raise UsageError(
                    f"{name_of(tree.files[0][0])} is {_size(images[0])} and {name_of(file)} is {_size(image)}: images "
                    "of one data set have one size, so resize them, or let resize=N do it"
                )
        grey = sum(image.mode == "L" for image in images)
        if grey not in (0, len(images)):
            converted["from grey to RGB"] = grey
        mode = "L" if grey == len(images) else "RGB"
        pixels = np.stack([np.asarray(image.convert(mode)) for image in images])
        found = split(
            pixels.reshape(*pixels.shape[:3], -1), [label for _, label in tree.files], [*map(name_of, tree.classes)]
        )
        repeated = len(images) - len(found.private) - len(found.tuning) - len(found.public)
        if repeated:
            tree.left_out["repeated"] = repeated
        _say(self.path, len(images), converted, tree.left_out)
        return found


class _Tree:
    """What lies in a directory: the picture files with their labels, the classes, and what is left out.

    Raises:
        UsageError: it is no directory, cannot be listed, or holds no pictures or more than one layout.
    """

    def __init__(self, path: str) -> None:
        if not path:
            raise UsageError("the data set folder needs a directory: write folder:path=DIRECTORY")
        root = Path(path)
        if not os.path.isdir(path):  # that of pathlib raises where a name is too long
            raise UsageError(f"there is no directory {path}: give the path of a directory of images")
        self.left_out: Counter[str] = Counter()
        here, folders = self._sorted_out(root)
        inside = {folder: self._sorted_out(folder) for folder in folders}
        classes = [folder for folder in folders if inside[folder][0]]
        if here and classes:
            raise UsageError(
                f"{path} holds both images and directories of images ({name_of(Path(classes[0].name))}): put each "
                "image into the directory of its class, or name one class's directory"
            )
        nested = sum(len(inside[folder][1]) for folder in folders)
        if not here and not classes:
            within = "; the directories in its directories are not looked into, so name one of these" if nested else ""
            found = f" (only {_listed(self.left_out)})" if self.left_out else ""
            raise UsageError(
                f"{path} holds no images{found}: put files such as .bmp, .gif, .jpg, .png, .tif or .webp there{within}"
            )
        for folder in folders:
            if folder not in classes:
                self.left_out[f"directory without images ({name_of(Path(folder.name))})"] += 1
        if nested:
            self.left_out["directories in directories"] = nested
        self.classes = [Path(folder.name) for folder in classes] or [Path(root.name)]
        files = [inside[folder][0] for folder in classes] or [here]
        self.files = [(file, label) for label, members in enumerate(files) for file in members]

    def _sorted_out(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The picture files and the directories in a directory; the rest is counted as left out."""
        files, folders = [], []
        try:
            for each in sorted(folder.iterdir()):
                suffix = each.suffix.lower()
                if each.name.startswith("."):
                    if each.is_dir():
                        self.left_out[f"hidden directory ({name_of(Path(each.name))})"] += 1
                    elif suffix in formats():
                        self.left_out["hidden"] += 1
                elif each.is_dir():
                    folders.append(each)
                elif not each.is_file():
                    self.left_out["no file or a broken link"] += 1
                elif suffix in formats():
                    files.append(each)
                else:
                    self.left_out[name_of(Path(suffix)) if suffix else "without a suffix"] += 1
        except OSError as error:
            raise UsageError(f"{name_of(folder)} cannot be listed ({error.strerror}): change its permissions") from None
        return files, folders


def _say(path: str, count: int, converted: Counter[str], left_out: Counter[str]) -> None:
    """One warning, with counts, if there is anything to say."""
    if converted or left_out:
        how = f" ({_listed(converted)})" if converted else ""
        rest = f"; left out: {_listed(left_out)}" if left_out else ""
        warnings.warn(f"{path}: {count} images read{how}{rest}", DataWarning, stacklevel=3)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
