"""SPEAR++ by sparsely-used dictionary learning; `attack` is where to begin reading."""

from .attack import SpearPP

__all__ = ["SpearPP"]
