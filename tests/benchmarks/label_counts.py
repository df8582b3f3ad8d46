"""How many labels the rule `counts` finds, on images of the tuning splits: `python tests/benchmarks/label_counts.py`.

Its constants are chosen here, and nowhere on images that tables are made of. Batches of one to 32 images of two, three,
five and ten classes, whole gradients and such as clipping scales down: the mean share of the labels found by `counts`
and by rounding `B (p - dL/db)`, the share of batches in which the former finds fewer, and the former's mean with other
values of its constants. Five minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gibench import seeds, training
from gibench.attacks.optimization import class_counts
from gibench.attacks.optimization.class_counts import Reference
from gibench.attacks.optimization.labels import output_layer
from gibench.datasets.base import Images, Split
from gibench.datasets.digits import Digits
from gibench.datasets.lfw import LFW
from gibench.datasets.photos import Photos
from gibench.models.lenet import LeNet
from gibench.models.mlp import MLP
from gibench.observation import ImagePrior, Observation, ThreatModel, Update

DATA = [(Digits(), 10), (Digits(), 5), (Digits(), 3), (Digits(), 2), (LFW(), 2), (Photos(), 10)]
MODELS, STEPS, SIZES, BATCHES = [MLP(width=100, depth=2), LeNet()], [0, 60], [1, 2, 3, 4, 8, 16, 32], 3
SCALES = [1.0, 0.3, 0.03, 0.001]
OTHERS: dict[str, list[Any]] = {
    "_LIKE": [(0.8, 2.0), (0.2, 5.0)],
    "_RIDGE": [0.01, 1.0],
    "_SHRUNK": [0.25, 0.7],
    "_CLEARER": [0.0, 1.0],
}
Case = tuple[tuple[int, str, int], Tensor, Tensor, Reference, Tensor]


def of_classes(split: Split, count: int) -> Split:
    """The images of the first classes."""
    kept = split.labels < count
    return Split(split.images[kept], split.labels[kept])


def cases() -> Iterator[Case]:
    """What is varied (classes, labels, training steps), the last layer's gradient, what is known, and the labels."""
    for dataset, classes in DATA:
        images = dataset.load()
        some = replace(
            images, **{name: of_classes(getattr(images, name), classes) for name in ("tuning", "public", "training")}
        )
        for model in MODELS:
            for steps in STEPS:
                with seeds.isolated(0, "model"):
                    network = model.build(images.image_shape, classes)
                    training.train(network, some, steps, torch.default_generator)
                layer = output_layer(network, classes, images.image_shape)
                last = network.get_submodule(layer)
                prior = ImagePrior(some.public.images.mean(0), some.public.images.std(0))
                facts = {"threat_model": ThreatModel(), "prior": prior}
                seen = Observation(
                    network, Update({}), images.image_shape, images.mean, images.std, classes, **facts
                )  # fmt: skip
                reference = Reference.of(seen, layer)
                for labels, pixels, targets in batches(some):
                    loss = functional.cross_entropy(network(images.normalize(pixels)), targets)
                    gradient = torch.autograd.grad(loss, [last.weight, last.bias])
                    yield (classes, labels, steps), *gradient, reference, targets


def batches(images: Images) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Batches of the tuning split, with repetition: their rule of labels, images and labels."""
    generator = torch.Generator().manual_seed(0)
    tuning = images.tuning
    for size in SIZES:
        for _ in range(BATCHES):
            drawn = torch.randint(len(tuning), (size,), generator=generator)
            yield "iid", tuning.images[drawn], tuning.labels[drawn]
            alike = (tuning.labels == tuning.labels[drawn[0]]).nonzero()[:, 0]
            drawn = alike[torch.randint(len(alike), (size,), generator=generator)]
            yield "same", tuning.images[drawn], tuning.labels[drawn]


def found(inferred: Tensor, targets: Tensor, classes: int) -> float:
    """The share of the labels that were found, wherever they stand."""
    both = torch.minimum(inferred.bincount(minlength=classes), targets.bincount(minlength=classes))
    return float(both.sum()) / len(targets)


def by_rounding(bias: Tensor, reference: Reference, size: int) -> Tensor:
    """The labels by the whole numbers nearest to `B (p - dL/db)` that sum to B."""
    counts = size * (reference.probabilities - bias)
    whole = class_counts._whole(counts, torch.zeros_like(counts), size)
    return torch.repeat_interleave(torch.arange(len(whole)), whole.long())


def measure(every: list[Case], scale: float) -> dict[tuple[int, str, int], list[tuple[float, float]]]:
    """For each kind of batch the shares found, by `counts` and by rounding, of gradients times `scale`."""
    shares: dict[tuple[int, str, int], list[tuple[float, float]]] = {}
    for kind, weight, bias, reference, targets in every:
        inferred = class_counts.infer(scale * weight, scale * bias, reference, len(targets))
        rounded = by_rounding(scale * bias.double(), reference, len(targets))
        shares.setdefault(kind, []).append(tuple(found(each, targets, kind[0]) for each in (inferred, rounded)))
    return shares


def mean(values: Iterator[float]) -> float:
    """Of numbers."""
    listed = list(values)
    return sum(listed) / len(listed)


def main() -> None:
    """Print a line for each kind of batch and scale, and one for each other value of a constant."""
    torch.set_num_threads(1)
    every = list(cases())
    print("classes labels steps  scale  counts  rounding  fewer")
    for scale in SCALES:
        for (classes, labels, steps), shares in sorted(measure(every, scale).items()):
            counts, rounding, fewer = (
                mean(value(*pair) for pair in shares)
                for value in (lambda a, _: a, lambda _, b: b, lambda a, b: float(a < b))
            )
            print(f"{classes:7} {labels:6} {steps:5}  {scale:5g}  {counts:6.3f}  {rounding:8.3f}  {fewer:5.3f}")
    for name, values in OTHERS.items():
        chosen = getattr(class_counts, name)
        for value in [chosen, *values]:
            setattr(class_counts, name, value)
            whole, scaled = (
                mean(share for scale in scales for pairs in measure(every, scale).values() for share, _ in pairs)
                for scales in (SCALES[:1], SCALES[1:])
            )
            print(f"{name}={value}: {whole:.4f} of whole gradients, {scaled:.4f} of clipped ones", flush=True)
        setattr(class_counts, name, chosen)


if __name__ == "__main__":
    main()
