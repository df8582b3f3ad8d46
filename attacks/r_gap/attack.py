"""R-GAP: one image in closed form, layer by layer from the last to the first."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from .chain import Layer, read_chain
from .equations import Equations, Solution
from .logits import slopes_of_gradient

_CLASSES = 3  # at least, without a bias: -k and -x have the gradient of k and x, and of two each may be the true one


class RGAP(Attack):
    """Recursive gradient attack: the input of each layer from its output, its weights and their gradient.

    Of one image, a layer's weight gradient is the product of the loss's derivatives K by the layer's output and of its
    input. K of the last layer is its bias gradient, or, without a bias, what makes its weight gradient agree with the
    logits. A linear layer's input is then its gradient over K. A convolution's input solves two sets of linear
    equations, of its weights and of their gradient, by least squares (`equations.py`); the activation's inverse gives
    the output of the layer before, and its slope the K there.

    It is exact where every layer's equations have full rank and every activation can be inverted: the diagnostics say
    by layer how many numbers stay open. A ReLU leaves nothing of what is below zero, whose equations are missing then.

    Deviations: the paper's loss is logistic, of two classes and networks without biases; here it is the cross-entropy
    of any number of classes, with biases or without. Both sets of equations are given rows of like length. A linear
    layer's input is read off its gradient alone, which determines it.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Zhu and Blaschko, R-GAP: Recursive Gradient Attack on Privacy, ICLR 2021, arXiv 2010.07733",
    )

    def supports(self, observation: Observation) -> str | None:
        if observation.batch_size not in (None, 1):
            return f"takes the gradient of one image, and this is of {observation.batch_size}: use a batch of 1"
        chain = read_chain(observation.model, observation.image_shape)
        if isinstance(chain, str):
            return chain
        if chain[-1].module.bias is None:
            if not observation.scale_known:
                return "needs the gradient's scale where the last layer has no bias: grant local_hyperparameters"
            if len(chain[-1].weight) < _CLASSES:
                return "needs three classes where the last layer has no bias: of two, the image's sign stays open"
        return lacking(observation, [f"{layer.name}.weight" for layer in chain])

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        chain = read_chain(observation.model, observation.image_shape)
        assert isinstance(chain, list)  # else it is unsupported
        gradient = observation.gradient()
        slopes = _last_slopes(chain[-1], gradient)
        label, outputs, known = slopes.argmin(), torch.zeros_like(slopes), torch.ones_like(slopes, dtype=torch.bool)
        solved: dict[str, Solution] = {}
        for layer, before in zip(chain[::-1], [*chain[-2::-1], None], strict=True):
            context.progress(f"solving for what enters layer '{layer.name}'", None)
            solution, back = _input(layer, outputs, known, _slopes(layer, slopes, gradient), gradient)
            solved[layer.name] = solution
            if before is not None and before.activation is not None:
                given = solution.values.view(len(before.weight), -1)
                outputs, known = before.activation.invert(given), before.activation.known(given)
                slopes = back.view_as(given) * before.activation.slope(given)
        images = observation.denormalize(solution.values.view(1, *observation.image_shape)).clamp(0, 1)
        missing = sum(each.deficiency for each in solved.values())
        return Reconstruction(
            images.nan_to_num(0.5, 1, 0),
            labels=label[None],
            diagnostics={
                "finding": f"the layers' equations leave {missing} numbers open" if missing else "",
                "rank_deficiency": {name: each.deficiency for name, each in solved.items()},
                "equations": {name: each.equations for name, each in solved.items()},
                "unknowns": {name: each.values.numel() for name, each in solved.items()},
            },
        )


def _last_slopes(layer: Layer, gradient: dict[str, Tensor]) -> Tensor:
    """The loss's derivatives by the logits, `[classes, 1]`."""
    if layer.module.bias is not None and f"{layer.name}.bias" in gradient:
        return gradient[f"{layer.name}.bias"].double()[:, None]
    return slopes_of_gradient(layer.weight, layer.bias, gradient[f"{layer.name}.weight"].double())[:, None]


def _slopes(layer: Layer, slopes: Tensor, gradient: dict[str, Tensor]) -> Tensor:
    """Those by a layer's outputs `[o, P]`: of a linear layer its bias gradient, whatever was lost on the way."""
    told = gradient.get(f"{layer.name}.bias") if len(layer.shape) == 1 else None
    return slopes if told is None else told.double()[:, None]


def _input(
    layer: Layer, outputs: Tensor, known: Tensor, slopes: Tensor, gradient: dict[str, Tensor]
) -> tuple[Solution, Tensor]:
    """What enters a layer, and the loss's derivatives by it.

    Args:
        layer: of the chain.
        outputs: `[o, P]`, before the activation.
        known: where these are known.
        slopes: the derivatives by them.
        gradient: of all parameters.
    """
    given = gradient[f"{layer.name}.weight"]
    weight, wanted = layer.weight.flatten(1), given.double().flatten(1)
    if isinstance(layer.module, nn.Linear):
        size = slopes.square().sum()
        values = (wanted.T @ slopes)[:, 0] / size.clamp_min(torch.finfo(size.dtype).tiny)
        return Solution(values, given.numel(), 0 if bool(size > 0) else len(values)), weight.T @ slopes
    alike = weight.norm() / slopes.norm().clamp_min(torch.finfo(slopes.dtype).tiny)  # in the length of their rows
    equations = Equations(layer.module, layer.shape, weight, known, slopes * alike)
    solution = equations.solve(outputs - layer.bias[:, None], wanted * alike, torch.finfo(given.dtype).eps)
    return solution, equations.adjoint(slopes[None], torch.zeros_like(wanted)[None])
