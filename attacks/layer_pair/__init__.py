"""Images from the gradients of two successive linear layers; `attack` is where to begin reading."""

from .attack import LayerPair

__all__ = ["LayerPair"]
