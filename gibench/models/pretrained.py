"""Weights that torchvision publishes, by name, downloaded on first use to where torch keeps such files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from gibench.errors import UsageError

Weights = Literal["none", "imagenet"]
_SAID = 8  # hexadecimal digits of its digest in a file's name


def fetch(architecture: str) -> Path:
    """The file of an architecture's first ImageNet weights, whose contents its name's digest vouches for.

    Raises:
        UsageError: it is not there and cannot be downloaded, or holds something else.
    """
    from torchvision.models import get_model_weights

    url: str = next(iter(get_model_weights(architecture))).url
    file = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path))
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), file.stem[-_SAID:], progress=False)
        except (OSError, RuntimeError) as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(
                f"the ImageNet weights of {architecture} cannot be downloaded ({cause}): get {url} elsewhere and put "
                f"it at {file}, or leave weights=imagenet out"
            ) from error
    with file.open("rb") as stream:
        if not hashlib.file_digest(stream, "sha256").hexdigest().startswith(file.stem[-_SAID:]):
            raise UsageError(f"{file} is damaged: delete it, and it is downloaded again")
    return file


def fill(network: nn.Module, architecture: str, part: str = "") -> None:
    """Write an architecture's ImageNet weights into a network, where names and shapes are the same.

    Args:
        network: of that architecture. Under the device "meta" nothing is read.
        architecture: torchvision's name.
        part: what the names begin with of those that are wanted.

    Raises:
        UsageError: see `fetch`; or weights but those of the last layer do not fit.
    """
    state = network.state_dict()
    if any(value.is_meta for value in state.values()):
        return
    found: dict[str, Tensor] = torch.load(fetch(architecture), map_location="cpu", weights_only=True)
    last = list(network.named_modules())[-1][0]
    fitting = {name: value for name, value in found.items() if name.startswith(part) and not name.startswith(last)}
    for name, value in fitting.items():
        if name not in state or state[name].shape != value.shape:
            here = list(state[name].shape) if name in state else "nothing"
            raise UsageError(
                f"the ImageNet weights of {architecture} do not fit: at '{name}' the network has {here} and they "
                f"{list(value.shape)}; use images of 3 channels and 64 px or more, or leave weights=imagenet out"
            )
    network.load_state_dict(fitting, strict=False)
