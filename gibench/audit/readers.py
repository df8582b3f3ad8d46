"""Reads what a client sent from a file: tensors by name, or in order. No reader unpickles an object.

Files of 1 GB are nothing special: `.safetensors` and `.pt` are mapped into memory and read where they are asked for.
"""

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

from gibench.audit.federated import unwrapped
from gibench.errors import UsageError
from gibench.text import type_of

Sent = dict[str, Tensor] | list[Tensor]  # by name, or in the order of `state_dict()`

_FORMATS = ".safetensors, .pt, .pth or .npz"
_SLACK = 2**20  # bytes that headers may take
_WIDEST = 8  # bytes of a number
_ORDERED = re.compile(r"(?:arr_)?(\d+)")  # what numpy calls the arrays of a list, and Flower


def read(source: Any, what: str, numbers: int) -> Sent:
    """The tensors of a file, of a mapping or list of tensors or arrays, or of a framework's object, on the CPU.

    Args:
        source: a path, a mapping, a sequence, or what `gibench.audit.federated` knows.
        what: the noun for messages: update, weights.
        numbers: how many the model has; a compressed file that unpacks to far more is refused.

    Raises:
        UsageError: it cannot be read, holds Python objects or something else than numbers.
    """
    if not isinstance(source, str | Path):
        return _tensors(unwrapped(source, what), what)
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"there is no file '{path}': give the {what} as {_FORMATS}")
    readers: dict[str, Callable[[Path], Any]] = {
        ".safetensors": load_file,
        ".pt": lambda file: _torch(file, what),
        ".pth": lambda file: _torch(file, what),
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


def _torch(path: Path, what: str) -> Any:
    if not zipfile.is_zipfile(path):  # as torch saved before version 1.6
        return torch.load(path, map_location="cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UsageError(f"the {what} '{path.name}' is compressed, as torch.save leaves no file: save it again")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


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
        places = [_ORDERED.fullmatch(name) for name in named]
        if not named or not all(places):
            return named
        return [named[name] for _, name in sorted((int(place[1]), place[0]) for place in places if place)]
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return [_tensor(value, f"entry {index}", what) for index, value in enumerate(source)]
    raise UsageError(f"the {what} is {type_of(source)}: give a dict of tensors by name, or a list in order")


def _name(key: Any, what: str) -> str:
    if not isinstance(key, str):
        raise UsageError(f"the {what} has the key {key!r}, which is no name: name tensors as model.state_dict() does")
    return key


def _tensor(value: Any, name: str, what: str) -> Tensor:
    """Numbers of a precision that networks are trained in."""
    made = value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub" and value.dtype.itemsize <= _WIDEST:
        made = torch.from_numpy(np.asarray(value, value.dtype.newbyteorder("="), order="C"))
    if not isinstance(made, Tensor) or made.layout != torch.strided or made.is_quantized or made.is_meta:
        held = f"a {value.dtype}" if isinstance(value, np.ndarray) else type_of(value)
        raise UsageError(f"the {what} holds {held} at '{name}', which is no dense tensor of numbers: convert it")
    return made.detach().cpu()
