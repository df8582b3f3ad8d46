"""What every model keeps to."""

from __future__ import annotations

import io
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn

from gibench import experiment, seeds
from gibench.buffers import mean_gradient
from gibench.errors import UsageError
from gibench.testing import subject as shared
from gibench.testing.device import NAME, simulated
from gibench.testing.subject import FaultError, NotHereError, settings, tensors_of, unchanged, unchanged_process
from gibench.training import logits as checked_logits
from gibench.training import model_inputs, trainable

_SHAPES = ((1, 1, 1), (3, 5, 7), (1, 28, 28), (3, 64, 48))  # C, H, W


class Subject(shared.Subject):
    """A model."""

    kind = "model"

    def build(self, seed: int = 0) -> nn.Module:
        """The network as a cell has it."""
        cell = self.cell()
        with seeds.isolated(seed, "model"):
            return experiment.build(cell.dataset, cell.model)

    def batch(self, network: nn.Module, count: int = 4) -> tuple[Tensor, Tensor]:
        """Public images as the network takes them, and their labels."""
        images = experiment.load(self.cell().dataset)
        return model_inputs(network, images, images.public.images[:count]), images.public.labels[:count]

    @property
    def num_classes(self) -> int:
        return experiment.load(self.cell().dataset).num_classes


def logits(subject: Subject) -> str:
    """Gives logits, one a class, in train and in eval mode."""
    network = subject.build()
    inputs, _ = subject.batch(network)
    for mode in (True, False):
        checked_logits(network.train(mode), inputs, subject.num_classes)
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"{subject.num_classes} of them, {count} parameters"


def seeded(subject: Subject) -> str:
    """Draws its weights from torch's global generator: the same from one seed, others from another."""
    first, again, other = (dict(subject.build(seed).named_parameters()) for seed in (0, 0, 1))
    if not all(shared.same(first[name], again[name]) for name in first):
        raise FaultError("two networks of one seed have different weights: draw them from torch's global generator")
    if all(shared.same(first[name], other[name]) for name in first) and not list(subject.plugin.files()):
        raise FaultError("networks of different seeds have the same weights, and no file is named that they come from")
    return "the same weights from the same seed"


def forward(subject: Subject) -> str:
    """Leaves its input and its weights as they are when it is called."""
    network = subject.build().eval()
    inputs, _ = subject.batch(network)
    with unchanged(input=inputs, network=network), torch.no_grad():
        network(inputs)
    return "as they were"


def gradient(subject: Subject) -> str:
    """Has a gradient by all that is not frozen, also an example at a time, as DP-SGD takes it."""
    network = subject.build().train()
    inputs, labels = subject.batch(network)
    of = mean_gradient(network)
    parameters = {name: value.detach() for name, value in trainable(network).items()}
    whole = of(parameters, inputs, labels)
    again = of(parameters, inputs, labels)
    if draws := not all(shared.same(whole[name], again[name]) for name in whole):
        network.eval()  # so that what it draws, as dropout does, hides nothing
        whole = of(parameters, inputs, labels)
    if not any(float(value.norm()) for value in whole.values()):
        raise FaultError("its gradient is zero")
    if any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in network.modules()):
        return "whole batches alone: BatchNorm mixes examples"
    each = torch.func.vmap(lambda x, y: of(parameters, x[None], y[None]), randomness="different")(inputs, labels)
    if not all(torch.allclose(each[name].mean(0), whole[name], rtol=1e-3, atol=1e-5) for name in whole):
        raise FaultError(
            "the mean of its examples' gradients is not the batch's: they depend on others, or on chance in eval mode"
        )
    return "of batches and of examples" + (", in eval mode: in train mode it draws" if draws else "")


def sent(subject: Subject) -> str:
    """Can be sent to another process, and gives the same there."""
    network = subject.build().eval()
    inputs, _ = subject.batch(network)
    buffer = io.BytesIO()
    torch.save(network, buffer, pickle_module=cloudpickle)
    buffer.seek(0)
    with torch.no_grad():
        if not shared.same(torch.load(buffer, weights_only=False)(inputs), network(inputs)):
            raise FaultError("a copy of it gives other logits")
    return "copied as it is"


def device(subject: Subject) -> str:
    """Computes on the device that it is moved to."""
    network = subject.build().eval()
    inputs, _ = subject.batch(network)
    with simulated(), torch.no_grad():
        there = network.to(NAME)(inputs.to(NAME))
        if there.device.type != NAME:
            raise FaultError("its logits are on the CPU: register what it holds as parameters or buffers")
    return "works on a simulated one"


def meta(subject: Subject) -> str:
    """Builds without memory where it says that it does, so that what does not fit is refused before anything runs."""
    if not subject.plugin.builds_on_meta:
        raise NotHereError("`builds_on_meta` is not set")
    images = experiment.load(subject.cell().dataset)
    with torch.device("meta"):
        network = subject.plugin.build(images.image_shape, images.num_classes)
    if real := [name for name, tensor in tensors_of(network) if tensor.device.type != "meta"]:
        raise FaultError(f"{real[0]} takes memory under torch.device('meta'): make it as torch's layers make theirs")
    return "no memory taken"


def sizes(subject: Subject) -> str:
    """Takes other images and numbers of classes, or refuses them with a UsageError that says why."""
    taken = []
    for shape in _SHAPES:
        try:
            with seeds.isolated(0, "model"):
                network = subject.plugin.build(shape, 3)
            with torch.no_grad():
                checked_logits(network.eval(), torch.zeros(2, *shape), 3)
            taken.append("x".join(map(str, shape)))
        except UsageError as refusal:
            if isinstance(refusal, TypeError):  # the kit's own word for what is no logits
                raise
        except Exception as error:
            raise FaultError(
                f"it fails on images of shape {list(shape)} ({type(error).__name__}: {error}): raise a UsageError there"
            ) from error
    return f"takes {', '.join(taken) or 'no other'}"


def process(subject: Subject) -> str:
    """Leaves the process as it is, but for torch's global generator while it builds."""
    network = subject.build()
    inputs, _ = subject.batch(network)

    def use() -> Any:
        with torch.no_grad():
            return subject.build().eval()(inputs)

    use()  # what is first imported may set something up
    with unchanged_process():
        use()
    return "as it was"


CHECKS = (settings, logits, seeded, forward, gradient, sent, device, meta, sizes, process)
