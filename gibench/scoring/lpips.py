"""LPIPS v0.1 with AlexNet, from the `lpips` package and the backbone weights beside this file (rule E7).

Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.
"""

from __future__ import annotations

import hashlib
import warnings
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gibench.errors import GibenchError

NAME = "LPIPS v0.1 alex"
WEIGHTS = "alexnet_features.safetensors"
SHA256 = "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9"
_SLICES = {0: "slice1", 3: "slice2", 6: "slice3", 8: "slice4", 10: "slice5"}  # where lpips keeps each convolution
_MIN_SIDE = 32  # pixels
_CHUNK, _PIXELS = 64, 2**20  # pairs at once, and their pixels: each takes some 300 bytes on the way
# Self-test: (second photograph, side of the crop, LPIPS against astronaut), computed with lpips 0.1.4.
_REFERENCES = (("coffee", 64, 0.72149), ("coffee", 32, 0.31116))
_TOLERANCE = 1e-4


def lpips(truth: Tensor, images: Tensor) -> Tensor:
    """LPIPS of each pair, `[N]`.

    Native resolution from 32 px up, smaller images are resized to 32 bilinearly, grey is repeated to three channels.

    Args:
        truth: `[N, C, H, W]` in [0, 1], C 1 or 3.
        images: of the same shape and range.

    Raises:
        GibenchError: the weights are damaged or the self-test fails.
    """
    return _measure(_tested_network(), truth, images)


def self_test() -> dict[str, float]:
    """Measured minus reference value of each reference pair.

    Raises:
        GibenchError: the weights are damaged, or a value is off by more than 1e-4.
    """
    return _self_test(_network())


@cache
def _tested_network() -> nn.Module:
    network = _network()
    _self_test(network)
    return network


def _network() -> nn.Module:
    from lpips import LPIPS
    from safetensors.torch import load

    data = files("gibench.scoring").joinpath(WEIGHTS).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise GibenchError(f"the LPIPS weights gibench/scoring/{WEIGHTS} are damaged: reinstall gibench")
    weights = load(data)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # torchvision has deprecated the way in which lpips asks for a network without weights.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        network: nn.Module = LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    backbone = {
        f"{place}.{layer}.{part}": weights[f"features.{layer}.{part}"]
        for layer, place in _SLICES.items()
        for part in ("weight", "bias")
    }
    network.get_submodule("net").load_state_dict(backbone)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def _measure(network: nn.Module, truth: Tensor, images: Tensor) -> Tensor:
    size = max(1, min(_CHUNK, _PIXELS // (truth.shape[2] * truth.shape[3])))
    pairs = zip(torch.split(truth, size), torch.split(images, size), strict=True)
    return torch.cat([network(_prepare(first), _prepare(second)).flatten() for first, second in pairs])


def _prepare(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    size = max(height, _MIN_SIDE), max(width, _MIN_SIDE)
    if size != (height, width):
        images = interpolate(images, size, mode="bilinear", align_corners=False)
    return images.expand(-1, 3, -1, -1) * 2 - 1


def _self_test(network: nn.Module) -> dict[str, float]:
    from skimage import data

    errors: dict[str, float] = {}
    for name, side, reference in _REFERENCES:
        crops = [torch.from_numpy(photo[:side, :side]) for photo in (data.astronaut(), getattr(data, name)())]
        first, second = (crop.permute(2, 0, 1)[None].float() / 255 for crop in crops)
        measured = float(_measure(network, first, second))
        pair = f"astronaut, {name} {side} px"
        errors[pair] = measured - reference
        if not abs(errors[pair]) <= _TOLERANCE:
            raise GibenchError(
                f"the LPIPS self-test fails: {pair} gives {measured:.5f}, not {reference}: reinstall lpips and torch"
            )
    return errors
