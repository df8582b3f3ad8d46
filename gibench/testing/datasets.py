"""What every data set keeps to."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from typing import Any

from gibench import seeds
from gibench.datasets import check
from gibench.datasets.base import Images, Split
from gibench.datasets.near import NEAR_PSNR, near_any
from gibench.testing import subject as shared
from gibench.testing.subject import FaultError, settings, tensors_of, unchanged_process

_MOST = 2000  # images of a split that are compared for likeness


class Subject(shared.Subject):
    """A data set."""

    kind = "dataset"

    @cached_property
    def images(self) -> Images:
        """As it is loaded in a run.

        Raises:
            FaultError: it breaks its contract.
        """
        with seeds.isolated(0, "data"):
            loaded = self.plugin.load()
        if fault := check.fault(loaded):
            raise FaultError(f"it {fault}")
        return loaded  # type: ignore[no-any-return]


def images(subject: Subject) -> str:
    """Gives four splits of labelled images: float32 pixels k/255 in [0, 1], and labels of its classes."""
    found = subject.images
    if not len(found.private) or not len(found.public):
        raise FaultError("its private or public split is empty")
    counts = ", ".join(f"{name} {len(getattr(found, name))}" for name in check.SPLITS)
    return f"{list(found.image_shape)}, {found.num_classes} classes: {counts}"


def fixed(subject: Subject) -> str:
    """Gives the same images each time, whatever the global generators hold."""
    first = dict(tensors_of(subject.images))
    shared.stir(1)
    for name, tensor in tensors_of(subject.plugin.load()):
        if not shared.same(first[name], tensor):
            raise FaultError(f"{name} differs from one load to the next: splits must not depend on a seed")
    return "twice the same"


def apart(subject: Subject) -> str:
    """Has no private image, nor one nearly like it, among those that a server or a tuner is shown."""
    private = subject.images.private
    seen = _digests(private)
    for name in ("tuning", "public", "training"):
        split = getattr(subject.images, name)
        if shared_images := len(seen & _digests(split)):
            raise FaultError(f"{shared_images} private images are in the {name} split too")
        if name != "training" and len(split) and (near := int(near_any(_pixels(private), _pixels(split)).sum())):
            raise FaultError(
                f"{near} private images are within {NEAR_PSNR:g} dB of one of the {name} split: "
                "gibench.datasets.split.split keeps them apart"
            )
    return "no split gives another away"


def process(subject: Subject) -> str:
    """Leaves the process as it is: defaults, threads, global generators, folder, libraries, standard output."""
    subject.plugin.load()  # what is first imported may set something up
    with unchanged_process():
        subject.plugin.load()
    return "as it was"


def planned(subject: Subject) -> str:
    """Answers `check` without reading its images, and names files that are there."""
    subject.plugin.check()
    if missing := [file for file in subject.plugin.files() if not file.exists()]:
        raise FaultError(f"`files` names {missing[0]}, which is not there")
    return "comes with its package" if subject.plugin.bundled else "is not read for a plan"


def cell(subject: Subject) -> str:
    """Can be attacked: a batch of it gives a gradient that is not zero."""
    preparation, _ = subject.prepared()
    return f"gradient norm {preparation.row['grad_norm']:.2g}"


CHECKS = (settings, images, fixed, apart, process, planned, cell)


def _digests(split: Split) -> set[bytes]:
    return {sha256(image.tobytes()).digest() for image in split.images.numpy()}


def _pixels(split: Split) -> Any:
    """8-bit pixels `[N, H, W, C]` of the first images."""
    return (split.images[:_MOST] * 255).round().byte().permute(0, 2, 3, 1).numpy()
