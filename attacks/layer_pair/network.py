"""The network that found images are sent through."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..trunk.network import couples


@dataclass(frozen=True)
class Network:
    """A network that images can be sent through, and what its first two linear layers make of them."""

    model: nn.Module
    layers: tuple[str, str]
    image_shape: tuple[int, int, int]

    def derivatives(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        """Of each output by what either layer makes, `[K, m, C]` each, at images `[K, n]` as the model takes them.

        None where outputs depend on chance or on other images of the batch, or there is not a row of them an image.
        """
        if any(each.training and couples(each) for each in self.model.modules()):
            return None
        like = next(self.model.parameters())
        made: list[Tensor] = []

        def listen(module: nn.Module, fed: tuple[Tensor, ...], left: Tensor) -> Tensor:
            made.append(left)
            return left.clone()  # what follows may work in place

        handles = [self.model.get_submodule(name).register_forward_hook(listen) for name in self.layers]
        try:
            with torch.enable_grad():
                outputs = self.model(images.to(like).view(-1, *self.image_shape).requires_grad_())
                if outputs.ndim != 2:
                    return None
                found = [torch.autograd.grad(each.sum(), made, retain_graph=True) for each in outputs.unbind(dim=1)]
        finally:
            for handle in handles:
                handle.remove()
        first, second = (torch.stack(parts, dim=2) for parts in zip(*found, strict=True))
        return first, second
