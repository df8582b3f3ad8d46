"""BatchNorm's statistics: those of the private batch, those that running buffers betray, those of the network sent."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gibench.errors import NotApplicableError

if TYPE_CHECKING:
    from gibench.observation import Observation

_BatchNorm = nn.modules.batchnorm._BatchNorm


def layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers of a network, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def by_batch(module: nn.Module) -> bool:
    """Whether it is BatchNorm that normalises by the batch, as it does in train mode and without running statistics."""
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def refusing_single_values(model: nn.Module) -> nn.Module:
    """The same model, whose BatchNorm says how to mend what torch's own error does not."""

    def refuse(name: str, module: nn.Module, arguments: tuple[Tensor]) -> None:
        values = arguments[0]
        if by_batch(module) and values.numel() == values.shape[1]:
            raise NotApplicableError(
                f"BatchNorm ('{name}') normalises by the batch, and a step on one image gives it a single value a "
                "channel: let every step have 2 images or more (batch_size, local_batch_size, the last local batch "
                "too), or use a model without BatchNorm"
            )

    for name, module in layers(model).items():
        module.register_forward_pre_hook(partial(refuse, name))
    return model


def of_batches(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Mean and biased variance of what enters each BatchNorm layer, `LAYER.mean` and `LAYER.var` `[channels]`.

    Args:
        model: in the client's mode; left as it is.
        batches: inputs `[N, C, H, W]` of each client, over which statistics are averaged, as over a layer's calls.
    """
    found: dict[str, list[Tensor]] = {}

    def listen(name: str, _: nn.Module, arguments: tuple[Tensor]) -> None:
        values = arguments[0].transpose(0, 1).flatten(1)
        found.setdefault(f"{name}.mean", []).append(values.mean(1))
        found.setdefault(f"{name}.var", []).append(values.var(1, correction=0))

    listener = copy.deepcopy(model)
    for name, module in layers(listener).items():
        module.register_forward_pre_hook(partial(listen, name))
    with torch.no_grad():
        for inputs in batches:
            listener(inputs.clone())
    return {name: torch.stack(each).mean(0) for name, each in found.items()}


def running(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics of the network, `LAYER.mean` and `LAYER.var` `[channels]`; some have none."""
    found: dict[str, Tensor] = {}
    for name, module in layers(model).items():
        if module.running_mean is not None and module.running_var is not None:
            found |= {f"{name}.mean": module.running_mean.clone(), f"{name}.var": module.running_var.clone()}
    return found


def inferred(observation: Observation) -> dict[str, Tensor]:
    """The batch's statistics, `LAYER.mean` and `LAYER.var`, in closed form from how running ones moved.

    A step of momentum m makes `new = (1 - m) old + m batch`, so `batch = old + (new - old) / m`. k steps leave
    `w = (1 - m)^k` of the old ones, or, where momentum is None and they are plain means, `w = t / (t + k)` after t
    earlier steps: `old + (new - old) / (1 - w)` is then a weighted mean of the steps' statistics. k is what the
    layer's counter moved by. Running variances are of the unbiased kind, n / (n - 1) of the batch's over n values a
    channel.

    One step, of one client or more, gives what `of_batches` measures; with more steps the network moves between them.
    Without the batch size, variances remain unbiased ones. Layers whose buffers were not sent, or did not move, have
    no statistics.
    """
    moved, found = observation.update.buffers, {}
    places = _places(observation) if moved else {}
    for name, module in layers(observation.model).items():
        means, variances = f"{name}.running_mean", f"{name}.running_var"
        new = _new_share(module, moved.get(f"{name}.num_batches_tracked"), _steps(observation))
        if not new or means not in moved or variances not in moved:
            continue
        mean, variance = module.running_mean, module.running_var
        assert mean is not None  # else none were sent
        assert variance is not None
        values = (_step_size(observation) or math.inf) * places[name]
        found[f"{name}.mean"] = mean + moved[means].to(mean.dtype) / new
        found[f"{name}.var"] = (1 - 1 / values) * (variance + moved[variances].to(variance.dtype) / new)
    return found


def _new_share(module: _BatchNorm, counted: Tensor | None, steps: int) -> float:
    """How much of the running statistics is new: 1 - w."""
    if counted is not None:
        steps = round(float(counted))  # a mean over clients may be sent as it is
    if module.momentum is not None:
        return 1.0 - (1.0 - module.momentum) ** steps
    before = int(module.num_batches_tracked) if module.num_batches_tracked is not None else None
    return 0.0 if before is None or not steps else steps / (before + steps)


def _steps(observation: Observation) -> int:
    """Of a client, as far as they are known; what the counters say goes before it."""
    local = observation.local_hyperparameters
    if local is None or observation.batch_size is None:
        return 1
    return local.epochs * math.ceil(observation.batch_size / local.clients / local.local_batch_size)


def _step_size(observation: Observation) -> int | None:
    """Images of a step."""
    local = observation.local_hyperparameters
    return local.local_batch_size if local else observation.batch_size


def _places(observation: Observation) -> Mapping[str, int]:
    """How many values a channel each BatchNorm layer sees of an image."""
    found: dict[str, int] = {}

    def listen(name: str, _: nn.Module, arguments: tuple[Tensor]) -> None:
        found[name] = arguments[0].numel() // arguments[0].shape[1] // 2

    listener = copy.deepcopy(observation.model).eval()
    for name, module in layers(listener).items():
        module.register_forward_pre_hook(partial(listen, name))
    parameter = next(listener.parameters())
    with torch.no_grad():  # of two images, since a layer without running statistics refuses one value a channel
        listener(torch.zeros(2, *observation.image_shape, device=parameter.device, dtype=parameter.dtype))
    return found
