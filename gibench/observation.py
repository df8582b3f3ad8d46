"""What the server sees: the update, the model it sent, and only those further facts that the threat model grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from gibench.spec import Spec
from gibench.threat_model import ThreatModel

UpdateKind = Literal["gradient", "weight_delta"]


@dataclass(frozen=True)
class Update:
    """What leaves the client, in the dtype it is sent in: one tensor a parameter, see `model.named_parameters()`.

    `gradient`: the mean-loss gradient. `weight_delta`: local weights minus the weights received.

    `buffers` are what a `state_dict()` holds beside parameters, those the clients are left with minus those received:
    BatchNorm's running statistics and counters. There are none where clients keep them. The harness writes them.
    """

    tensors: Mapping[str, Tensor]
    kind: UpdateKind = "gradient"
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalTraining:
    """How a client trained, granted as `local_hyperparameters`.

    `total_lr` is what the delta is, to first order, in units of the gradient: the sum over local steps of the
    learning rate times the momentum weight that each step's gradient goes on to receive.
    """

    epochs: int
    local_batch_size: int
    lr: float
    momentum: float
    clients: int
    total_lr: float


@dataclass(frozen=True)
class ImagePrior:
    """What is known of such images in general, granted as `prior`: statistics of the public split in [0, 1]."""

    mean: Tensor  # [C, H, W]
    std: Tensor  # [C, H, W]


@dataclass(frozen=True)
class SurrogateData:
    """Labelled public images of the same kind, granted as `surrogate_data`."""

    images: Tensor  # [M, C, H, W] in [0, 1]
    labels: Tensor  # [M]


@dataclass(frozen=True)
class Observation:
    """Everything an attack may use. The truth is not in it, and what the threat model withholds is None.

    `model` maps normalised images `(x - mean) / std` to logits, and is in the mode (train or eval) the client used;
    the loss is the mean cross-entropy of the batch.

    `defenses` is the chain in canonical order, with every setting (clip norms, noise levels, the pruned share): the
    protocol that the server prescribed, known with the local hyperparameters. What a defense drew (noise, the order of
    local batches, a random mask but for its zeros) is in none of it. An attack that reads it sets `adaptive`.
    """

    model: nn.Module
    update: Update
    image_shape: tuple[int, int, int]  # C, H, W
    mean: Tensor  # [C]
    std: Tensor  # [C]
    num_classes: int
    threat_model: ThreatModel
    batch_size: int | None = None
    labels: Tensor | None = None
    local_hyperparameters: LocalTraining | None = None
    defenses: tuple[Spec, ...] | None = None
    bn_statistics: Mapping[str, Tensor] | None = None
    prior: ImagePrior | None = None
    surrogate_data: SurrogateData | None = None
    foreign: bool = False  # for a control, see `Attack.foreign`: all that is said of a batch is of other images

    @property
    def mode(self) -> Literal["train", "eval"]:
        """That of the client's network, and of `model`."""
        return "train" if self.model.training else "eval"

    @property
    def scale_known(self) -> bool:
        """Whether `gradient()` has the gradient's scale too, to first order in the local learning rate."""
        return self.update.kind == "gradient" or self.local_hyperparameters is not None

    def gradient(self) -> dict[str, Tensor]:
        """The update in gradient sign, whatever the protocol; see `scale_known` for its scale."""
        if self.update.kind == "gradient":
            return dict(self.update.tensors)
        scale = -1.0 / self.local_hyperparameters.total_lr if self.local_hyperparameters else -1.0
        return {name: tensor * scale for name, tensor in self.update.tensors.items()}

    def in_single(self) -> Self:
        """The same with what was sent in half precision in single, for attacks that compute with it as with a model."""
        sent = self.update.tensors
        wide = {name: tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for name, tensor in sent.items()}
        return replace(self, update=replace(self.update, tensors=wide))

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels `[N, C, H, W]` in [0, 1] to what the model takes."""
        return (images - _per_channel(self.mean, images)) / _per_channel(self.std, images)

    def denormalize(self, inputs: Tensor) -> Tensor:
        """What the model takes, `[N, C, H, W]`, to pixels; not clamped."""
        return inputs * _per_channel(self.std, inputs) + _per_channel(self.mean, inputs)

    def to(self, device: torch.device) -> Self:
        """The same observation with model and tensors on `device`."""
        sent = {name: _move(dict(getattr(self.update, name)), device) for name in ("tensors", "buffers")}
        update = replace(self.update, **sent)
        moved = {name: _move(getattr(self, name), device) for name in ("mean", "std", "labels", "bn_statistics")}
        for name in ("prior", "surrogate_data"):
            granted = getattr(self, name)
            moved[name] = granted and replace(
                granted, **{key: _move(value, device) for key, value in vars(granted).items()}
            )
        return replace(self, model=self.model.to(device), update=update, **moved)


def _per_channel(values: Tensor, images: Tensor) -> Tensor:
    return values.to(device=images.device, dtype=images.dtype).view(1, -1, 1, 1)


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {key: _move(item, device) for key, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
