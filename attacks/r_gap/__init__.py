"""R-GAP: one image, by linear equations from the last layer to the first."""

from .attack import RGAP

__all__ = ["RGAP"]
