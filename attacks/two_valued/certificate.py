"""Which images of a two-valued batch are certified: those that send back the very columns they were recovered from.

Proved, up to arithmetic and noise: an image of lambda 1 that reproduces its column has the activation pattern of that
column, and that pattern with the model's own answer to the image gives the column. When all B do so, the gradient of
the recovered batch in the first layer is the observed one. Not proved, only measured: that no other batch has the same
gradient. That rests on the two-valued test of each direction (`signals.py`), whose m equations a mixture of images
would meet by coincidence only, and still has where the neurons are left out that may be on either side of zero for the
image. Where some direction is not sure, no image that it might hold a part of is certified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.assemble import Batch
from ..exact.certify import certified, matched
from ..exact.layers import InputLayer
from ..exact.low_rank import Factors
from .backward import Backward
from .signals import determined, fit_signals, rigid

# Relative distance of a column from its echo that is allowed beside the noise; probabilities differ by more.
_ECHO = 1e-3
_NOISE = 4.0  # standard deviations


def reproduces_column(factors: Factors, backward: Backward, layer: InputLayer, batch: Batch, classes: Tensor) -> Tensor:
    """Whether each image, sent through the model, sends back its own column up to scale: `[B]` booleans.

    Up to scale, since DP-SGD clips each image's gradient.
    """
    activations = (layer.weight.double() @ batch.inputs.T + layer.bias.double()[:, None]).relu()
    residual = (backward.weight @ activations + backward.bias[:, None]).softmax(dim=0)
    residual[classes, torch.arange(len(classes), device=classes.device)] -= 1
    echo = (backward.weight.T @ residual).masked_fill(batch.directions.zeros, 0.0)
    distance = (batch.columns / batch.columns.norm(dim=0) - echo / echo.norm(dim=0)).norm(dim=0)
    close: Tensor = distance <= _NOISE * factors.noise(batch.directions.vectors) + _ECHO
    return close


def certify_two_valued(
    factors: Factors, batch: Batch, passed: Tensor, pixel_scale: Tensor, layer: InputLayer, backward: Backward
) -> Tensor:
    """The images certified to round to the true 8-bit pixels, `[B]` booleans.

    Args:
        factors: of the gradient.
        batch: all B directions found.
        passed: `[B]`, the two-valued test of each direction.
        pixel_scale: `[C]`, pixels in [0, 1] per unit of model input.
        layer: the first one.
        backward: of the network.
    """
    active = ~batch.directions.zeros
    fitted = fit_signals(factors, backward, active)
    classes = backward.classes(fitted.t)
    passed = passed & rigid(factors, fitted, determined(factors, backward, active, batch.votes))
    sure = passed & matched(factors, batch) & reproduces_column(factors, backward, layer, batch, classes)
    return certified(factors, batch, sure, pixel_scale)
