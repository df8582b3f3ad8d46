"""Which labels a batch had, from the gradient of the last linear layer: one function, named strategies.

With the mean cross-entropy, entry c of the last layer's bias gradient is the mean predicted probability of class c
minus the share of images labelled c: only classes that occur can be negative. Every strategy works on the gradient in
gradient sign, and none but `counts` depends on its scale, so federated-averaging updates serve as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gibench.graph import send_through

from . import class_counts

Strategy = Literal["counts", "bias-corrected", "wainakh", "analytic", "idlg", "yin"]


def output_layer(model: nn.Module, num_classes: int, image_shape: tuple[int, int, int]) -> str | None:
    """The name of the last linear layer called that has one output a class and a bias, or None if there is none."""
    layers = [
        name
        for name in send_through(model, image_shape).layers  # as they are first called: not all that a model has are
        if (layer := model.get_submodule(name)) and layer.out_features == num_classes and layer.bias is not None
    ]
    return layers[-1] if layers else None


def infer(
    strategy: Strategy,
    gradient: Mapping[str, Tensor],
    layer: str,
    batch_size: int,
    reference: class_counts.Reference | None = None,
) -> Tensor:
    """The labels of a batch, `[batch_size]`, sorted.

    - `counts`: see `class_counts.py`; alone it asks what the network says of images in general. It is right for more
      images than the others, above all for several of a class and for pruned gradients.
    - `idlg` (Zhao et al. 2020, arXiv 2001.02610): the one class whose row of the weight gradient sums lowest. For more
      than one image, whose labels that rule cannot tell apart, the rule of `analytic`.
    - `analytic`: the classes whose bias gradient is negative, lowest first; right where all labels differ. Missing
      labels repeat them in turn.
    - `wainakh` (Wainakh et al., PoPETs 2022, arXiv 2105.09369, LLG without auxiliary data): each negative row sum of
      the weight gradient is one occurrence; one image's impact, the mean of the negative sums times 1 + 1/classes, is
      taken off for each occurrence found, and the lowest row is the next. Needs features that are not negative.
    - `yin` (Yin et al., CVPR 2021): the classes whose row of the weight gradient has the lowest entry; right where all
      labels differ and features are not negative. More labels than classes repeat them in turn.
    - `bias-corrected` (breaching's default): the same on the bias gradient, whose impact needs no such correction.

    Args:
        strategy: see above.
        gradient: in gradient sign, see `Observation.gradient`.
        layer: the name of the output layer, see `output_layer`.
        batch_size: how many labels to find.
        reference: of the output layer, for `counts`.
    """
    if strategy == "counts":
        assert reference is not None
        return class_counts.infer(gradient[f"{layer}.weight"], gradient[f"{layer}.bias"], reference, batch_size)
    bias, rows = gradient[f"{layer}.bias"], gradient[f"{layer}.weight"].sum(1)
    if strategy == "idlg" and batch_size == 1:
        found = rows.argmin()[None]
    elif strategy == "yin":
        found = _in_turn(gradient[f"{layer}.weight"].amin(1).argsort(), batch_size)
    elif strategy in ("idlg", "analytic"):
        present = bias.argsort()[: max(1, min(batch_size, int((bias < 0).sum())))]
        found = _in_turn(present, batch_size)
    else:
        scores = bias if strategy == "bias-corrected" else rows
        correction = 1.0 if strategy == "bias-corrected" else 1 + 1 / len(scores)
        impact = scores.clamp_max(0).sum() * correction / batch_size
        found = _occurrences(scores.clone(), impact, batch_size)
    return found.sort().values


def _in_turn(classes: Tensor, batch_size: int) -> Tensor:
    return classes.repeat(-(-batch_size // len(classes)))[:batch_size]


def _occurrences(scores: Tensor, impact: Tensor, batch_size: int) -> Tensor:
    """Negative scores are labels; then the lowest score is, again and again, after the impact of each is taken off."""
    first = scores.argsort()[: min(batch_size, int((scores < 0).sum()))]
    scores[first] -= impact
    found = [*first]
    while len(found) < batch_size:
        lowest = scores.argmin()
        scores[lowest] -= impact
        found.append(lowest)
    return torch.stack(found)
