"""Networks that are chains of layers, and the step of each layer."""

from __future__ import annotations

from torch import Tensor, nn

from .steps import MaxPool2d, Other, ReLU, Reshape, Sigmoid, Step
from .weighted import Conv2d, Linear, Weighted


def links(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The layers of a chain by name, in order, or None where the model is no chain of layers that have a `Step`."""
    found = _flat("", model)
    weighted = [module for _, module in found if list(module.parameters())]
    free = [module for _, module in found if not list(module.parameters())]
    parameters = [parameter for module in weighted for parameter in module.parameters()]
    supported = all(map(_linear_in_its_weights, weighted)) and not any(map(_changes_state_or_input, free))
    return found if parameters and supported and len(set(map(id, parameters))) == len(parameters) else None


def _flat(name: str, model: nn.Module) -> list[tuple[str, nn.Module]]:
    if type(model) is not nn.Sequential:
        return [(name, model)]
    inner = [(f"{name}.{key}" if name else key, module) for key, module in model._modules.items()]
    return [link for key, module in inner for link in _flat(key, module or nn.Identity())]


def _linear_in_its_weights(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and isinstance(module.padding, tuple)
    return type(module) is nn.Linear


def _changes_state_or_input(module: nn.Module) -> bool:
    in_place = type(module) is not nn.ReLU and any(getattr(part, "inplace", False) for part in module.modules())
    return in_place or any(True for _ in module.buffers())


def weighted_step(module: nn.Module, target: Tensor, x: Tensor, restarts: int) -> Weighted:
    """The step of a link with weights, see `Weighted`."""
    if isinstance(module, nn.Linear):
        return Linear(module, target, x, restarts)
    assert isinstance(module, nn.Conv2d)  # `links` lets no others pass
    return Conv2d(module, target, x, restarts)


def step(module: nn.Module, x: Tensor) -> Step:
    """The step of a link without weights at x."""
    if isinstance(module, (nn.Flatten, nn.Identity)):
        return Reshape(module, x)
    if type(module) is nn.MaxPool2d and not module.return_indices:
        return MaxPool2d(module, x)
    if type(module) is nn.ReLU:
        return ReLU(x)
    return Sigmoid(x) if type(module) is nn.Sigmoid else Other(module, x)
