"""The patch embedding of a vision transformer and the positions added to it, found out by sending images through.

No name and no source is trusted: a layer embeds patches if each number that enters it is a pixel, and positions are
added to what leaves it if they are sent back what it is sent back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gibench.attack import shared_with

_PROBES = 2  # random images
_MOVED = 0.02  # standard deviation
_SAME = 1e-4  # of a gradient: what the order of sums may change in it
_NEEDS = "needs a layer that embeds the image's patches as they are, each pixel in one of them"


@dataclass(frozen=True)
class PatchEmbedding:
    """The linear layer that makes a token of each patch: a convolution whose stride is its kernel, or fully connected.

    T patches of n numbers each become tokens of `width` numbers.
    """

    name: str  # of the module
    weight: Tensor  # [width, n]
    bias: Tensor  # [width], zero where the layer has none
    pixels: Tensor  # [T, n]: which number of the flattened image each one of each patch is
    positions: str  # the parameter that is added to the tokens; an empty text where there is none
    before: int  # rows of it before those of patches, such as the class token's

    def patches(self, images: Tensor) -> Tensor:
        """`[N, T, n]` of images `[N, C, H, W]`."""
        return images.flatten(1)[:, self.pixels]

    def images(self, patches: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        """The images `[N, C, H, W]` that have the patches `[N, T, n]`."""
        flat = patches.new_empty(len(patches), self.pixels.numel())
        flat[:, self.pixels.flatten()] = patches.flatten(1)
        return flat.view(-1, *image_shape)

    def added(self, tensor: Tensor) -> Tensor:
        """The rows `[T, width]` of the positions, or of their gradient, that belong to patches."""
        return _rows(tensor, self.weight.shape[0])[self.before : self.before + len(self.pixels)]


def find_patch_embedding(model: nn.Module, image_shape: tuple[int, int, int]) -> PatchEmbedding | str:
    """The layer that the images enter in patches, or the reason why this model has none.

    Images are sent through the model in the mode in which it is, and a loss of random weights back. Its buffers and the
    global generators are left as they were.
    """
    like = next(model.parameters())
    numbers = torch.arange(math.prod(image_shape), device=like.device)
    numbered = numbers.view(1, *image_shape).expand(_PROBES, -1, -1, -1).to(torch.float32)
    with listening(model, (nn.Conv2d, nn.Linear)) as calls, torch.no_grad():
        model(numbered.to(like.dtype))
    found = ((name, _pixels(model.get_submodule(name), entered, numbered)) for name, entered, _ in calls)
    name, pixels = next(((name, each) for name, each in found if each is not None), ("", numbers[None]))
    if not name:
        return _NEEDS
    if [each for each, _, _ in calls].count(name) > 1 or shared_with(model, f"{name}.weight"):
        return f"needs a patch embedding that is used once, and '{name}' is used more often"
    if not torch.equal(pixels.flatten().sort().values, numbers):
        return f"{_NEEDS}, and '{name}' is fed some pixels never or more than once"
    layer = model.get_submodule(name)
    weight = layer.get_parameter("weight").detach().flatten(1)
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.get_parameter("bias").detach()
    return PatchEmbedding(name, weight, bias, pixels, *_positions(model, name, image_shape, len(pixels)))


def _pixels(layer: nn.Module, entered: Tensor, numbered: Tensor) -> Tensor | None:
    """Which pixels `[T, n]` make up each patch, if what entered the layer is those of the numbered images."""
    if isinstance(layer, nn.Conv2d):
        plain = (layer.groups, layer.dilation, layer.padding) == (1, (1, 1), (0, 0))
        if not (plain and layer.stride == layer.kernel_size and torch.equal(entered, numbered.to(entered))):
            return None
        patches = F.unfold(numbered[:1], layer.kernel_size, stride=layer.stride)[0].T
    else:
        patches = entered[0].reshape(-1, entered.shape[-1]).float()
    known = (patches == patches.round()) & (patches >= 0) & (patches < numbered[0].numel())
    return patches.long() if bool(known.all()) and 1 < len(patches) <= numbered[0].numel() / 2 else None


def _positions(model: nn.Module, name: str, image_shape: tuple[int, int, int], count: int) -> tuple[str, int]:
    """The parameter that is added to the layer's output, token by token, and its first row that belongs to a patch."""
    like = next(model.parameters())
    generator = torch.Generator(like.device).manual_seed(0)
    images = torch.randn(_PROBES, *image_shape, generator=generator, device=like.device, dtype=like.dtype)
    parameters = {}
    for key, each in model.named_parameters():  # moved, since a head that is zero at first sends nothing back
        moved = torch.randn(each.shape, generator=generator, device=like.device, dtype=each.dtype)
        parameters[key] = (each.detach() + _MOVED * moved).requires_grad_()
    width = len(parameters[f"{name}.weight"])
    with listening(model, (type(model.get_submodule(name)),)) as calls, torch.enable_grad():
        logits = torch.func.functional_call(model, parameters, (images,))
        weights = torch.randn(logits.shape, generator=generator, device=like.device, dtype=like.dtype)
        left = next(left for each, _, left in calls if each == name)
        wanted = [left, *parameters.values()]
        back, *sent = torch.autograd.grad((logits * weights).sum(), wanted, allow_unused=True)
    if back is None or not bool(back.any()):
        return "", 0
    tokens = (back.flatten(2).mT if back.ndim == 4 and back.shape[1] == width else back.flatten(1, -2)).sum(0)
    for key, gradient in zip(parameters, sent, strict=True):
        rows = None if gradient is None or key == f"{name}.weight" else _rows(gradient, width)
        for first in range(0 if rows is None else len(rows) - count + 1):
            assert rows is not None
            if bool((rows[first : first + count] - tokens).norm() < _SAME * tokens.norm()):
                return key, first
    return "", 0


def _rows(tensor: Tensor, width: int) -> Tensor:
    """Numbers a token, one token a row: of `[..., width]`, or of channels first, `[1, width, ...]`."""
    if tensor.shape[-1] == width:
        return tensor.reshape(-1, width)
    return tensor.flatten(2)[0].T if tensor.ndim > 2 and tensor.shape[1] == width else tensor.new_zeros(0, width)


@contextmanager
def listening(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[list[tuple[str, Tensor, Tensor]]]:
    """Note what enters and leaves the layers of these kinds, by name and in order, while the body runs the model."""
    calls: list[tuple[str, Tensor, Tensor]] = []

    def listener(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def listen(_: nn.Module, entered: tuple[Tensor, ...], left: Tensor) -> None:
            calls.append((name, entered[0], left))

        return listen

    handles = [
        module.register_forward_hook(listener(name))
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {each.device for each in model.parameters() if each.is_cuda}
    try:
        with torch.random.fork_rng(list(devices)):
            yield calls
    finally:
        for handle in handles:
            handle.remove()
        for buffer, before in buffers:
            buffer.copy_(before)
