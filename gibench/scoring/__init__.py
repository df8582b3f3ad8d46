"""Compares a reconstruction with the truth: matching, PSNR, SSIM, LPIPS, exactness, and the image grid."""

from gibench.scoring.evaluate import Score, score
from gibench.scoring.grid import grid_png

__all__ = ["Score", "grid_png", "score"]
