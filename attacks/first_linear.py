"""The linear layer that the flattened images enter, for attacks that need nothing of what follows it."""

from __future__ import annotations

import torch
from torch import nn

from gibench.observation import Observation


def find_first_linear(observation: Observation) -> str:
    """The name of that layer, or an empty text if there is none; found by sending random images through the model."""
    parameter = next(observation.model.parameters())
    generator = torch.Generator(parameter.device).manual_seed(0)
    shape = (2, *observation.image_shape)
    images = torch.randn(shape, generator=generator, device=parameter.device, dtype=parameter.dtype)
    found: list[str] = []

    def listener(name: str) -> object:
        def listen(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            if torch.equal(arguments[0], images.flatten(1)):
                found.append(name)

        return listen

    layers = [(name, module) for name, module in observation.model.named_modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_pre_hook(listener(name)) for name, module in layers]  # type: ignore[arg-type]
    mode = observation.model.training
    try:
        with torch.no_grad():
            observation.model.eval()(images)  # in eval mode, so that no statistics move
    finally:
        observation.model.train(mode)
        for handle in handles:
            handle.remove()
    return found[0] if found else ""
