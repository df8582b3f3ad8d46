"""What several networks are made of."""

from __future__ import annotations

from typing import Literal

from torch import nn

from gibench.errors import UsageError

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,  # slope 0.01
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def activation(name: Activation) -> nn.Module:
    """A layer that applies it."""
    return _ACTIVATIONS[name]()


def need(name: str, image_shape: tuple[int, int, int], least: int) -> None:
    """Refuse images that a network's strides and pooling would use up.

    Raises:
        UsageError: a side has fewer than `least` pixels.
    """
    _, height, width = image_shape
    if min(height, width) < least:
        raise UsageError(f"{name} takes images from {least} px up, not {height}x{width}: use mlp or linear")
