"""How much of the update the recovered images explain: it is computed again from them, and needs no truth.

What the loss sends back for each image is fitted to the last layer's gradient by least squares; the other layers'
gradients follow from it. So neither labels nor the loss are asked for, and what is sent back tells the targets.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gibench.audit.blocks import blocks, norm
from gibench.observation import Observation


@dataclass(frozen=True)
class Residual:
    """What is left of the update, as a share of it: 0 if the images explain all, about 1 if nothing.

    `gradient_sign` is whether the labels agree that the update has a gradient's sign; None where they do not say.
    """

    share: float
    sent_back: Tensor  # [N, classes], of the sum over images
    probabilities: Tensor  # [N, classes]

    @property
    def labels(self) -> Tensor:
        """The class of each image, `[N]`: its logit is the one to be raised."""
        return self.sent_back.argmin(1)

    @property
    def gradient_sign(self) -> bool | None:
        """Whether a majority of images lower all logits but one, as cross-entropy does, rather than raise them."""
        lowered = self.sent_back.gather(1, self.sent_back.abs().argmax(1, keepdim=True)) < 0
        share = float(lowered.double().mean()) if len(lowered) else 0.5
        return None if share == 0.5 or self.sent_back.shape[1] < 3 else share > 0.5

    def targets(self, scale: float) -> Tensor:
        """`[N, classes]`, where what is sent back for an image is `scale` times probabilities minus targets."""
        return self.probabilities - self.sent_back / scale


def residual(observation: Observation, inputs: Tensor) -> Residual | None:
    """The residual of images, as the model takes them; None where no linear layer makes the logits.

    Args:
        observation: of the update.
        inputs: `[N, C, H, W]`, not clamped.
    """
    model = copy.deepcopy(observation.model).double().requires_grad_(False)
    gradient = observation.gradient()
    parameters = {name: each.requires_grad_() for name, each in model.named_parameters() if name in gradient}
    head, features, logits = _head(model, inputs.double())
    if head is None or f"{head}.weight" not in gradient:
        return None
    known, asked = features.detach(), gradient[f"{head}.weight"].double()
    if f"{head}.bias" in gradient:
        known = torch.cat([known, known.new_ones(len(known), 1)], dim=1)
        asked = torch.cat([asked, gradient[f"{head}.bias"].double()[:, None]], dim=1)
    lengths = known.norm(dim=1, keepdim=True).clamp_min(1e-300)
    back = torch.linalg.lstsq((known / lengths).T.cpu(), asked.T.cpu(), driver="gelsd").solution.to(known.device)
    back = back / lengths
    left = {name: norm(gradient[name]) for name in parameters}
    total = math.hypot(*left.values())

    def subtract(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:  # called with each gradient as it is made, so that one is held at a time
            assert parameter.grad is not None
            pairs = blocks(parameter.grad, gradient[name])
            left[name] = math.hypot(*(float((made - sent).norm()) for made, sent in pairs))
            parameter.grad = None

        return hook

    for name, parameter in parameters.items():
        parameter.register_post_accumulate_grad_hook(subtract(name))  # type: ignore[no-untyped-call]
    logits.backward(back)  # type: ignore[no-untyped-call]
    return Residual(math.hypot(*left.values()) / total, back, logits.detach().softmax(1))


def _head(model: nn.Module, inputs: Tensor) -> tuple[str | None, Tensor, Tensor]:
    """The linear layer whose output is the model's, what it is fed `[N, d]`, and the logits."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def listener(name: str) -> object:
        def listen(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = arguments[0], output

        return listen

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_hook(listener(name)) for name, module in layers]  # type: ignore[arg-type]
    with torch.random.fork_rng([inputs.device] if inputs.is_cuda else []):
        logits = model(inputs)
    for handle in handles:
        handle.remove()
    head = next((name for name, (fed, output) in seen.items() if output is logits and fed.ndim == 2), None)
    return head, seen[head][0] if head else logits, logits
