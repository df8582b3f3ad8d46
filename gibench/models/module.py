"""Anybody's own network, from a file or a module, with weights of one's own."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from torch import nn

from gibench.audit import names
from gibench.errors import UsageError
from gibench.factory import Factory, count_logits, own_copy, refuse_lazy
from gibench.models.base import Model

_COUNTER = "num_batches_tracked"  # of BatchNorm, which matters to none that has a momentum


class Module(Model):
    """The network that a factory of one's own makes, as `gibench audit --model` takes it; its code is run.

    A function, a class or a network: `path='net.py:make'`, `path='package.net:Net'`, with arguments as in
    `path='net.py:make(width=200)'`. It is handed `image_shape` (C, H, W) and `num_classes` if it has parameters of
    these names, and the latter if it takes any, as torchvision's do. Its code and its weights are part of a cell's key.
    """

    path: str = Field("", description="FILE.py:FACTORY or MODULE:FACTORY, with arguments as :FACTORY(key=value)")
    weights: Path | None = Field(
        None, description="a file of tensors by name (.safetensors, .pt, .npz), or none: those that the factory makes"
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        """The same text in two working directories names two files, so a cell's key holds the whole path."""
        return Factory.of(path).absolute() if path else ""

    @field_validator("weights")
    @classmethod
    def _whole(cls, weights: Path | None) -> Path | None:
        return weights and weights.expanduser().resolve()

    @property
    def _factory(self) -> Factory:
        if not self.path:
            raise UsageError("the model module needs a factory: write module:path='FILE.py:FACTORY'")
        return Factory.of(self.path)

    def files(self) -> list[Path]:
        return [*self._factory.files(), *([self.weights] if self.weights else [])]

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        made = self._factory.make(image_shape=image_shape, num_classes=num_classes)
        network = own_copy(made)  # an installed module may hold it, and weights are written into it
        refuse_lazy(network)
        if self.weights:
            found = names.load(self.weights, network)
            state = network.state_dict()  # has parameters that layers share under each name
            held = [name for name, _ in (*network.named_parameters(), *network.named_buffers()) if name in state]
            if lost := [name for name in held if name not in found and not name.endswith(_COUNTER)]:
                raise UsageError(f"the weights '{self.weights.name}' lack '{lost[0]}': save all of the state_dict()")
        if (count := count_logits(network, image_shape)) != num_classes:
            raise UsageError(
                f"the model gives {count} logits, and the data have {num_classes} classes: let the factory take "
                "num_classes, or use data with as many"
            )
        return network
