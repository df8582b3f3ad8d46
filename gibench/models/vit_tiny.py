"""A small vision transformer: ViT (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929) in DeiT's tiny size.

Sizes and first weights are those of DeiT-Ti (Touvron et al., ICML 2021, arXiv 2012.12877), without its distillation
token, dropout and stochastic depth.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from gibench.errors import UsageError
from gibench.models.base import Model

_STD = 0.02  # of the first weights
_WIDER = 4  # the neurons of a block, in units of its width


class ViTTiny(Model):
    """Patches of `patch` px, a class token, learned positions, `depth` pre-norm blocks of attention and GELU, linear.

    Sides must be whole numbers of patches: patch=4 for 32 px, patch=16 for 224 px, where 4 makes 3,136 of them.
    """

    builds_on_meta = True

    patch: int = Field(4, ge=1, le=512, description="pixels a side of a patch")
    width: int = Field(192, ge=1, le=4096, description="numbers a token; a multiple of the heads")
    depth: int = Field(12, ge=1, le=100, description="blocks")
    heads: int = Field(3, ge=1, le=64, description="of attention")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        _, height, width = image_shape
        if height % self.patch or width % self.patch:
            raise UsageError(
                f"vit-tiny cuts images into patches of {self.patch} px, and {height}x{width} is no whole number of "
                "them: set patch to a divisor of both sides"
            )
        if self.width % self.heads:
            raise UsageError(f"vit-tiny shares width={self.width} out to heads={self.heads}: make it a multiple")
        return _ViT(image_shape, num_classes, self)


class _ViT(nn.Module):
    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, sizes: ViTTiny) -> None:
        super().__init__()
        channels, height, width = image_shape
        tokens = (height // sizes.patch) * (width // sizes.patch)
        self.embed = nn.Conv2d(channels, sizes.width, kernel_size=sizes.patch, stride=sizes.patch)
        self.token = nn.Parameter(torch.empty(1, 1, sizes.width))
        self.positions = nn.Parameter(torch.empty(1, tokens + 1, sizes.width))
        self.blocks = nn.Sequential(*(_Block(sizes.width, sizes.heads) for _ in range(sizes.depth)))
        self.norm = nn.LayerNorm(sizes.width)
        self.head = nn.Linear(sizes.width, num_classes)
        for values in (self.token, self.positions):
            nn.init.trunc_normal_(values, std=_STD)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=_STD)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """`[N, C, H, W]` to logits."""
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], 1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, _WIDER * width), nn.GELU(), nn.Linear(_WIDER * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        added: Tensor = x + self.mlp(self.second(x))
        return added


class _Attention(nn.Module):
    """Written out: torch's fused kernels cannot be differentiated twice, as gradient matching needs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [3, N, heads, tokens, numbers]
        weights = (self.scale * parts[0] @ parts[1].transpose(2, 3)).softmax(3)
        mixed: Tensor = self.out((weights @ parts[2]).transpose(1, 2).flatten(2))
        return mixed
