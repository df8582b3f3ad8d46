"""torchvision's CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST, downloaded on first use."""

from __future__ import annotations

import os
import shutil
import socket
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from gibench.datasets.base import Dataset, Images
from gibench.datasets.split import split
from gibench.errors import UsageError

SILENCE_S = 20.0  # how long a server may send nothing before the download is given up


class _Torchvision(Dataset):
    """The official training images are public; of the official test images 6% are tuning and the rest private.

    Training images within 25 dB of a test image are left out.
    """

    source: ClassVar[str]  # torchvision's class

    root: str = Field("~/.cache/gibench", description="where torchvision's files are, or are downloaded to")

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        """Absolute, but for the home directory, which may be another on another machine without another result."""
        if root.startswith("~") and os.path.expanduser(root) == root:
            raise ValueError("there is no such user here")
        return root if root.startswith("~") else os.path.realpath(root)

    def load(self) -> Images:
        from torchvision import datasets

        read = getattr(datasets, self.source)
        root = Path(os.path.expanduser(self.root))
        if any(not os.path.isfile(file) for file in _files(read, root)):
            _download(read, root)
        _check_integrity(read, root)
        parts = [_read(read, root, train) for train in (False, True)]
        pixels = np.concatenate([pixels for pixels, _, _ in parts])
        labels = np.concatenate([labels for _, labels, _ in parts])
        return split(pixels, labels, parts[0][2], public_from=len(parts[0][0]))


class CIFAR10(_Torchvision):
    """60,000 images, 32x32x3, ten classes (170 MB download)."""

    source = "CIFAR10"


class CIFAR100(_Torchvision):
    """60,000 images, 32x32x3, a hundred classes (169 MB download)."""

    source = "CIFAR100"


class MNIST(_Torchvision):
    """70,000 handwritten digits, 28x28 grey (11 MB download)."""

    source = "MNIST"


class FashionMNIST(_Torchvision):
    """70,000 pieces of clothing, 28x28 grey, ten classes (31 MB download)."""

    source = "FashionMNIST"


def _files(read: Any, root: Path) -> dict[Path, str | None]:
    """The files of one of torchvision's data sets, with their MD5 where it is known."""
    if hasattr(read, "resources"):  # MNIST and its kin, unpacked
        raw = root / read.__name__ / "raw"
        return {raw / name.removesuffix(".gz"): None for name, _ in read.resources}
    folder = root / read.base_folder
    members = dict([*read.train_list, *read.test_list, (read.meta["filename"], read.meta["md5"])])
    return {folder / name: md5 for name, md5 in members.items()}


def _archives(read: Any, root: Path) -> dict[Path, str]:
    """The packed files that these are unpacked from, with their MD5."""
    if hasattr(read, "resources"):
        return {root / read.__name__ / "raw" / name: md5 for name, md5 in read.resources}
    return {root / read.filename: read.tgz_md5}


def _check_integrity(read: Any, root: Path) -> None:
    """
    Raises:
        UsageError: a file is not what it was published as.
    """
    for file, md5 in _files(read, root).items():
        if md5 and not _is_whole(file, md5):
            raise UsageError(f"{file} is damaged: delete it and run again")


def _is_whole(file: Path, md5: str) -> bool:
    from torchvision.datasets.utils import check_integrity

    try:
        return bool(check_integrity(file, md5))
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): change its permissions") from None


def _read(read: Any, root: Path, train: bool) -> tuple[Any, Any, Any]:
    """Pixels `[N, H, W, C]`, labels `[N]` and the names of the classes of one half.

    Raises:
        UsageError: the files are there and are not what they should be.
    """
    folder = next(iter(_files(read, root))).parent
    mend = f"delete {folder} and run again"
    try:
        part = read(root, train=train)
        pixels, labels = np.asarray(part.data), np.asarray(part.targets)
    except Exception as error:  # readers fail on damaged files in every way there is
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"the files of {read.__name__} in {folder} are damaged ({cause}): {mend}") from None
    half = "training" if train else "test"
    side = 28 if hasattr(read, "resources") else 32
    if not len(pixels) or len(pixels) != len(labels) or pixels.shape[1:3] != (side, side):
        found = f"{len(labels)} labels for {len(pixels)} images of {'x'.join(map(str, pixels.shape[1:]))}"
        raise UsageError(f"the {half} files of {read.__name__} in {folder} are damaged ({found}): {mend}")
    if labels.min() < 0 or labels.max() >= len(part.classes):
        raise UsageError(f"the {half} files of {read.__name__} in {folder} are damaged (no such label): {mend}")
    return pixels.reshape(*pixels.shape[:3], -1), labels, part.classes


def _download(read: Any, root: Path) -> None:
    """Put the files into `root`, each whole or not at all; what an earlier download left is completed.

    Raises:
        UsageError: they could not be downloaded.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".download-") as name, _impatient_sockets():
            folder = Path(name)
            for (there, md5), copy in zip(_archives(read, root).items(), _archives(read, folder), strict=True):
                if there.is_file() and _is_whole(there, md5):
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(there, copy)
            read(folder, download=True)
            for file, place in zip(_files(read, folder), _files(read, root), strict=True):
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
    except (OSError, RuntimeError, HTTPException, EOFError, tarfile.TarError, zlib.error) as error:
        raise UsageError(
            f"{_what_is_missing(read, root)} cannot be downloaded ({' '.join(str(error).split())}): connect to "
            "the network, or set root= to a directory that holds torchvision's files"
        ) from error


def _what_is_missing(read: Any, root: Path) -> str:
    files = _files(read, root)
    missing = [file.name for file in files if not os.path.isfile(file)]
    damaged = [
        file.name for file, md5 in _archives(read, root).items() if os.path.isfile(file) and not _is_whole(file, md5)
    ]
    archive = f" (the archive there is damaged: {', '.join(damaged)})" if damaged else ""
    if len(missing) == len(files):
        return f"{read.__name__} is not in {root}{archive} and"
    return f"{next(iter(files)).parent} lacks {', '.join(missing)} of {read.__name__}{archive}, which"


@contextmanager
def _impatient_sockets() -> Iterator[None]:
    """torchvision waits forever on a server that says nothing; this bounds it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
