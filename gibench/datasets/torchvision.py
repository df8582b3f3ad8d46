"""torchvision's CIFAR-10, CIFAR-100, MNIST and Fashion-MNIST, downloaded on first use."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from gibench.datasets.base import Dataset, Images
from gibench.datasets.split import split
from gibench.errors import UsageError

SILENCE_S = 20.0  # how long a server may send nothing before the download is given up


class _Torchvision(Dataset):
    """The official training images are public; of the official test images 6% are tuning and the rest private."""

    source: ClassVar[str]  # torchvision's class

    root: str = Field("~/.cache/gibench", description="where torchvision's files are, or are downloaded to")

    def load(self) -> Images:
        from torchvision import datasets

        read = getattr(datasets, self.source)
        root = Path(self.root).expanduser()
        try:
            test = read(root, train=False)
        except RuntimeError:  # torchvision's word for "not there"
            _download(read, root)
            test = read(root, train=False)
        parts = [test, read(root, train=True)]
        pixels = np.concatenate([np.asarray(part.data) for part in parts])
        labels = np.concatenate([np.asarray(part.targets) for part in parts])
        return split(pixels.reshape(*pixels.shape[:3], -1), labels, test.classes, public_from=len(test))


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


def _download(read: Any, root: Path) -> None:
    """Put the files into `root`, all or nothing, so that an interrupted download cannot pass for a whole one.

    Raises:
        UsageError: it could not be downloaded.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".download-") as folder, _impatient_sockets():
            read(folder, download=True)
            for part in Path(folder).iterdir():
                if part.is_dir():  # beside it lies the archive it was unpacked from
                    os.replace(part, root / part.name)
    except (OSError, RuntimeError, HTTPException) as error:
        raise UsageError(
            f"{read.__name__} is not in {root} and cannot be downloaded ({' '.join(str(error).split())}): connect to "
            "the network, or set root= to a directory that holds torchvision's files"
        ) from error


@contextmanager
def _impatient_sockets() -> Iterator[None]:
    """torchvision waits forever on a server that says nothing; this bounds it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
