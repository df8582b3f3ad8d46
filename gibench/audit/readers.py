"""Reads what a client sent from a file: tensors by name, or in order. No reader unpickles an object."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from gibench.errors import UsageError

Sent = dict[str, Tensor] | list[Tensor]  # by name, or in the order of `state_dict()`

_FORMATS = ".safetensors, .pt, .pth or .npz"
_SLACK = 2**20  # bytes that headers may take
_WIDEST = 8  # bytes of a number
_ORDERED = re.compile(r"arr_\d+")  # what numpy calls the arrays of a list


def read(source: Any, what: str, numbers: int) -> Sent:
    """The tensors of a file, or of a mapping or list of tensors or arrays, on the CPU.

    Args:
        source: a path, a mapping or a sequence.
        what: the noun for messages: update, weights.
        numbers: how many the model has; a compressed file that unpacks to far more is refused.

    Raises:
        UsageError: it cannot be read, holds Python objects or something else than numbers.
    """
    if not isinstance(source, str | Path):
        return _tensors(source, what)
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"there is no file '{path}': give the {what} as {_FORMATS}")
    readers: dict[str, Callable[[Path], Any]] = {
        ".safetensors": load_file,
        ".pt": _torch,
        ".pth": _torch,
        ".npz": lambda file: _npz(file, numbers),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"the {what} '{path.name}' has no format that is read here: save it as {_FORMATS}")
    try:
        return _tensors(reader(path), what)
    except UsageError:
        raise
    except pickle.UnpicklingError:
        raise UsageError(
            f"the {what} '{path.name}' is damaged, or a pickle of more than tensors, which could run code and is not "
            "opened: save a dict of tensors by torch.save (torch.as_tensor of arrays, state_dict() of models)"
        ) from None
    except Exception as error:  # readers raise all sorts of things at bytes that are none of their format's
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"the {what} '{path.name}' cannot be read ({cause}): write it again, as {_FORMATS}") from error


def _torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _npz(path: Path, numbers: int) -> dict[str, Any]:
    """What is unpacked is bounded before anything is; arrays of objects are refused."""
    with zipfile.ZipFile(path) as archive:
        unpacked, most = sum(entry.file_size for entry in archive.infolist()), _WIDEST * numbers + _SLACK
    if unpacked > most:
        raise UsageError(f"'{path.name}' unpacks to {unpacked} bytes, and the model has {numbers} numbers: not opened")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _tensors(source: Any, what: str) -> Sent:
    if isinstance(source, Mapping):
        named = {_name(key, what): _tensor(value, str(key), what) for key, value in source.items()}
        return list(named.values()) if named and all(map(_ORDERED.fullmatch, named)) else named
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return [_tensor(value, f"entry {index}", what) for index, value in enumerate(source)]
    raise UsageError(f"the {what} is a {type(source).__name__}: give a dict of tensors by name, or a list in order")


def _name(key: Any, what: str) -> str:
    if not isinstance(key, str):
        raise UsageError(f"the {what} has the key {key!r}, which is no name: name tensors as model.state_dict() does")
    return key


def _tensor(value: Any, name: str, what: str) -> Tensor:
    """Numbers of a precision that networks are trained in."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(np.asarray(value, value.dtype.newbyteorder("="), order="C"))
    if not isinstance(value, Tensor) or value.is_sparse or value.is_quantized:
        raise UsageError(f"the {what} holds a {type(value).__name__} at '{name}', which is no dense tensor: convert it")
    return value.detach().cpu()
