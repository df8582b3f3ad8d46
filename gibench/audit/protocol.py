"""What is told of how a client trained. What is not told is unknown, and the report says what it would change."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from gibench.errors import UsageError
from gibench.local import total_lr
from gibench.plugin import Plugin

Kind = Literal["auto", "gradient", "delta", "weights"]

_MOST_CHANNELS = 4
_LOSS = re.compile(r"ce(?:-smooth=(?P<smoothing>[0-9.eE+-]+))?")
_CHANGES = {  # what is assumed where it is not told; what knowing it would change
    "optimizer": ("SGD", "updates of Adam are refused, which no attack here reads"),
    "batch_size": ("nothing", "gradient matching can be tried, and whether images are missing can be told"),
    "lr": ("nothing", "the targets can be read off a delta"),
    "weight_decay": ("none", "what it adds to a delta is taken off before anything is tried"),
    "local_steps": ("one step", "the images of the first step can be certified by themselves"),
    "clients": ("one client", "the mean of several clients is told from one client"),
    "loss": ("cross-entropy", "smoothed targets are told from uncertain ones"),
    "reduction": ("a mean over the batch", "the targets of a loss that is a sum are right"),
    "defense": ("none", "attacks that allow for a clip norm, a noise level or a pruned share can be asked for"),
}


class Protocol(Plugin):
    """The facts of a round; the fields are the keys of a protocol file."""

    image_shape: tuple[int, int, int] = Field(description="C, H, W")
    mean: tuple[float, ...] = Field((0.0,), description="of the pixels, a channel or all")
    std: tuple[float, ...] = Field((1.0,), description="of the pixels, a channel or all")
    kind: Kind = Field("auto", description="of the update")
    optimizer: Literal["sgd", "adam"] | None = Field(None, description="of the client")
    lr: float | None = Field(None, gt=0, description="learning rate")
    weight_decay: float | None = Field(None, ge=0, description="as of torch.optim.SGD")
    momentum: float | None = Field(None, ge=0, lt=1, description="as of torch.optim.SGD")
    local_steps: int | None = Field(None, ge=1, description="steps that the update is of")
    local_epochs: int | None = Field(None, ge=1, description="times that these go through the images")
    clients: int | None = Field(None, ge=1, description="whose updates are averaged in it")
    loss: str | None = Field(None, description="ce, or ce-smooth=SHARE")
    reduction: Literal["mean", "sum"] | None = Field(None, description="of the loss over the batch")
    batch_size: int | None = Field(None, ge=1, description="images that the update is of, of all clients and steps")
    classes: int | None = Field(None, ge=2, description="logits of the model, which are counted if not told")
    mode: Literal["train", "eval"] = Field("train", description="of the model at the client")
    defense: str | None = Field(None, description="SPEC, + composes several")

    @field_validator("image_shape", "mean", "std", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`1,28,28` as on the command line, or one number."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(","))
        return (value,) if isinstance(value, int | float) else value

    @field_validator("image_shape")
    @classmethod
    def _channels_first(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(shape) < 1:
            raise ValueError("every side must be 1 or more")
        if shape[0] > _MOST_CHANNELS:
            swapped = ",".join(map(str, (shape[2], *shape[:2])))
            hint = f": did you mean {swapped}?" if shape[2] <= _MOST_CHANNELS else ""
            raise ValueError(f"channels come first, C,H,W, and are at most {_MOST_CHANNELS}{hint}")
        return shape

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str | None) -> str | None:
        if loss is not None and not _LOSS.fullmatch(loss):
            raise ValueError("only cross-entropy is known: ce, or ce-smooth=0.1")
        return loss

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.image_shape[0]):
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers for {self.image_shape[0]} channels")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        if self.steps % self.epochs:
            raise ValueError(f"{self.steps} local steps are no {self.epochs} epochs of as many steps each")
        if self.weight_decay and self.lr is None and self.kind in ("delta", "weights"):
            raise ValueError("weight_decay adds lr * weight_decay * W to a delta: give lr too")
        return self

    @classmethod
    def read(cls, file: Path) -> dict[str, Any]:
        """The keys of a protocol file.

        Raises:
            UsageError: no file, or no mapping in YAML.
        """
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            cause = " ".join(str(error).split())
            raise UsageError(f"the protocol '{file}' cannot be read ({cause}): write key: value lines") from error
        if not isinstance(found, dict):
            raise UsageError(f"the protocol '{file}' holds no keys: write lines such as batch_size: 8")
        return {str(key): value for key, value in found.items()}

    @property
    def smoothing(self) -> float | None:
        """The label smoothing that was told, 0 for plain cross-entropy."""
        found = _LOSS.fullmatch(self.loss) if self.loss else None
        return float(found["smoothing"] or 0) if found else None

    @property
    def steps(self) -> int:
        """Local steps; one where nothing is told."""
        return self.local_steps or 1

    @property
    def epochs(self) -> int:
        """Local epochs; one where nothing is told."""
        return self.local_epochs or 1

    @property
    def total_lr(self) -> float | None:
        """What a delta is in units of the gradient, to first order."""
        return None if self.lr is None else total_lr(self.lr, self.momentum or 0.0, self.steps)

    @property
    def step_size(self) -> int:
        """Images of a local step; one where the batch size was not told."""
        images = (self.batch_size or self.steps * (self.clients or 1)) / (self.clients or 1)
        return math.ceil(images / (self.steps // self.epochs))

    @property
    def decay(self) -> float | None:
        """What the local steps add of the weights received, as a multiple of them; None where it is not told.

        Steps of `torch.optim.SGD` are linear in the weights but for the loss, so it is exact.
        """
        if self.weight_decay is None or self.lr is None:
            return None
        weights, velocity = 1.0, 0.0
        for _ in range(self.steps):
            velocity = (self.momentum or 0.0) * velocity + self.weight_decay * weights
            weights -= self.lr * velocity
        return weights - 1.0

    @property
    def size(self) -> int:
        """Numbers of an image."""
        return math.prod(self.image_shape)

    def unknown(self) -> dict[str, str]:
        """What was not told, what is assumed in its place, and what knowing it would change."""
        return {
            name: f"{assumed} is assumed; with it, {change}"
            for name, (assumed, change) in _CHANGES.items()
            if getattr(self, name) is None
        }
