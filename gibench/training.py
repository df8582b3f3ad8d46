"""Trains a model on the training split, so that a cell can attack it in an early or a late state (rule E10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gibench.datasets.base import Images, Split
from gibench.errors import NotApplicableError, PluginError

BATCH_SIZE, LEARNING_RATE = 64, 1e-3


def train(model: nn.Module, images: Images, steps: int, generator: torch.Generator) -> None:
    """Train `model` in place, where it is: Adam at 1e-3 on minibatches of 64 training images.

    Minibatches are drawn with replacement, so that a training split of any size will do.

    Args:
        model: from normalised images to logits; it is left in train mode, without gradients.
        images: the data set.
        steps: minibatches; 0 changes nothing.
        generator: on the CPU, draws the minibatches.

    Raises:
        NotApplicableError: every parameter is frozen.
    """
    model.train()
    optimizer = torch.optim.Adam(trainable(model).values(), lr=LEARNING_RATE)
    for _ in range(steps):
        chosen = torch.randint(len(images.training), (BATCH_SIZE,), generator=generator)
        inputs = model_inputs(model, images, images.training.images[chosen])
        loss = functional.cross_entropy(
            logits(model, inputs, images.num_classes), images.training.labels[chosen].to(inputs.device)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad()


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a client trains, by name, and so all that an update can hold; the others are frozen.

    Raises:
        NotApplicableError: there are none.
    """
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not found:
        raise NotApplicableError(
            "every parameter of the model is frozen, so a client has no gradient to send: let one have requires_grad"
        )
    return found


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, split: Split) -> float:
    """The share of a split that `model` classifies rightly in eval mode; its mode is left as it was.

    `model_accuracy` of a row is that on the tuning split, which is disjoint from what the model was trained on.
    """
    was_training = model.training
    model.eval()
    hits = 0
    for pixels, labels in zip(torch.split(split.images, 256), torch.split(split.labels, 256), strict=True):
        found = logits(model, model_inputs(model, images, pixels), images.num_classes)
        hits += int((found.argmax(1).cpu() == labels).sum())
    model.train(was_training)
    return hits / len(split)


def logits(model: nn.Module, inputs: Tensor, num_classes: int) -> Tensor:
    """What `model` makes of `inputs` `[N, C, H, W]`: `[N, num_classes]`.

    Raises:
        PluginError: it makes something else of them.
    """
    found = model(inputs)
    due = len(inputs), num_classes
    if not isinstance(found, Tensor) or tuple(found.shape) != due:
        given = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise PluginError(f"the model gives {given}, where logits of shape {list(due)} are due, one a class")
    return found


def model_inputs(model: nn.Module, images: Images, pixels: Tensor) -> Tensor:
    """Pixels `[N, C, H, W]` in [0, 1] as `model` takes them: normalised in its dtype, on its device."""
    like = next(model.parameters(), torch.empty(0))  # a model without parameters is refused elsewhere, in words
    return images.normalize(pixels.to(device=like.device, dtype=like.dtype))
